"""Pre-training: any images in, a network out."""

from dapg.core.errors import UsageError
from dapg.core.types import JsonObject
from dapg.data.base import Dataset
from dapg.data.samplers import InfiniteSampler, Sampler
from dapg.data.shards.shard_sampler import ShardSampler
from dapg.data.source import open_dataset, select_records
from dapg.methods.base import DataFacts
from dapg.training.loop import Validate
from dapg.training.run import Work, run_training
from dapg.training.training_settings import PretrainSettings


def pretrain(settings: PretrainSettings, validate: Validate | None = None) -> JsonObject:
    """Run (or go on with, or reuse) one pre-training; returns the content of result.json.

    The folder then holds config.yaml, environment.json, metrics.jsonl and .csv, checkpoints, ``backbone.safetensors``
    (what the next stage loads), ``method.safetensors`` (everything) and result.json.

    Raises:
        UsageError: wrong settings, or the folder holds another run.
        DataError, WeightsError, TrainingError: see there.
    """

    def prepare() -> Work:
        dataset = open_dataset(settings.data)
        records = select_records(dataset, settings.data, settings.seed)
        records = settings.method.labelled(records)
        facts = DataFacts(len(records), tuple(sorted({record.person for record in records})), records)
        sampler = _image_sampler(settings, dataset, len(records))
        return Work(dataset, records, facts, sampler, settings.train, validate)

    return run_training("pretrain", settings, prepare)


def _image_sampler(settings: PretrainSettings, dataset: Dataset, images: int) -> Sampler:
    """Images in random order, over all of them or within a few tars."""
    if not settings.streamed:
        return InfiniteSampler(images, settings.train.batch_size, settings.seed)
    numbers = dataset.shard_numbers
    if numbers is None or len(numbers) != images:
        raise UsageError("--streamed reads the whole first split of a packed set: --data shards=FOLDER, no subset")
    return ShardSampler(numbers, settings.train.batch_size, settings.seed)
