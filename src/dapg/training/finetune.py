"""Fine-tuning: labelled persons of two modalities in, a network that finds one in the other out."""

from collections.abc import Sequence
from dataclasses import replace

from tqdm import tqdm

from dapg.core import distributed
from dapg.core.errors import UsageError
from dapg.core.types import UNKNOWN, JsonObject, Modality, Record
from dapg.core.words import counted
from dapg.data.identity_sampler import CrossModalSampler
from dapg.data.source import open_dataset, select_records
from dapg.methods.base import DataFacts
from dapg.training.loop import MakeValidate
from dapg.training.run import Work, run_training
from dapg.training.training_settings import FinetuneSettings


def finetune(settings: FinetuneSettings, make_validate: MakeValidate | None = None) -> JsonObject:
    """Run (or go on with, or reuse) one fine-tuning; returns the content of result.json.

    The folder holds what ``pretrain`` leaves. Its ``method.safetensors`` are the weights that ``selection`` names.

    Raises:
        UsageError: wrong settings, no validation persons, or the folder holds another run.
        DataError, WeightsError, TrainingError: see there.
    """

    def prepare() -> Work:
        dataset = open_dataset(settings.data)
        split = settings.data.split or dataset.labelled_split()
        if settings.selection == "validation":
            split = dataset.fitting_split(split)
        records = select_records(dataset, replace(settings.data, split=split), settings.seed)
        both, single = _by_modalities(records)
        if not both:
            raise UsageError(
                f"{dataset.title} has no person with images in both kinds of light; of a folder, labels.csv says who "
                "and what is on each image (docs/reference/datasets.md)"
            )
        if single:
            tqdm.write(
                f"warning: {len(single)} of {len(single) + len(both)} persons are not used: they have images in one "
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
        return Work(dataset, records, DataFacts(len(records), both), sampler, train_config, validate, notes)

    return run_training("finetune", settings, prepare, keep_best=settings.selection != "last")


def _by_modalities(records: Sequence[Record]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Labelled persons with images in both modalities, and those with one only; both ascending."""
    seen = {
        modality: {record.person for record in records if record.modality == modality} - {UNKNOWN}
        for modality in Modality
    }
    both = seen[Modality.VISIBLE] & seen[Modality.INFRARED]
    single = (seen[Modality.VISIBLE] | seen[Modality.INFRARED]) - both
    return tuple(sorted(both)), tuple(sorted(single))


def _persons_per_batch(settings: FinetuneSettings) -> int:
    """Persons in a batch; a process's part of it must hold two whole persons, or triplets would lack images."""
    size, parts = settings.train.batch_size, distributed.world_size() * settings.train.accumulation
    if settings.pictures < 1 or size < 1 or size % (2 * settings.pictures * parts):
        raise UsageError(
            f"--train.batch_size {size} does not divide into {counted(parts, 'part')} of whole persons with "
            f"{settings.pictures} visible and as many infrared images each (parts: processes x --train.accumulation)"
        )
    persons = size // (2 * settings.pictures)
    if persons < 2 * parts:
        raise UsageError(
            f"--train.batch_size {size} puts one person in each part of a batch, so that no triplet has a negative; "
            f"give {4 * settings.pictures * parts} or more (two persons x {settings.pictures} visible and as many "
            f"infrared images x {counted(parts, 'part')})"
        )
    return persons
