"""Training as a stage: settings in, a folder with weights, metrics and a result out. For all three stages."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch.distributed as dist
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from dapg.augment.skeleton import canonical_poses
from dapg.core import distributed
from dapg.core.errors import UsageError, WeightsError
from dapg.core.files import atomic_path, sha256
from dapg.core.rng import generator_from
from dapg.core.settings import run_only
from dapg.core.stage import Stage, refuse_other_weights
from dapg.core.types import UNKNOWN, Modality, Record
from dapg.data.base import Dataset
from dapg.data.companions import Key, WithCompanions, generated_companions, shuffled_companions, true_companions
from dapg.data.identity_sampler import CrossModalSampler
from dapg.data.loading import LoaderConfig
from dapg.data.manifest import read_manifest
from dapg.data.samplers import InfiniteSampler, Sampler
from dapg.data.shards import Shards, ShardSampler
from dapg.data.source import DataConfig, list_hash, open_dataset, select_records
from dapg.methods.alignment._on_the_fly import OnTheFly
from dapg.methods.base import DataFacts, Method
from dapg.methods.runs import BACKBONE_WEIGHTS, METHOD_WEIGHTS, BackboneConfig, backbone_settings, method_class
from dapg.models.pose_weights import load_generator
from dapg.models.weights import init_backbone, save_backbone, weights_hash
from dapg.train import checkpoint
from dapg.train.loop import Progress, TrainConfig, Validate, train
from dapg.train.positives import SHEET, companions_of, write_sheet


@dataclass(frozen=True)
class TrainingSettings:
    """What every training depends on."""

    name: str
    """Method: a file of ``dapg/methods``, below the kind of training."""
    method: Any
    """Its own settings (the ``Config`` nested in it)."""
    data: DataConfig = field(default_factory=DataConfig)
    """Pictures; for a fine-tuning, of persons in both modalities."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """Network and first weights."""
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    """Decoding."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Length, optimiser, precision."""
    seed: int = 0
    """Of new weights, the order of pictures and every draw."""
    out: str = run_only("")
    """Folder of the run."""
    device: str = run_only("auto")
    """auto, cpu, cuda or cuda:N."""


@dataclass(frozen=True)
class PretrainSettings(TrainingSettings):
    """Everything a pre-training run depends on; ``recipes/pretraining.py`` has complete ones."""

    streamed: bool = False
    """Take packed pictures tar by tar, four tars mixed at a time, so that a disk or network reads in a row."""
    validation: str = ""
    """Test mode of the data set (e.g. visible) scored every ``train.validate_every`` steps and at the end; "" none."""


@dataclass(frozen=True)
class FinetuneSettings(TrainingSettings):
    """Everything a fine-tuning run depends on; ``recipes/finetuning.py`` has complete ones.

    An epoch (``train.epochs``) is AGW's: as many steps as show the larger modality once, plus one.
    """

    pictures: int = 4
    """Pictures of each person and modality in a batch; ``train.batch_size`` / 2 / this are its persons (AGW: 8 x 4)."""
    selection: Literal["last", "validation", "test"] = "last"
    """Which weights are kept: last, after training on all training persons; validation, those that score best on
    validation persons, who are then not trained on; test, those that score best on the test, as the published code
    does: a score of weights chosen so is no honest test score."""
    validate_epochs: float = 0.0
    """Epochs between scores when ``train.validate_every`` is 0; 0 scores at the end only."""
    corrupted_scores: bool = False
    """Score corrupted pictures beside the clean ones: one test set each of all, seen and unseen corruptions."""


Positives = Literal["generated", "original", "shuffled", "true"]


@dataclass(frozen=True)
class AlignSettings(PretrainSettings):
    """Everything an alignment depends on; ``recipes/alignment.py`` has complete ones."""

    positives: Positives = "generated"
    """What an anchor is aligned with: its person generated in other poses; itself; the generated pictures of somebody
    else; true other pictures of its person, by labels. All but the first are for comparison."""
    generated: str = ""
    """Folder of ``dapg pose generate``, for ``generated`` and ``shuffled``."""
    generator: str = ""
    """In place of a folder, for ``generated``: make the pictures during training by this generator (embedded, a file or
    the folder of a finished ``dapg pose train``). Nobody then looks whether they hit the pose, and no body parts are
    carried, as the pictures' own key points are not at hand: everything is painted."""
    poses: tuple[str, ...] = ()
    """Which of the generated poses; none: all. ``true`` takes as many pictures (four where none are named)."""
    least_score: float = 0.0
    """Generated pictures whose key points hit the target less than this (PCK at 0.2) are dropped."""
    keep_head: bool = True
    """Go on with the projection head of the run that ``backbone.init`` names."""
    visible_only: bool = True
    """Leave infrared pictures out: the generator has learnt visible ones."""


MakeValidate = Callable[[Dataset, str, Sequence[int]], Validate]
"""Scores of a data set's mode for the loop, on trials without the given training persons."""


@dataclass(frozen=True)
class _Work:
    """What a stage trains on."""

    dataset: Dataset
    records: Sequence[Record]
    facts: DataFacts
    sampler: Sampler
    train: TrainConfig
    validate: Validate | None
    notes: dict[str, Any] = field(default_factory=dict)
    """Further lines of the result."""
    start: Callable[[Method], None] | None = None
    """What else the method begins with, before a checkpoint is looked for."""


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

    def prepare() -> _Work:
        dataset = open_dataset(settings.data)
        records = select_records(dataset, settings.data, settings.seed)
        records = method_class("pretrain", settings.name).labelled(settings.method, records)
        facts = DataFacts(len(records), tuple(sorted({record.person for record in records})), records)
        sampler = _picture_sampler(settings, dataset, len(records))
        return _Work(dataset, records, facts, sampler, settings.train, validate)

    return _run("pretrain", settings, prepare, show_progress)


def _picture_sampler(settings: PretrainSettings, dataset: Dataset, pictures: int) -> Sampler:
    """Pictures in random order, over all of them or within a few tars."""
    if not settings.streamed:
        return InfiniteSampler(pictures, settings.train.batch_size, settings.seed)
    if not isinstance(dataset, Shards) or len(dataset.shard_numbers) != pictures:
        raise UsageError("--streamed reads the whole first split of a packed set: --data shards=FOLDER, no subset")
    return ShardSampler(dataset.shard_numbers, settings.train.batch_size, settings.seed)


def finetune(
    settings: FinetuneSettings, make_validate: MakeValidate | None = None, show_progress: bool = True
) -> dict[str, Any]:
    """Run (or go on with, or reuse) one fine-tuning; returns the content of result.json.

    The folder holds what ``pretrain`` leaves. Its ``method.safetensors`` are the weights that ``selection`` names.

    Raises:
        UsageError: wrong settings, no validation persons, or the folder holds another run.
        DataError, WeightsError, TrainingError: see there.
    """

    def prepare() -> _Work:
        dataset = open_dataset(settings.data)
        split = settings.data.split or dataset.labelled_split()
        if settings.selection == "validation":
            split = dataset.fitting_split(split)
        records = select_records(dataset, replace(settings.data, split=split), settings.seed)
        both, single = _by_modalities(records)
        if single:
            tqdm.write(
                f"warning: {len(single)} of {len(single) + len(both)} persons are not used: they have pictures in one "
                f"modality only (person {', '.join(map(str, single[:10]))}{', ...' if len(single) > 10 else ''})"
            )
        sampler = CrossModalSampler(records, _persons_per_batch(settings), settings.pictures, settings.seed)
        train_config = settings.train
        if settings.validate_epochs > 0 and not train_config.validate_every:
            every = max(1, round(settings.validate_epochs * sampler.steps_per_epoch))
            train_config = replace(train_config, validate_every=every)
        validate = None
        if settings.selection != "last" or train_config.validate_every or train_config.early_stop:
            if make_validate is None:
                raise UsageError("scores during training were asked for, but nothing that scores was given")
            mode = "validation" if settings.selection == "validation" else next(iter(dataset.modes), "")
            if not mode:
                raise UsageError(f"{dataset.title} has no persons to score on; use --selection last")
            validate = make_validate(dataset, mode, both)
        notes = {"split": split, "persons_in_one_modality": single, "steps_per_epoch": sampler.steps_per_epoch}
        return _Work(dataset, records, DataFacts(len(records), both), sampler, train_config, validate, notes)

    return _run("finetune", settings, prepare, show_progress, keep_best=settings.selection != "last")


def align(settings: AlignSettings, validate: Validate | None = None, show_progress: bool = True) -> dict[str, Any]:
    """Run (or go on with, or reuse) one alignment; returns the content of result.json.

    The folder holds what ``pretrain`` leaves, and ``positives.jpg``: some pictures and what they are aligned with. The
    result says what the positives were, how many pictures had any, and what the generator learnt from.

    Raises:
        UsageError: wrong settings, or the folder holds another run.
        DataError, WeightsError, TrainingError: see there.
    """

    def prepare() -> _Work:
        dataset = open_dataset(settings.data)
        records = select_records(dataset, settings.data, settings.seed)
        if settings.visible_only:
            records = [record for record in records if record.modality == Modality.VISIBLE]
        if not records:
            raise UsageError("there is no visible picture to align; give --visible_only false or another --data.split")
        dataset, notes = _with_companions(dataset, records, settings)
        on_the_fly = _on_the_fly(settings, notes) if settings.generator else None
        if distributed.rank() == 0:
            _write_sheet(settings, dataset, records, on_the_fly)
        facts = DataFacts(len(records), tuple(sorted({record.person for record in records})))
        sampler = InfiniteSampler(len(records), settings.train.batch_size, settings.seed)
        start = _start_of(settings, on_the_fly)
        return _Work(dataset, records, facts, sampler, settings.train, validate, notes, start)

    return _run("align", settings, prepare, show_progress)


def _with_companions(
    dataset: Dataset, records: Sequence[Record], settings: AlignSettings
) -> tuple[Dataset, dict[str, Any]]:
    """The data set that hands out positives, and what the result says about them."""
    notes: dict[str, Any] = {"positives": settings.positives}
    if settings.generator and (settings.positives != "generated" or settings.generated):
        raise UsageError("--generator makes pictures during training: it goes with --positives generated and no folder")
    if settings.positives == "original" or settings.generator:
        return dataset, notes
    companions: Mapping[Key, Sequence[Path | Record]]
    if settings.positives == "true":
        companions = true_companions(records, len(settings.poses) or 4, settings.seed)
    else:
        if not settings.generated:
            raise UsageError(f"--positives {settings.positives} needs --generated FOLDER (dapg pose generate)")
        manifest = read_manifest(settings.generated)
        notes["generator"] = manifest.about
        notes["poses"] = list(settings.poses or manifest.poses)
        own = generated_companions(manifest, records, notes["poses"], settings.least_score)
        companions = own if settings.positives == "generated" else shuffled_companions(own, records, settings.seed)
    counts = [len(companions.get((record.path, record.box), ())) for record in records]
    notes["companions"] = {"pictures": sum(counts), "sources_without": counts.count(0)}
    return WithCompanions(dataset, companions), notes


def _write_sheet(
    settings: AlignSettings, dataset: Dataset, records: Sequence[Record], on_the_fly: OnTheFly | None
) -> None:
    """Some pictures and their positives; none where each is its own."""
    if isinstance(dataset, WithCompanions):
        positives = companions_of(dataset)
    elif on_the_fly is not None:
        positives = lambda _, picture: on_the_fly.every_pose(picture[None])[0]  # noqa: E731
    else:
        return
    write_sheet(Path(settings.out) / SHEET, dataset, records, positives)


def _start_of(settings: AlignSettings, on_the_fly: OnTheFly | None) -> Callable[[Method], None]:
    """Gives the method the earlier run's projection head, and a generator where pictures are made during training."""
    weights = Path(settings.backbone.init) / METHOD_WEIGHTS

    def start(method: Method) -> None:
        take_head = getattr(method, "take_head", None)
        if take_head is not None and settings.keep_head and weights.is_file():
            stored = load_file(weights)
            head = {name.removeprefix("head."): tensor for name, tensor in stored.items() if name.startswith("head.")}
            try:
                take_head(head)
            except RuntimeError as error:
                raise WeightsError(
                    f"the projection head of {settings.backbone.init} does not fit ({error}); give its settings as "
                    "--method.head..., or --keep_head false"
                ) from error
        if on_the_fly is not None:
            method.on_the_fly = on_the_fly  # type: ignore[assignment]  # no module, so not part of the state

    return start


def _on_the_fly(settings: AlignSettings, notes: dict[str, Any]) -> OnTheFly:
    generator, facts = load_generator(settings.generator)
    poses = canonical_poses()
    unknown = [pose for pose in settings.poses if pose not in poses]
    if unknown:
        raise UsageError(f"no canonical pose is called {', '.join(unknown)}; known: {', '.join(poses)}")
    notes["generator"] = {"generator": facts.sha256, "pairs": facts.supervision, "on_the_fly": True, "carried": False}
    notes["poses"] = list(settings.poses or poses)
    return OnTheFly(generator, (facts.height, facts.width), [poses[pose] for pose in notes["poses"]])


def _by_modalities(records: Sequence[Record]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Labelled persons with pictures in both modalities, and those with one only; both ascending."""
    seen = {
        modality: {record.person for record in records if record.modality == modality} - {UNKNOWN}
        for modality in Modality
    }
    both = seen[Modality.VISIBLE] & seen[Modality.INFRARED]
    single = (seen[Modality.VISIBLE] | seen[Modality.INFRARED]) - both
    return tuple(sorted(both)), tuple(sorted(single))


def _persons_per_batch(settings: FinetuneSettings) -> int:
    """Persons in a batch; a process's part of it must hold whole persons, or triplets would lack positives."""
    size, parts = settings.train.batch_size, distributed.world_size() * settings.train.accumulation
    if settings.pictures < 1 or size < 1 or size % (2 * settings.pictures * parts):
        raise UsageError(
            f"--train.batch_size {size} does not part into {parts} process(es) or part(s) of whole persons with "
            f"{settings.pictures} visible and {settings.pictures} infrared pictures each"
        )
    return size // (2 * settings.pictures)


def _run(
    kind: str,
    settings: TrainingSettings,
    prepare: Callable[[], _Work],
    show_progress: bool,
    keep_best: bool = False,
) -> dict[str, Any]:
    """What every training stage does: open the folder, build, train, write weights and result."""
    folder = Path(settings.out)
    stage = Stage(folder, settings, kind, distributed.rank(), extendable=("train.steps", "train.epochs"))
    finished = stage.open()
    if finished is not None:
        stage.close()
        init, began = settings.backbone.init, finished["init"]
        then = None if isinstance(began, str) else began["sha256"]  # "random"
        refuse_other_weights(folder, "a training from", init, then, weights_hash(init))
        return {**finished, "reused": True}
    try:
        work = prepare()
        backbone, weights = init_backbone(
            settings.backbone.name, backbone_settings(settings.backbone), settings.backbone.init, settings.seed
        )
        plugin = method_class(kind, settings.name)
        method = plugin(settings.method, backbone, work.facts, generator_from("heads", settings.seed))
        if work.start is not None:
            work.start(method)
        progress = train(
            method,
            work.dataset,
            work.records,
            work.sampler,
            work.train,
            settings.loader,
            folder,
            settings.seed,
            settings.device,
            work.validate,
            show_progress,
        )
        if keep_best:
            checkpoint.load_best(folder, method)
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
            "data": {"pictures": len(work.records), "hash": list_hash(work.records)},
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
    finally:
        stage.close()


def _save_weights(folder: Path, method: Method, kind: str, name: str) -> dict[str, str]:
    """Write what the next stage takes, and the whole method for evaluation; returns their hashes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in method.state_dict().items()}
    with atomic_path(folder / METHOD_WEIGHTS) as temporary:
        save_file(tensors, temporary)
    save_backbone(method.backbone, folder / BACKBONE_WEIGHTS, {"stage": kind, "method": name})
    return {name: sha256(folder / name) for name in (METHOD_WEIGHTS, BACKBONE_WEIGHTS)}


def _all_bad_images(progress: Progress) -> dict[str, list[str]]:
    """Unreadable pictures that any process met."""
    if not distributed.active():
        return progress.bad_images
    parts: list[dict[str, list[str]] | None] = [None] * distributed.world_size()
    dist.all_gather_object(parts, progress.bad_images)
    return {path: note for part in parts if part for path, note in part.items()}
