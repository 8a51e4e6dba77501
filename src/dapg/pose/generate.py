"""Writes each person in other poses: pictures and a manifest, in batches, resumable, in parts."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dapg.augment.repose import repose
from dapg.augment.skeleton import canonical_poses
from dapg.core.device import resolve_device
from dapg.core.errors import DataError, UsageError, nearest
from dapg.core.files import atomic_write_bytes, atomic_write_text, folder_lock, remove_leftovers_of, write_json
from dapg.core.images import to_pil
from dapg.core.key_points import usable
from dapg.core.parts import Part
from dapg.core.progress import progress_bar
from dapg.core.ranges import Count, CountOrZero, Processes, Seed
from dapg.core.schema import REMEDY, read_json, read_json_lines
from dapg.core.settings import run_only
from dapg.core.training import DataConfig
from dapg.core.types import JsonObject, Modality, Record
from dapg.data.base import Dataset
from dapg.data.loading import LoaderConfig, ordered_batches
from dapg.data.manifest import ABOUT, GeneratedPicture, Manifest, write_manifest
from dapg.data.source import list_hash, open_dataset, select_records
from dapg.models.weights.pose_weights import GeneratorFacts, load_generator
from dapg.pose.pairs import key_points_of

PICTURES = "pictures"


@dataclass(frozen=True)
class GenerateSettings:
    """What to generate, with which generator, and where to."""

    out: str = "outputs/pose/generated"
    """Folder of the generated pictures."""
    split: str = ""
    """Which pictures; empty: the data set's training split."""
    poses: str = "canonical"
    """canonical: all four; or some of front, left, back, right, parted by commas."""
    generator: str = "embedded"
    """embedded, a generator's file, or the folder of a finished `dapg pose train`."""
    key_points: str = ""
    """Table of `dapg pose estimate`; empty: the one beside the data, or the exact ones of synthetic people."""
    visible_only: bool = True
    """Pass infrared pictures on unchanged."""
    subset: CountOrZero = 0
    """Only so many pictures, drawn once; 0 uses all."""
    seed: Seed = 0
    """Of the drawing of a subset; an alignment with the same seed and subset finds all its pictures here."""
    part: str = "1/1"
    """I/N makes the I-th of N parts, to share the work between machines."""
    batch_size: Count = run_only(32)
    """Pictures generated at once."""
    workers: Processes = run_only(0)
    """Processes that decode."""
    device: str = run_only("auto")
    """auto, cpu, cuda or cuda:N."""


def generate(source: DataConfig, settings: GenerateSettings) -> JsonObject:
    """Generate the pictures of one part; returns counts.

    ``pictures/`` then holds ``<source's path>_to_<pose>.png`` (as PN-GAN names them) for every usable picture, and
    ``part-I-of-N.jsonl`` lists this part; after the last part ``manifest.csv`` lists all (``data/manifest.py``).
    Unusable pictures have a line without file: they go on unchanged; ``unchanged-I-of-N.jsonl`` says why. Files that
    are there already are kept, so an interrupted run goes on where it stopped.

    Raises:
        UsageError: an unknown pose, a part that does not exist, a folder made with other settings, no key points.
        DataError: a picture cannot be read.
    """
    part = Part.parse(settings.part)
    poses = chosen_poses(settings.poses)
    generator, facts = load_generator(settings.generator)
    dataset = open_dataset(source)
    wanted = DataConfig(source.name, source.root, settings.split, settings.subset)
    records = select_records(dataset, wanted, settings.seed)
    out = Path(settings.out)
    mine = [records[number] for number in part.chunks(len(records))]
    points = key_points_of(dataset, mine, settings.key_points, "--key_points")
    reasons = _reasons(mine, points, settings)
    generator.to(resolve_device(settings.device))
    about = _claim(out, dataset, records, list(poses), facts, settings)  # whatever can be refused has been
    with folder_lock(out, part.number):
        todo = [n for n, record in enumerate(mine) if not reasons[n] and not _done(out, record, poses)]
        remove_leftovers_of(out / file_of(record, pose) for record in mine for pose in poses)
        remove_leftovers_of(out / name for name in _lists(part))
        with progress_bar("generate", "picture", len(todo)) as bar:
            for numbers, pictures in _batches(dataset, mine, todo, settings, facts):
                generated = repose(generator, pictures, torch.stack(list(poses.values())), points[numbers]).cpu()
                for number, versions in zip(numbers, generated, strict=True):
                    for pose, version in zip(poses, versions, strict=True):
                        atomic_write_bytes(out / file_of(mine[number], pose), _png(version))
                bar.update(len(numbers))
        _list(out, mine, reasons, list(poses), part)
        whole = _join_parts(out, records, part.count, about)
    passed_on = sum(bool(reason) for reason in reasons)
    return {
        "pictures": len(mine),
        "generated": len(poses) * (len(mine) - passed_on),
        "made now": len(poses) * len(todo),
        "passed on unchanged": passed_on,
        "pairs of the generator": facts.supervision,
        "complete": whole,
    }


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


def file_of(record: Record, pose: str) -> str:
    """Where a picture in a pose is stored, relative to the folder."""
    path = PurePosixPath(record.path)
    place = "" if record.box is None else "_" + "-".join(map(str, record.box))
    return f"{PICTURES}/{path.with_name(f'{path.stem}{place}_to_{pose}.png')}"


def _list(out: Path, records: Sequence[Record], reasons: Sequence[str], poses: Sequence[str], part: Part) -> None:
    """This part's two lists."""
    lines, unchanged = [], []
    for record, reason in zip(records, reasons, strict=True):
        if reason:
            unchanged.append((record.path, record.box, reason))
        lines += [(record.path, record.box, "" if reason else pose) for pose in poses[: 1 if reason else None]]
    for name, rows in zip(_lists(part), (unchanged, lines), strict=True):
        atomic_write_text(out / name, _lines(rows))


def _lists(part: Part) -> tuple[str, str]:
    """Names of a part's list of unchanged pictures, and of its list of all, which is written last."""
    suffix = f"{part.number}-of-{part.count}.jsonl"
    return f"unchanged-{suffix}", f"part-{suffix}"


def _lines(rows: Sequence[object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _join_parts(out: Path, records: Sequence[Record], parts: int, about: JsonObject) -> bool:
    """Write the manifest when every part is there; whether it was."""
    files = [out / f"part-{index}-of-{parts}.jsonl" for index in range(1, parts + 1)]
    if not all(file.exists() for file in files):
        return False
    poses: dict[tuple[str, tuple[int, ...] | None], list[str]] = {}
    for file in files:
        for path, box, pose in read_json_lines(file, tuple[str, list[int] | None, str]):
            poses.setdefault((path, tuple(box) if box else None), []).append(pose)
    absent = [record.path for record in records if (record.path, record.box) not in poses]
    if absent:
        raise DataError(f"the lists of parts in {out} know nothing of {absent[0]}; {REMEDY}")
    pictures = tuple(
        GeneratedPicture(record.path, record.box, pose, file_of(record, pose) if pose else "")
        for record in records
        for pose in poses[record.path, record.box]
    )
    write_manifest(Manifest(out, pictures, about))
    return True


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
    """Why a picture is passed on unchanged; empty for those that are generated from."""
    infrared = [settings.visible_only and record.modality != Modality.VISIBLE for record in records]
    return [
        "infrared" if dark else "" if seen else "no usable key points"
        for dark, seen in zip(infrared, usable(points).tolist(), strict=True)
    ]


def _done(out: Path, record: Record, poses: Mapping[str, Tensor]) -> bool:
    return all((out / file_of(record, pose)).exists() for pose in poses)


def _batches(
    dataset: Dataset,
    records: Sequence[Record],
    chosen: Sequence[int],
    settings: GenerateSettings,
    facts: GeneratorFacts,
) -> Iterator[tuple[list[int], UInt8[Tensor, "b 3 H W"]]]:
    """The chosen records' numbers and pictures."""
    if not chosen:
        return
    config = LoaderConfig(height=facts.height, width=facts.width, workers=settings.workers)
    for batch in ordered_batches(dataset, [records[n] for n in chosen], settings.batch_size, config):
        yield [chosen[place] for place in batch.indices.tolist()], batch.images


def _png(image: UInt8[Tensor, "3 H W"]) -> bytes:
    stream = io.BytesIO()
    to_pil(image).save(stream, "PNG")
    return stream.getvalue()
