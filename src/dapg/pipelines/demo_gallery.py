"""A gallery of the embedded rendered people, with night images to search it by: ``dapg serve --demo``."""

import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from dapg.core.errors import UsageError
from dapg.core.files import atomic_write_bytes, csv_text
from dapg.core.images import encode, open_rgb
from dapg.core.seeds import derive_seed
from dapg.core.train_config import DataConfig
from dapg.core.types import Modality, Record
from dapg.data.base import Dataset
from dapg.data.sets.folder import LABELS
from dapg.data.source import open_dataset, parse_source
from dapg.evaluation.thresholds import ThresholdSettings, measure
from dapg.features.networks import NetworkSettings
from dapg.gallery.gallery import Gallery
from dapg.gallery.indexing import IndexSettings

QUERIES = "queries"
MODEL = "agw-imagenet-small"
_ENROLLED, _ASKED, _STRANGERS, _SEED = 100, 9, 3, 20
_EVENING = datetime.fromisoformat("2026-01-05T17:00:00+00:00")


def demo_gallery(folder: Path, say: Callable[[str], None], model: str = MODEL, device: str = "auto") -> Gallery:
    """A new gallery in ``folder``, made in about a minute; ``say`` is told so before.

    Visible images of 100 test persons, and in ``queries/`` one infrared image of each of nine of them and of three
    strangers. All are drawn by a fixed seed, none by its result. The times are invented, as the people are.

    Raises:
        UsageError: there is something in the folder already, or a file in its place.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already and holds no gallery; give an empty folder or a new one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    say(f"making a gallery of {_ENROLLED} rendered people in {folder}; this takes about a minute")
    dataset = open_dataset(parse_source("synthetic"))
    records = dataset.records("test")
    persons = sorted({r.person for r in records}, key=lambda person: derive_seed("demo gallery", _SEED, person))
    enrolled, strangers = set(persons[:_ENROLLED]), persons[_ENROLLED : _ENROLLED + _STRANGERS]
    visible = [r for r in records if r.modality is Modality.VISIBLE and r.person in enrolled]
    with tempfile.TemporaryDirectory(prefix=".gallery-", dir=folder.parent) as beside:
        making = Path(beside) / "gallery"
        gallery = Gallery.create(making, NetworkSettings(model), device).acting("demo", "rendered people")
        with tempfile.TemporaryDirectory() as name:
            _write(dataset, visible, Path(name))
            gallery.index(name, IndexSettings(threads=1))
        others = [r for r in records if r.person not in enrolled and r.person not in strangers]
        _set_thresholds(gallery, dataset, [*others, *dataset.records("val")])
        for person in [*persons[:_ASKED], *strangers]:
            night = next(r for r in records if r.modality is Modality.INFRARED and r.person == person)
            name = query_name("person" if person in enrolled else "stranger", night)
            atomic_write_bytes(making / QUERIES / name, encode(open_rgb(dataset.read(night), "query"), "PNG"))
        gallery.close()
        try:
            making.rename(folder)
        except OSError as error:  # another process made one meanwhile
            raise UsageError(f"could not write {folder}: {error.strerror}; give another folder") from error
    return Gallery(folder, device)


def query_name(who: str, night: Record) -> str:
    """Name of a night image's file, one word in a shell and for ``curl``, which takes commas for its own."""
    return f"{who}-{night.person:03d}_camera-{night.camera}.png"


def _set_thresholds(gallery: Gallery, dataset: Dataset, records: Sequence[Record]) -> None:
    """On persons that are neither in the gallery nor asked for, where scikit-learn is there; else the page says so."""
    if importlib.util.find_spec("sklearn") is None:
        return
    with tempfile.TemporaryDirectory() as name:
        _write(dataset, records, Path(name))
        network, settings = gallery.network(), ThresholdSettings(data=DataConfig("folder", name, "all"), workers=0)
        result = measure(network.encoder, network.card.infrared, settings)
        data = {**result["data"], "name": "rendered people", "root": "embedded"}
        gallery.set_thresholds({"model": network.card.hash, "name": network.card.name, **result, "data": data})


def _write(dataset: Dataset, records: Sequence[Record], folder: Path) -> None:
    """Images with a list of persons, cameras and invented times."""
    rows: list[Sequence[object]] = [("path", "person", "camera", "modality", "time")]
    for number, record in enumerate(records):
        name = f"{record.person:03d}_camera{record.camera}_{number:04d}.webp"
        (folder / name).write_bytes(dataset.read(record))
        moment = _EVENING + timedelta(seconds=derive_seed("demo time", _SEED, number) % 14_400)
        light = record.modality.name.lower()
        rows.append((name, f"person {record.person:03d}", record.camera, light, moment.isoformat()))
    (folder / LABELS).write_text(csv_text(rows), encoding="utf-8")
