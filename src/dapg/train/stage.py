"""Pre-training as a stage: settings in, a folder with weights, metrics and a result out."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed as dist
from safetensors.torch import save_file

from dapg.core import distributed
from dapg.core.files import atomic_path, sha256
from dapg.core.rng import generator_from
from dapg.core.settings import run_only
from dapg.core.stage import Stage
from dapg.data.loading import LoaderConfig
from dapg.data.samplers import InfiniteSampler
from dapg.data.source import DataConfig, list_hash, open_dataset, select_records
from dapg.methods.base import DataFacts, Method
from dapg.methods.runs import BACKBONE_WEIGHTS, METHOD_WEIGHTS, BackboneConfig, backbone_settings, method_class
from dapg.models.weights import init_backbone, save_backbone
from dapg.train.loop import Progress, TrainConfig, Validate, train


@dataclass(frozen=True)
class PretrainSettings:
    """Everything a pre-training run depends on; ``recipes/pretraining.py`` has complete ones."""

    name: str
    """Method: a file of ``dapg/methods/pretraining``."""
    method: Any
    """Its own settings (the ``Config`` nested in it)."""
    data: DataConfig = field(default_factory=DataConfig)
    """Pictures."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """Network and first weights."""
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    """Decoding."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Length, optimiser, precision."""
    validation: str = ""
    """Test mode of the data set (e.g. visible) scored every ``train.validate_every`` steps and at the end; "" none."""
    seed: int = 0
    """Of weights, order of pictures and every draw."""
    out: str = run_only("")
    """Folder of the run."""
    device: str = run_only("auto")
    """auto, cpu, cuda or cuda:N."""


def pretrain(
    settings: PretrainSettings, validate: Validate | None = None, show_progress: bool = True
) -> dict[str, Any]:
    """Run (or go on with, or reuse) one pre-training; returns the content of result.json.

    The folder then holds config.yaml, environment.json, metrics.jsonl and .csv, checkpoints, ``backbone.safetensors``
    (what the next stage loads), ``method.safetensors`` (everything) and result.json.

    Raises:
        UsageError: wrong settings, or the folder holds another run.
        DataError, WeightsError, TrainingError: see there.
    """
    folder = Path(settings.out)
    stage = Stage(folder, settings, "pretrain", distributed.rank(), extendable=("train.steps", "train.epochs"))
    finished = stage.open()
    if finished is not None:
        stage.close()
        return {**finished, "reused": True}
    try:
        dataset = open_dataset(settings.data)
        records = select_records(dataset, settings.data, settings.seed)
        facts = DataFacts(len(records), tuple(sorted({record.person for record in records})))
        backbone, weights = init_backbone(
            settings.backbone.name, backbone_settings(settings.backbone), settings.backbone.init, settings.seed
        )
        kind = method_class("pretrain", settings.name)
        method = kind(settings.method, backbone, facts, generator_from("heads", settings.seed))
        sampler = InfiniteSampler(len(records), settings.train.batch_size, settings.seed)
        progress = train(
            method,
            dataset,
            records,
            sampler,
            settings.train,
            settings.loader,
            folder,
            settings.seed,
            settings.device,
            validate,
            show_progress,
        )
        bad_images = _all_bad_images(progress)
        result: dict[str, Any] = {
            "name": settings.name,
            "steps": progress.step,
            "pictures_seen": progress.step * settings.train.batch_size,
            "seconds": progress.seconds,
            "pictures_per_second": progress.step * settings.train.batch_size / max(progress.seconds, 1e-9),
            "data_wait": progress.waited / max(progress.seconds, 1e-9),
            "processes": distributed.world_size(),
            "logs": progress.logs,
            "scores": progress.scores,
            "best": {"score": progress.best_score, "step": progress.best_step},
            "bad_images": bad_images,
            "data": {"pictures": len(records), "hash": list_hash(records)},
            "facts": {"pictures": facts.pictures, "persons": list(facts.persons)},
            "init": "random" if weights is None else weights.record(),
            "mean": list(backbone.mean),
            "std": list(backbone.std),
            "extended_from": stage.extensions(),
        }
        if distributed.rank() == 0:
            result["weights"] = _save_weights(folder, method, settings)
        distributed.barrier()
        return stage.finish(result)
    finally:
        stage.close()


def _save_weights(folder: Path, method: Method, settings: PretrainSettings) -> dict[str, str]:
    """Write what the next stage takes, and the whole method for evaluation; returns their hashes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in method.state_dict().items()}
    with atomic_path(folder / METHOD_WEIGHTS) as temporary:
        save_file(tensors, temporary)
    save_backbone(method.backbone, folder / BACKBONE_WEIGHTS, {"stage": "pretrain", "method": settings.name})
    return {name: sha256(folder / name) for name in (METHOD_WEIGHTS, BACKBONE_WEIGHTS)}


def _all_bad_images(progress: Progress) -> dict[str, list[str]]:
    """Unreadable pictures that any process met."""
    if not distributed.active():
        return progress.bad_images
    parts: list[dict[str, list[str]] | None] = [None] * distributed.world_size()
    dist.all_gather_object(parts, progress.bad_images)
    return {path: note for part in parts if part for path, note in part.items()}
