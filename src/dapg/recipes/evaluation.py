"""Where scores go when nobody says: one folder per model, data set and mode."""

from dataclasses import replace
from pathlib import Path

from dapg.evaluation.stage import EvaluateSettings


def default_out(settings: EvaluateSettings) -> EvaluateSettings:
    """Fill in ``out`` where it is empty: inside the run, or below outputs/evaluate."""
    if settings.out:
        return settings
    label = f"{settings.data.name}-{settings.mode or 'default'}"
    if settings.corruption.types:
        label += "-corrupted"
    if settings.flip:
        label += "-flip"
    if settings.rerank.method != "none":
        label += f"-{settings.rerank.method}"
    if Path(settings.model).is_dir():
        return replace(settings, out=str(Path(settings.model) / f"evaluate-{label}"))
    name = Path(settings.model).stem
    if settings.model in ("random", "imagenet"):
        name = f"{settings.model}-{settings.backbone.name}"
    return replace(settings, out=f"outputs/evaluate/{name}-{label}")
