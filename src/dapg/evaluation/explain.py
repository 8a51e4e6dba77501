"""Single images as a stage: where the network looks, and what it finds nearest in a gallery."""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from dapg.core.device import resolve_device
from dapg.core.errors import DapgError, UsageError
from dapg.core.files import sha256
from dapg.core.ranges import Count, Pixels, Processes, Seed
from dapg.core.run_folder import RunFolder, refuse_changed
from dapg.core.runtime import Runtime
from dapg.core.settings import run_only, unset
from dapg.core.train_config import BackboneConfig, DataConfig
from dapg.core.types import UNKNOWN, JsonObject, Modality, Record
from dapg.data.base import Dataset
from dapg.data.loading import OnBadImage
from dapg.data.source import list_hash, open_dataset, select_records
from dapg.features.build_encoder import build_encoder, weights_file
from dapg.features.extract import Unreadable, checked_feature, extract
from dapg.features.grad_cam import backbone_of
from dapg.features.ranked_lists import Answers, describe_lists, save_maps, save_thumbnails
from dapg.features.table import FeatureTable
from dapg.scoring.labels import Labels
from dapg.scoring.ranking import rank

QUERIES = "queries"
"""Folder of the thumbnails of the images that were asked about."""


@dataclass(frozen=True)
class ExplainSettings:
    """Which images are looked at, and by which model."""

    model: str
    """Folder of a finished run, ``random``, ``imagenet`` or a weights file."""
    pictures: tuple[str, ...] = ()
    """Image files."""
    modality: Literal["visible", "infrared"] = "visible"
    """Kind of light of the images."""
    gallery: DataConfig = field(default_factory=lambda: DataConfig(name=""))
    """Where the nearest images are looked up; without it only the images themselves are shown."""
    top: Count = 8
    """Nearest gallery images shown."""
    feature: str = ""
    """Feature to look at; empty: the model's headline."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """Network for ``random``, ``imagenet`` and weights files; a run brings its own."""
    height: Pixels = 256
    """Rows of the input, where the model does not say."""
    width: Pixels = 128
    """Columns of the input, where the model does not say."""
    on_bad_image: OnBadImage = unset("skip")
    """An image that cannot be read: leave it out, and list it in the result, or stop (fail)."""
    seed: Seed = 0
    """Of random weights, and of which part of the gallery is searched with ``--gallery.subset``."""
    batch_size: Count = run_only(64)
    """Images encoded at once."""
    workers: Processes = run_only(0)
    """Loader processes."""
    out: str = run_only("outputs/explain")
    """Folder of the result."""
    device: str = run_only("auto")
    """auto, cpu, cuda or cuda:N."""


class ImageFiles(Dataset):
    """Image files named one by one."""

    title = "image files"
    licence = "yours"
    access = "your own files"
    splits: ClassVar[tuple[str, ...]] = ("all",)

    def __init__(self, paths: tuple[str, ...], modality: Modality) -> None:
        """The root is the deepest folder that holds them all."""
        files = [Path(path).parent.resolve() / Path(path).name for path in dict.fromkeys(paths)]
        super().__init__(Path(os.path.commonpath([file.parent for file in files])))
        self._records = [Record(file.relative_to(self.root).as_posix(), modality=modality) for file in files]

    def records(self, split: str = "all") -> list[Record]:
        """In the order they were named."""
        self.check_split(split)
        return list(self._records)

    @classmethod
    def example_layout(cls) -> Mapping[str, str | None]:
        """One image."""
        return {"a.png": None}


def explain(settings: ExplainSettings) -> JsonObject:
    """Activation maps and nearest gallery images of single images; returns the content of result.json.

    Raises:
        UsageError: no image, a model that is no network, no such feature, or the folder holds another run.
        DataError: an image cannot be read.
    """
    if not settings.pictures:
        raise UsageError("give at least one image")
    folder = Path(settings.out)
    stage = RunFolder(folder, settings, "explain", alone=True)
    finished = stage.open()
    if finished is not None:
        stage.close()
        for what, now in _inputs(settings).items():
            refuse_changed(folder, what, finished.get("inputs", {}).get(what), now)
        return {**finished, "reused": True}
    with stage.working():
        return stage.finish(_explain(settings, folder))


def _inputs(settings: ExplainSettings) -> dict[str, str | None]:
    """Hashes of what the settings only name: weights, images and the gallery's list; None of what is not there."""
    weights, listed = weights_file(settings.model), None
    if settings.gallery.name:
        with contextlib.suppress(DapgError):
            listed = list_hash(select_records(open_dataset(settings.gallery), settings.gallery, settings.seed))
    files = {path: sha256(path) if Path(path).is_file() else None for path in settings.pictures}
    return {"its weights": None if weights is None else sha256(weights), "the gallery's list": listed, **files}


def _explain(settings: ExplainSettings, folder: Path) -> JsonObject:
    runtime = Runtime(resolve_device(settings.device), settings.batch_size, settings.workers, progress=True)
    size = settings.height, settings.width
    encoder = build_encoder(settings.model, settings.backbone, size, settings.seed, runtime.device)
    if backbone_of(encoder) is None:
        raise UsageError(f"{settings.model} is no network, so there are no activations to draw")
    feature = checked_feature(encoder, settings.feature)
    asked = ImageFiles(settings.pictures, Modality[settings.modality.upper()])
    damaged, unreadable, skip = Unreadable(), Unreadable(), settings.on_bad_image == "skip"
    queries = extract(encoder, asked, asked.records(), runtime, damaged if skip else None)
    gallery: Dataset = asked
    candidates = FeatureTable({feature: queries[feature][:0]}, [])
    if settings.gallery.name:
        gallery = open_dataset(settings.gallery)
        records = select_records(gallery, settings.gallery, settings.seed)
        candidates = extract(encoder, gallery, records, runtime, unreadable if skip else None)
    lists = _nearest(queries, candidates, feature, settings.top)
    save_thumbnails(folder / QUERIES, asked, queries.records)
    save_thumbnails(folder, gallery, [record for _, answers in lists for record, *_ in answers])
    save_maps(folder, encoder, (asked, gallery), lists, feature, (queries, candidates))
    described = describe_lists(lists)
    for entry in described:  # an image of the gallery may have the same relative path
        entry["query"]["picture"] = f"{QUERIES}/{entry['query']['picture']}"
    return {
        "model": settings.model,
        "feature": feature,
        "data": {
            "name": gallery.title if len(candidates) else "no gallery",
            "mode": f"{len(candidates)} images searched",
        },
        "unreadable": unreadable,
        "unreadable_queries": damaged,
        "inputs": _inputs(settings),
        "ranked_lists": described,
    }


def _nearest(queries: FeatureTable, candidates: FeatureTable, feature: str, top: int) -> list[tuple[Record, Answers]]:
    """The nearest gallery images of each query; nobody says whether they match."""
    if not len(candidates):
        return [(query, []) for query in queries.records]
    labels = Labels([UNKNOWN] * len(queries), candidates.persons)
    ranking = rank(queries[feature], candidates[feature], labels, top)
    rows = zip(queries.records, ranking.gallery.tolist(), ranking.similarity.tolist(), strict=True)
    return [
        (query, [(candidates.records[n], value, None) for n, value in zip(places, values, strict=True) if n >= 0])
        for query, places, values in rows
    ]
