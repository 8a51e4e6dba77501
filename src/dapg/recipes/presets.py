"""The scales every recipe comes in; importable without torch, for help texts."""

PRESETS = ("recommended", "paper", "gpu", "tiny", "demo")
