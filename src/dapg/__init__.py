"""dapg: pre-training for visible-infrared person re-identification under corruption."""

__version__ = "0.1.0"
