"""What stages left behind, read back for the report: settings, environment, metrics and results."""

from dataclasses import dataclass
from pathlib import Path

from dapg.core.errors import UsageError
from dapg.core.files import read_json
from dapg.core.metrics_log import read_metrics
from dapg.core.run_folder import CONFIG, ENVIRONMENT, RESULT
from dapg.core.settings import read_yaml
from dapg.core.types import JsonObject


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
            model = str(self.settings["model"])
            bare = model in ("random", "imagenet")
            name = f"{model} {self.settings['backbone']['name']}" if bare else Path(model).name
            return f"{name} ({self.folder.name})"
        return f"{self.settings.get('name', self.stage)} ({self.folder.name})"


def collect(folders: list[Path]) -> list[Run]:
    """All runs in and below the given folders, in the order of their paths.

    Raises:
        UsageError: a folder does not exist, or none of them holds a run.
    """
    found: dict[Path, Run] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder")
        for config in sorted(folder.rglob(CONFIG)):
            found.setdefault(config.parent.resolve(), _read(config.parent))
    if not found:
        raise UsageError(f"no run (a folder with {CONFIG}) below {', '.join(map(str, folders))}")
    return list(found.values())


def _read(folder: Path) -> Run:
    settings = read_yaml(folder / CONFIG)
    stage = str(settings.pop("stage", "unknown"))
    environment = read_json(folder / ENVIRONMENT) if (folder / ENVIRONMENT).exists() else {}
    result = read_json(folder / RESULT) if (folder / RESULT).exists() else None
    return Run(folder, stage, settings, environment, read_metrics(folder), result)
