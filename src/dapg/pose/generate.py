"""Writes each person in other poses: images and a manifest, in shards that workers claim."""

import functools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dapg.augment.repose import repose
from dapg.augment.skeleton import canonical_poses
from dapg.core.device import resolve_device
from dapg.core.engines.base import EngineSettings
from dapg.core.errors import UsageError, nearest
from dapg.core.files import atomic_write_bytes, atomic_write_text, folder_lock, remove_leftovers, write_json
from dapg.core.images import encode, to_pil
from dapg.core.key_points import usable
from dapg.core.launch import launch
from dapg.core.ranges import Count, CountOrZero, Seed
from dapg.core.schema import read_json
from dapg.core.settings import run_only, unset
from dapg.core.shards import Job, RunShard, chunk, chunks, piece
from dapg.core.train_config import DataConfig
from dapg.core.types import JsonObject, Modality, Record
from dapg.data.base import Dataset
from dapg.data.compact import CompactRecords
from dapg.data.listing import IMAGE_SUFFIXES
from dapg.data.loading import LoaderConfig, OnBadImage, ordered_batches
from dapg.data.manifest import ABOUT, Box, GeneratedImage, Manifest, write_manifest
from dapg.data.source import list_hash, open_dataset, select_records
from dapg.models.weights.pose_weights import GeneratorFacts, load_generator
from dapg.pose.pairs import key_points_of

PICTURES = "pictures"
_SHARD = 128
"""Images of a shard; it is generated anew if it was not finished, as the batch decides over last bits."""


@dataclass(frozen=True)
class GenerateSettings:
    """What to generate, with which generator, and where to."""

    out: str = "outputs/pose/generated"
    """Folder of the generated images."""
    split: str = ""
    """Which images; empty: the data set's training split."""
    poses: str = "canonical"
    """canonical: all four; or some of front, left, back, right, parted by commas."""
    generator: str = "embedded"
    """embedded, a generator's file, or the folder of a finished `dapg pose train`."""
    key_points: str = ""
    """Table of `dapg pose estimate`; empty: the one beside the data, or the exact ones of synthetic people."""
    visible_only: bool = True
    """Pass infrared images on unchanged."""
    subset: CountOrZero = 0
    """Only so many images, drawn once; 0 uses all."""
    on_bad_image: OnBadImage = unset("skip")
    """An image that cannot be read: pass it on unchanged, and list it, or stop (fail)."""
    seed: Seed = 0
    """Of the drawing of a subset; an alignment with the same seed and subset finds all its images here."""
    batch_size: Count = run_only(32)
    """Images generated at once."""
    device: str = run_only("auto")
    """auto, cpu, cuda or cuda:N."""
    engine: EngineSettings = run_only(EngineSettings())
    """Who does the work."""


def generate(source: DataConfig, settings: GenerateSettings) -> JsonObject:
    """Generate images; returns counts.

    ``pictures/`` then holds ``<source's path>_to_<pose>.png`` (see ``names_of``) for every usable image, and
    ``manifest.csv`` lists all (``data/manifest.py``). Unusable images have a line without file: they go on unchanged;
    ``unchanged.jsonl`` says why. An interrupted run goes on where it stopped.

    Raises:
        UsageError: an unknown pose, a folder made with other settings, no key points, two images of one name.
        ShardsFailed: an image cannot be read, with ``on_bad_image: fail``; else it goes on unchanged.
    """
    poses = chosen_poses(settings.poses)
    _, facts = load_generator(settings.generator)
    dataset = open_dataset(source)
    wanted = DataConfig(source.name, source.root, settings.split, settings.subset)
    records = CompactRecords(select_records(dataset, wanted, settings.seed))
    out = Path(settings.out)
    key_points_of(dataset, records, settings.key_points, "--key_points")
    names = names_of(records)
    about = _claim(out, dataset, records, list(poses), facts, settings)  # whatever can be refused has been
    shards = chunks(len(records), _SHARD)
    start = functools.partial(_start, settings, dataset, records, _SHARD)
    done_before = launch(Job("pose generate", out, shards, "picture", start), settings.engine)
    reasons = [reason for shard in shards for reason in read_json(piece(out, shard, ".json"), list[str])]
    unchanged = [(record.path, record.box, reason) for record, reason in zip(records, reasons, strict=True) if reason]
    images = tuple(
        GeneratedImage(record.path, record.box, pose, file_of(name, pose) if pose else "")
        for record, name, reason in zip(records, names, reasons, strict=True)
        for pose in ([""] if reason else poses)
    )
    with folder_lock(out, patience=3600.0):  # others that worked with us may be writing the same
        remove_leftovers(out)
        atomic_write_text(out / "unchanged.jsonl", "".join(json.dumps(row) + "\n" for row in unchanged))
        write_manifest(Manifest(out, images, about))
    return {
        "pictures": len(records),
        "done before": done_before,
        "generated": len(poses) * (len(records) - len(unchanged)),
        "passed on unchanged": len(unchanged),
        "pairs of the generator": facts.supervision,
    }


def _start(settings: GenerateSettings, dataset: Dataset, records: Sequence[Record], size: int) -> RunShard:
    """Generates from ``size`` records in a row; leaves why each is passed on, empty where it is not."""
    generator, facts = load_generator(settings.generator)
    generator.to(resolve_device(settings.device))
    poses, out = chosen_poses(settings.poses), Path(settings.out)
    everything = key_points_of(dataset, records, settings.key_points, "--key_points")
    names = names_of(records)

    def run_shard(shard: str) -> list[Path]:
        mine = chunk(shard, size)
        chosen, points, places = records[mine], everything[mine], names[mine]
        reasons = _reasons(chosen, points, settings)
        usable = [number for number, reason in enumerate(reasons) if not reason]
        files = [piece(out, shard, ".json")]
        for numbers, images in _batches(dataset, chosen, usable, settings, facts, reasons):
            generated = repose(generator, images, torch.stack(list(poses.values())), points[numbers]).cpu()
            for number, versions in zip(numbers, generated, strict=True):
                for pose, version in zip(poses, versions, strict=True):
                    files.append(out / file_of(places[number], pose))
                    atomic_write_bytes(files[-1], encode(to_pil(version), "PNG"))
        write_json(files[0], reasons)
        return files

    return run_shard


def chosen_poses(text: str) -> dict[str, Float[Tensor, "18 3"]]:
    """Canonical poses by name.

    Raises:
        UsageError: an unknown one.
    """
    known = canonical_poses()
    names = list(known) if text == "canonical" else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UsageError(f"no pose is called {name!r}{nearest(name, list(known))}; known: {', '.join(known)}")
    return {name: known[name] for name in names}


def file_of(name: str, pose: str) -> str:
    """Where an image in a pose is stored, relative to the folder; ``name`` is one of ``names_of``."""
    return f"{PICTURES}/{name}_to_{pose}.png"


def names_of(records: Sequence[Record]) -> list[str]:
    """What the files of each image begin with: its path and box, as PN-GAN names them without the image's suffix.

    The suffix stays where only it tells an image from another one.

    Raises:
        UsageError: two images would still have the same files.
    """
    sources = list(dict.fromkeys((record.path, record.box) for record in records))
    short = {source: _name(*source, suffix=False) for source in sources}
    counts = Counter(short.values())
    names = {source: name if counts[name] == 1 else _name(*source, suffix=True) for source, name in short.items()}
    owners: dict[str, tuple[str, Box | None]] = {}
    for source, name in names.items():
        other = owners.setdefault(name, source)
        if other != source:
            raise UsageError(
                f"images generated from {other[0]} and {source[0]} would both be called {file_of(name, 'POSE')}; "
                "rename one of the sources"
            )
    return [names[record.path, record.box] for record in records]


def _name(text: str, box: Box | None, suffix: bool) -> str:
    path = PurePosixPath(text)
    place = "" if box is None else "_" + "-".join(map(str, box))
    whole = suffix or path.suffix.lower() not in IMAGE_SUFFIXES  # of an array with a number: array.npy#7
    return str(path.with_name((path.name if whole else path.stem) + place))


def _claim(
    out: Path,
    dataset: Dataset,
    records: Sequence[Record],
    poses: list[str],
    facts: GeneratorFacts,
    settings: GenerateSettings,
) -> JsonObject:
    """Write what the folder is going to hold, or check that it holds the same already; parts share one folder."""
    about = {
        "data": list_hash(list(records)),
        "data_set": dataset.title,
        "sources": len(records),
        "poses": poses,
        "key_points": settings.key_points,
        "visible_only": settings.visible_only,
        "generator": facts.sha256,
        "pairs": facts.supervision,
        "saw_identities": facts.saw_identities,
        "size": [facts.height, facts.width],
    }
    if (out / ABOUT).exists():
        stored = read_json(out / ABOUT)
        different = [key for key in about if about[key] != stored.get(key)]
        if different:
            raise UsageError(f"{out} was generated with another {different[0]!r}; give another --out")
    elif out.exists() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise UsageError(f"{out} is not empty and holds no {ABOUT}; give another --out")
    else:
        write_json(out / ABOUT, about)
    return about


def _reasons(records: Sequence[Record], points: Float[Tensor, "R 18 3"], settings: GenerateSettings) -> list[str]:
    """Why an image is passed on unchanged; empty for those that are generated from."""
    infrared = [settings.visible_only and record.modality != Modality.VISIBLE for record in records]
    return [
        "infrared" if dark else "" if seen else "no usable key points"
        for dark, seen in zip(infrared, usable(points).tolist(), strict=True)
    ]


def _batches(
    dataset: Dataset,
    records: Sequence[Record],
    chosen: Sequence[int],
    settings: GenerateSettings,
    facts: GeneratorFacts,
    reasons: list[str],
) -> Iterator[tuple[list[int], UInt8[Tensor, "b 3 H W"]]]:
    """The chosen records' numbers and images; an unreadable one has its reason noted instead."""
    if not chosen:
        return
    config = LoaderConfig(height=facts.height, width=facts.width, workers=0)
    skip = settings.on_bad_image == "skip"
    for batch in ordered_batches(dataset, [records[n] for n in chosen], settings.batch_size, config, skip=skip):
        bad = {image.name for image in batch.bad_images}
        numbers = [chosen[place] for place in batch.indices.tolist()]
        for number in numbers:
            if records[number].name in bad:
                reasons[number] = "unreadable"
        rows = [row for row, number in enumerate(numbers) if not reasons[number]]
        if rows:
            yield [numbers[row] for row in rows], batch.images[rows]
