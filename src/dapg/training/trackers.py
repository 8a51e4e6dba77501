"""TensorBoard, Weights & Biases, MLflow and Trackio, through Accelerate."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from dapg.core.errors import UsageError
from dapg.core.metrics_log import Tracker


def require_tracker(name: str) -> None:
    """Raise UsageError if the package of a tracker is missing; ``none`` needs none."""
    if name not in ("none", *map(str, get_available_trackers())):
        raise UsageError(f"--train.tracker {name} is not installed: pip install {name}")


def start_trackers(
    accelerator: Accelerator, run: Path, last_step: int, settings: Mapping[str, object]
) -> Sequence[Tracker]:
    """Start what the accelerator was told to ``log_with``, under the name of the run's folder; called by every process.

    TensorBoard writes to ``tensorboard`` in the folder and drops what an earlier try logged after ``last_step``. The
    others begin a new run with each try, in the project ``dapg``; where their data go is set by their own environment
    variables (``WANDB_MODE``, ``MLFLOW_TRACKING_URI``, ``TRACKIO_DIR``).

    Raises:
        UsageError: the tracker does not start.
    """
    if not accelerator.log_with:
        return []
    (name,) = map(str, accelerator.log_with)
    options = {
        "tensorboard": {"purge_step": last_step + 1},
        "wandb": {"name": run.name, "dir": str(run)},
        "mlflow": {"run_name": run.name},
        "trackio": {"name": run.name},
    }
    project = "tensorboard" if name == "tensorboard" else "dapg"
    plain = {key: value if isinstance(value, bool | int | float) else str(value) for key, value in settings.items()}
    try:
        accelerator.init_trackers(project, plain, options)
    except Exception as error:  # each tracker has its own errors: no login, no server, no disk space
        raise UsageError(f"--train.tracker {name} does not start: {error}") from error
    trackers: Sequence[Tracker] = accelerator.trackers
    return trackers
