"""Features of a whole data set as a stage: in shards that workers claim, however many images there are.

The folder then holds ``features.npy`` (N, D), float32, which ``numpy.load(..., mmap_mode="r")`` opens without reading
it, ``images.csv``, whose line i belongs to row i, and result.json. An image that cannot be read has a row of NaN.
"""

import functools
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32

from dapg.core.device import resolve_device
from dapg.core.engines.base import EngineSettings
from dapg.core.errors import DataError
from dapg.core.files import atomic_path, csv_text, sha256, write_arrays
from dapg.core.launch import launch
from dapg.core.ranges import Count
from dapg.core.run_folder import RunFolder, refuse_other_input
from dapg.core.runtime import Runtime
from dapg.core.schema import read_arrays
from dapg.core.settings import run_only, unset
from dapg.core.shards import Job, RunShard, chunk, chunks, piece
from dapg.core.train_config import DataConfig
from dapg.core.types import JsonObject, Modality, Record
from dapg.data.base import Dataset
from dapg.data.compact import CompactRecords
from dapg.data.loading import OnBadImage
from dapg.data.source import list_hash, open_dataset, select_records
from dapg.features.build_encoder import build_encoder, weights_file
from dapg.features.encoders import Encoder
from dapg.features.extract import Unreadable, extract
from dapg.features.networks import NetworkSettings
from dapg.features.table import FeatureTable

FEATURES, IMAGES = "features.npy", "images.csv"
_SHARD = 1024
"""Images of a shard."""
_STAGE = "extract"
_HEAD = ("path", "person", "camera", "modality", "left", "top", "right", "bottom")


@dataclass(frozen=True)
class ExtractSettings(NetworkSettings):
    """Which features of which images."""

    data: DataConfig = field(default_factory=DataConfig)
    """Images; without a split those of the data set's first."""
    feature: str = ""
    """Which of the model's features; empty: the one that it is scored by."""
    on_bad_image: OnBadImage = unset("skip")
    """An image that cannot be read: a row of NaN, and list it in the result, or stop (fail)."""
    batch_size: Count = 64
    """Images encoded at once; it decides over last bits."""
    engine: EngineSettings = run_only(EngineSettings())
    """Who does the work."""
    device: str = run_only("auto")
    """auto, cpu, cuda or cuda:N."""
    out: str = run_only("outputs/features")
    """Folder of the features."""


def extract_features(settings: ExtractSettings) -> JsonObject:
    """Run, go on with, or reuse one extraction; returns result.json's content.

    Raises:
        UsageError: no such model or feature, or the folder holds other work.
        DataError: no images there, or none of them can be read.
        ShardsFailed: some shards failed; the others are done.
    """
    dataset = open_dataset(settings.data)
    records = CompactRecords(select_records(dataset, settings.data, 0))
    encoder = _encoder(settings)
    width = _width(encoder, settings.feature)  # what is missing is said before anything is written
    folder = Path(settings.out)
    stage = RunFolder(folder, settings, _STAGE)
    finished = stage.open()
    stage.close()  # workers of several commands may share the folder
    weights = weights_file(settings.model)
    about = {"images": len(records), "hash": list_hash(records), "weights": weights and sha256(weights)}
    refuse_other_input(folder / "input.json", about)
    if finished is not None:
        return {**finished, "reused": True}
    shards = chunks(len(records), _SHARD)
    start = functools.partial(_start, settings, dataset, records, _SHARD)
    launch(Job(_STAGE, folder, shards, "image", start), settings.engine)
    about |= {"model": settings.model, "dimension": width, "input_size": list(encoder.input_size)}
    return _merge(settings, records, list(shards), about)


def _encoder(settings: ExtractSettings) -> Encoder:
    size = (settings.height, settings.width)
    return build_encoder(settings.model, settings.backbone, size, 0, resolve_device(settings.device))


@torch.no_grad()
def _width(encoder: Encoder, feature: str) -> int:
    """How many numbers a feature has, which a blank image shows.

    Raises:
        UsageError: the model has no such feature.
    """
    blank = torch.zeros(1, 3, *encoder.input_size, dtype=torch.uint8, device=encoder.device)
    table = FeatureTable(encoder.encode(blank, Modality.VISIBLE), [Record("blank")])
    return table[feature or encoder.headline].shape[1]


def _start(settings: ExtractSettings, dataset: Dataset, records: Sequence[Record], size: int) -> RunShard:
    encoder = _encoder(settings)
    feature = settings.feature or encoder.headline
    width, runtime = _width(encoder, feature), Runtime(encoder.device, settings.batch_size)

    def run_shard(shard: str) -> list[Path]:
        chosen, unreadable = records[chunk(shard, size)], Unreadable()
        features: Float32[np.ndarray, "M D"] = np.full((len(chosen), width), np.nan, np.float32)
        try:
            skipped = None if settings.on_bad_image == "fail" else unreadable
            rows = extract(encoder, dataset, chosen, runtime, skipped)[feature].numpy()
            features[[record.name not in unreadable for record in chosen]] = rows
        except DataError:  # of a single shard none may be readable
            if settings.on_bad_image == "fail" or any(record.name not in unreadable for record in chosen):
                raise
        names, reasons = (np.array(words, dtype=np.str_) for words in (list(unreadable), list(unreadable.values())))
        path = piece(Path(settings.out), shard, ".npz")
        write_arrays(path, {"features": features, "unreadable": names, "reasons": reasons})
        return [path]

    return run_shard


def _merge(
    settings: ExtractSettings, records: Sequence[Record], shards: Sequence[str], about: JsonObject
) -> JsonObject:
    """Join the shards in their order, one at a time; only one of several commands that end together does it."""
    folder = Path(settings.out)
    stage = RunFolder(folder, settings, _STAGE)
    pieces = [piece(folder, shard, ".npz") for shard in shards]
    with closing(stage):
        finished = stage.open()
        if finished is not None:
            return {**finished, "reused": True}
        unreadable: dict[str, str] = {}
        # Written, not mapped: where the disk is full, a write says so, and a map ends the process.
        with atomic_path(folder / FEATURES) as temporary, temporary.open("wb") as handle:
            shape = (len(records), about["dimension"])
            np.lib.format.write_array_header_1_0(handle, {"descr": "<f4", "fortran_order": False, "shape": shape})
            for path in pieces:
                arrays = read_arrays(path)
                handle.write(arrays["features"].astype("<f4").tobytes())
                unreadable |= dict(zip(arrays["unreadable"].tolist(), arrays["reasons"].tolist(), strict=True))
            if all(record.name in unreadable for record in records):
                why = next(iter(unreadable.values()), "there are none")
                raise DataError(f"none of {len(records)} images can be read: {why}")
        with atomic_path(folder / IMAGES) as temporary, temporary.open("w", encoding="utf-8") as handle:
            handle.write(csv_text([_HEAD]))
            for begin in range(0, len(records), _SHARD):
                handle.write(csv_text(map(_line, records[begin : begin + _SHARD])))
        result = stage.finish(
            {
                **about,
                "unreadable": unreadable,
                "sha256": {name: sha256(folder / name) for name in (FEATURES, IMAGES)},
            }
        )
    for path in pieces:
        path.unlink(missing_ok=True)
    return result


def _line(record: Record) -> tuple[object, ...]:
    box = record.box or ("", "", "", "")
    return (record.path, record.person, record.camera, record.modality.name.lower(), *box)
