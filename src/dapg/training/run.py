"""What every training shares: settings in, a folder with weights, metrics and a result out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch.distributed as dist
from safetensors.torch import save_file

from dapg.core import distributed
from dapg.core.errors import UsageError
from dapg.core.files import atomic_path, sha256
from dapg.core.results import Training
from dapg.core.rng import generator_from
from dapg.core.run_folder import RunFolder, refuse_other_weights
from dapg.core.scales import Stage
from dapg.core.train_config import DataConfig, TrainConfig
from dapg.core.types import JsonObject, Record
from dapg.data.base import Dataset
from dapg.data.samplers import Sampler
from dapg.data.source import list_hash, open_dataset
from dapg.methods.base import DataFacts, Method
from dapg.methods.runs import BACKBONE_WEIGHTS, METHOD_WEIGHTS, backbone_settings, method_class
from dapg.models.weights.backbone_weights import init_backbone, save_backbone, weights_hash
from dapg.training import checkpoint
from dapg.training.loop import Job, Progress, Validate, train
from dapg.training.training_settings import TrainingSettings


@dataclass(frozen=True)
class Work:
    """What a stage trains on."""

    dataset: Dataset
    records: Sequence[Record]
    facts: DataFacts
    sampler: Sampler
    train: TrainConfig
    validate: Validate | None
    notes: JsonObject = field(default_factory=dict)
    """Further lines of the result."""
    start: Callable[[Method], None] | None = None
    """What else the method begins with, before a checkpoint is looked for."""


def run_training(
    kind: Stage,
    settings: TrainingSettings,
    prepare: Callable[[], Work],
    keep_best: bool = False,
) -> JsonObject:
    """What every training stage does: open the folder, build, train, write weights and result."""
    folder = Path(settings.out)
    stage = RunFolder(folder, settings, kind, distributed.rank(), ("train.steps", "train.epochs"), Training)
    finished = stage.open()
    if finished is not None:
        stage.close()
        init, began = settings.backbone.init, finished["init"]
        then = None if isinstance(began, str) else began["sha256"]  # "random"
        refuse_other_weights(folder, "a training from", init, then, weights_hash(init))
        _refuse_other_version(folder, settings.data, finished["data"].get("version"))
        return {**finished, "reused": True}
    with stage.working():
        work = prepare()
        backbone, weights = init_backbone(
            settings.backbone.name, backbone_settings(settings.backbone), settings.backbone.init, settings.seed
        )
        plugin = method_class(kind, settings.name)
        method = plugin(settings.method, backbone, work.facts, generator_from("heads", settings.seed))
        if work.start is not None:
            work.start(method)
        job = Job(
            work.dataset,
            work.records,
            work.sampler,
            work.train,
            settings.loader,
            folder,
            settings.seed,
            settings.device,
            work.validate,
        )
        progress = train(method, job)
        if keep_best:
            checkpoint.load_best(folder, method)
        bad_images = _all_bad_images(progress)
        result: JsonObject = {
            "name": settings.name,
            "steps": progress.step,
            "pictures_seen": progress.step * settings.train.batch_size,
            "seconds": progress.seconds,
            "pictures_per_second": progress.step * settings.train.batch_size / max(progress.seconds, 1e-9),
            "data_wait": progress.waited / max(progress.seconds, 1e-9),
            "processes": distributed.world_size(),
            "precision": progress.precision,
            "logs": progress.logs,
            "scores": progress.scores,
            "best": {"score": progress.best_score, "step": progress.best_step},
            "bad_images": bad_images,
            "data": {
                "pictures": len(work.records),
                "hash": list_hash(work.records),
                "version": work.dataset.version,
            },
            "facts": {"pictures": work.facts.pictures, "persons": list(work.facts.persons)},
            "init": "random" if weights is None else weights.record(),
            "mean": list(backbone.mean),
            "std": list(backbone.std),
            "extended_from": stage.extensions(),
            **work.notes,
        }
        if distributed.rank() == 0:
            result["weights"] = _save_weights(folder, method, kind, settings.name)
        distributed.barrier()
        return stage.finish(result)


def _refuse_other_version(folder: Path, data: DataConfig, then: str | None) -> None:
    """Refuse a finished training on another version of the data set, whose name and place are the same.

    Raises:
        UsageError: the two differ.
    """
    now = None if then is None else open_dataset(data).version
    if now != then:
        raise UsageError(f"{folder} was trained on version {then} of {data.name}; it is version {now} now: other --out")


def _save_weights(folder: Path, method: Method, kind: str, name: str) -> dict[str, str]:
    """Write what the next stage takes, and the whole method for evaluation; returns their hashes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in method.state_dict().items()}
    with atomic_path(folder / METHOD_WEIGHTS) as temporary:
        save_file(tensors, temporary)
    save_backbone(method.backbone, folder / BACKBONE_WEIGHTS, {"stage": kind, "method": name})
    return {name: sha256(folder / name) for name in (METHOD_WEIGHTS, BACKBONE_WEIGHTS)}


def _all_bad_images(progress: Progress) -> dict[str, list[str]]:
    """Unreadable images that any process met."""
    if not distributed.active():
        return progress.bad_images
    parts: list[dict[str, list[str]] | None] = [None] * distributed.world_size()
    dist.all_gather_object(parts, progress.bad_images)
    return {path: note for part in parts if part for path, note in part.items()}
