"""Alignment (stage 2): a pre-trained network and other images of each person in, a network out."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from safetensors.torch import load_file

from dapg.augment.skeleton import canonical_poses
from dapg.core import distributed
from dapg.core.errors import UsageError, WeightsError
from dapg.core.schema import wall
from dapg.core.types import JsonObject, Modality, Record
from dapg.data.base import Dataset
from dapg.data.companions import Key, WithCompanions, generated_companions, shuffled_companions, true_companions
from dapg.data.manifest import read_manifest
from dapg.data.samplers import InfiniteSampler
from dapg.data.source import open_dataset, select_records
from dapg.methods.alignment._on_the_fly import OnTheFly
from dapg.methods.alignment.base import AlignmentMethod
from dapg.methods.base import DataFacts, Method
from dapg.methods.runs import METHOD_WEIGHTS
from dapg.models.weights.pose_weights import load_generator
from dapg.training.loop import Validate
from dapg.training.positives import SHEET, companions_of, write_sheet
from dapg.training.run import Work, run_training
from dapg.training.training_settings import AlignSettings


def align(settings: AlignSettings, validate: Validate | None = None) -> JsonObject:
    """Run (or go on with, or reuse) one alignment; returns the content of result.json.

    The folder holds what ``pretrain`` leaves, and ``positives.jpg``: some images and what they are aligned with. The
    result says what the positives were, how many images had any, and what the generator learnt from.

    Raises:
        UsageError: wrong settings, or the folder holds another run.
        DataError, WeightsError, TrainingError: see there.
    """

    def prepare() -> Work:
        if settings.streamed:
            raise UsageError("--streamed is for pre-training: an alignment takes its images in random order")
        dataset = open_dataset(settings.data)
        records = select_records(dataset, settings.data, settings.seed)
        if settings.visible_only:
            records = [record for record in records if record.modality == Modality.VISIBLE]
        if not records:
            raise UsageError("there is no visible image to align; give --visible_only false or another --data.split")
        dataset, notes = _with_companions(dataset, records, settings)
        on_the_fly = _on_the_fly(settings, notes) if settings.generator else None
        if distributed.rank() == 0:
            _write_sheet(settings, dataset, records, on_the_fly)
        facts = DataFacts(len(records), tuple(sorted({record.person for record in records})))
        sampler = InfiniteSampler(len(records), settings.train.batch_size, settings.seed)
        start = _start_of(settings, on_the_fly)
        return Work(dataset, records, facts, sampler, settings.train, validate, notes, start)

    return run_training("align", settings, prepare)


def _with_companions(
    dataset: Dataset, records: Sequence[Record], settings: AlignSettings
) -> tuple[Dataset, JsonObject]:
    """The data set that hands out positives, and what the result says about them."""
    notes: JsonObject = {"positives": settings.positives}
    if settings.generator and (settings.positives != "generated" or settings.generated):
        raise UsageError("--generator makes images during training: it goes with --positives generated and no folder")
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
    """Some images and their positives; none where each is its own."""
    if isinstance(dataset, WithCompanions):
        positives = companions_of(dataset)
    elif on_the_fly is not None:
        positives = lambda _, image: on_the_fly.every_pose(image[None])[0]  # noqa: E731
    else:
        return
    write_sheet(Path(settings.out) / SHEET, dataset, records, positives)


def _start_of(settings: AlignSettings, on_the_fly: OnTheFly | None) -> Callable[[Method], None]:
    """Gives the method the earlier run's projection head, and a generator where images are made during training."""
    weights = Path(settings.backbone.init) / METHOD_WEIGHTS

    def start(method: Method) -> None:
        assert isinstance(method, AlignmentMethod)  # by the contract of its folder
        if settings.keep_head and weights.is_file():
            with wall(weights):
                stored = load_file(weights)
            head = {name.removeprefix("head."): tensor for name, tensor in stored.items() if name.startswith("head.")}
            try:
                method.take_head(head)
            except RuntimeError as error:
                raise WeightsError(
                    f"the projection head of {settings.backbone.init} does not fit ({error}); give its settings as "
                    "--method.head..., or --keep_head false"
                ) from error
        if on_the_fly is not None:
            method.generate_with(on_the_fly)

    return start


def _on_the_fly(settings: AlignSettings, notes: JsonObject) -> OnTheFly:
    generator, facts = load_generator(settings.generator)
    poses = canonical_poses()
    unknown = [pose for pose in settings.poses if pose not in poses]
    if unknown:
        raise UsageError(f"no canonical pose is called {', '.join(unknown)}; known: {', '.join(poses)}")
    notes["generator"] = {"generator": facts.sha256, "pairs": facts.supervision, "on_the_fly": True, "carried": False}
    notes["poses"] = list(settings.poses or poses)
    return OnTheFly(generator, (facts.height, facts.width), [poses[pose] for pose in notes["poses"]])
