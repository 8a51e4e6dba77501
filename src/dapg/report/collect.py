"""What stages left behind, read back for the report: settings, environment, metrics and results."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from dapg.core.errors import UsageError
from dapg.core.metrics_log import read_metrics
from dapg.core.results import Environment, RankedList, ReportedTraining, TestData, check_evaluation
from dapg.core.run_folder import CONFIG, ENVIRONMENT, RESULT
from dapg.core.schema import read_json, read_settings
from dapg.core.types import JsonObject


class _Backbone(TypedDict, total=False):
    name: str
    width: float
    init: str


class _Settings(TypedDict, total=False):
    stage: str
    name: str
    model: str
    backbone: _Backbone
    positives: str


class _Explanation(TypedDict, total=False):
    data: TestData
    ranked_lists: list[RankedList]


_SHAPES: dict[str, Any] = {"evaluate": JsonObject, "explain": _Explanation}
"""Stage -> what is read of its result; all others are trainings."""


@dataclass(frozen=True)
class Run:
    """One stage's folder. ``result`` is None while it is unfinished."""

    folder: Path
    stage: str
    settings: JsonObject
    environment: JsonObject
    metrics: list[JsonObject]
    result: JsonObject | None

    @property
    def title(self) -> str:
        """A short name for tables; the folder tells two runs of one model or method apart."""
        if self.stage in ("evaluate", "explain"):
            model = str(self.settings.get("model", "unknown"))
            bare = model in ("random", "imagenet")
            name = f"{model} {self.settings.get('backbone', {}).get('name')}" if bare else Path(model).name
        else:
            name = str(self.settings.get("name", self.stage))
        return self.folder.name if name in self.folder.name else f"{name} ({self.folder.name})"


def collect(folders: list[Path]) -> list[Run]:
    """All runs in and below the given folders, in the order of their paths.

    Raises:
        UsageError: a folder does not exist, or none of them holds a run.
    """
    runs: dict[Path, Run] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder")
        for config in sorted(folder.rglob(CONFIG)):
            runs.setdefault(config.parent.resolve(), _read(config.parent))
    if not runs:
        raise UsageError(f"no run (a folder with {CONFIG}) below {', '.join(map(str, folders))}")
    return list(runs.values())


def _read(folder: Path) -> Run:
    settings = read_settings(folder / CONFIG, _Settings)
    stage = settings.pop("stage", "unknown")
    environment = read_json(folder / ENVIRONMENT, Environment) if (folder / ENVIRONMENT).exists() else {}
    result = read_json(folder / RESULT, _SHAPES.get(stage, ReportedTraining)) if (folder / RESULT).exists() else None
    if stage == "evaluate" and result is not None:
        check_evaluation(result, folder / RESULT)
    return Run(folder, stage, settings, environment, read_metrics(folder), result)
