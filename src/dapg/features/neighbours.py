"""Nearest neighbours among crops of one's own videos: does a model see who is who, with few labels or none?

Two tests of the same ranking. Both leave out every crop within some seconds of the query, which shows the same person
in nearly the same pose before the same background.

* tracks (no labels): matches are later or earlier crops of the query's own track; against them stand tracks that were
  in the image together with it, and so are other people. What is left unknown is left out. A track keeps its
  surroundings, so this is the easy test, and a track that swaps people counts against every model alike.
* people (labels): matches are crops of the same person in *other* tracks, against all other labelled crops.
"""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dapg.core.device import resolve_device
from dapg.core.errors import DataError, UsageError
from dapg.core.files import atomic_path, folder_lock, plain_cell, remove_leftovers_of, write_json
from dapg.core.images import open_rgb
from dapg.core.ranges import Count, CountOrZero, Pixels, Processes, Seed, Weight
from dapg.core.run_folder import RESULT
from dapg.core.runtime import Runtime
from dapg.core.schema import wall
from dapg.core.settings import shown, unset
from dapg.core.train_config import BackboneConfig
from dapg.core.types import UNKNOWN, JsonObject, Record
from dapg.data.cropping.boxes import iou
from dapg.data.cropping.crop import MANIFEST
from dapg.data.loading import OnBadImage
from dapg.data.sets.folder import Folder
from dapg.data.source import list_hash
from dapg.features.build_encoder import build_encoder
from dapg.features.extract import Unreadable, extract
from dapg.scoring.bootstrap import intervals, write_query_scores
from dapg.scoring.metrics import Scores, summarise
from dapg.scoring.ranking import unit_rows

QUERY_SCORES, SHEET = "queries.npz", "neighbours.png"
_SAME_BOX = 0.7
"""IoU from which on a labelled box and a crop's are one: labels outlive a change of the detector's settings."""
_BLOCK = 512
"""Queries ranked at a time."""


@dataclass(frozen=True)
class NeighbourSettings:
    """What is ranked, and how."""

    model: str
    """Folder of a finished run, ``histogram``, ``random``, ``imagenet`` or a weights file."""
    crops: str = ""
    """Folder that ``dapg data crop`` made."""
    people: str = ""
    """CSV like manifest.csv with a column ``person``; rows without one are unknown. Empty: judge by tracks."""
    seconds: Weight = 2.0
    """Crops of the same video so near in time to the query are left out."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """Network for ``random``, ``imagenet`` and weights files; a run brings its own."""
    height: Pixels = 128
    """Rows of the input, where the model does not say."""
    width: Pixels = 64
    """Columns of the input, where the model does not say."""
    on_bad_image: OnBadImage = unset("skip")
    """An image that cannot be read: leave it out, and list it in the result, or stop (fail)."""
    seed: Seed = 0
    """Of random weights, and of which queries are drawn."""
    queries_drawn: CountOrZero = 12
    """Rows of neighbours.png, an image of the nearest neighbours; it shows real people: do not publish it."""
    batch_size: Count = 64
    """Images encoded at once."""
    workers: Processes = 2
    """Loader processes."""
    out: str = ""
    """Folder of the result."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


@dataclass(frozen=True)
class Sightings:
    """N crops: where and when each was seen, and who it is."""

    files: tuple[str, ...]
    videos: Int[Tensor, "N"]
    frames: Int[Tensor, "N"]
    seconds: Float64[Tensor, "N"]
    tracks: Int[Tensor, "N"]
    """Numbered over all videos."""
    persons: Int[Tensor, "N"]
    """-1: unknown."""

    def only(self, rows: Int[Tensor, "M"]) -> "Sightings":
        """Some of them."""
        labels = (self.videos, self.frames, self.seconds, self.tracks, self.persons)
        return Sightings(tuple(self.files[row] for row in rows.tolist()), *(label[rows] for label in labels))


def neighbours(settings: NeighbourSettings) -> JsonObject:
    """Rank every crop against all others; returns the content of result.json.

    Raises:
        UsageError: unknown model, or nothing that could be a match.
        DataError: the folder or the labels cannot be read, or a crop.
    """
    out = Path(settings.out)
    dataset = Folder(settings.crops)
    everything = read_sightings(Path(settings.crops))
    unmatched = 0
    if settings.people:
        everything, unmatched = name_people(everything, Path(settings.crops), Path(settings.people))
    test: Literal["people", "tracks"] = "people" if settings.people else "tracks"
    seen = everything.only((everything.persons != UNKNOWN).nonzero()[:, 0]) if test == "people" else everything
    records = [Record(file) for file in seen.files]
    size = (settings.height, settings.width)
    runtime = Runtime(resolve_device(settings.device), settings.batch_size, settings.workers, progress=True)
    encoder = build_encoder(settings.model, settings.backbone, size, settings.seed, runtime.device)
    unreadable: Unreadable = {}
    table = extract(encoder, dataset, records, runtime, unreadable if settings.on_bad_image == "skip" else None)
    if unreadable:
        seen = seen.only(torch.tensor([row for row, record in enumerate(records) if record.name not in unreadable]))
        records = list(table.records)
    features = unit_rows(table[encoder.headline])
    same, gallery = pairs(seen, test, settings.seconds)
    scores = score_pairs(features, same, gallery, seen.persons if test == "people" else seen.tracks)
    result: JsonObject = {
        "stage": "neighbours",
        "model": settings.model,
        "test": test,
        "protocol": f"neighbours by {test}, {settings.seconds:g} s left out",
        "data": {"name": "crops", "mode": test, "hash": _hash(records, same, gallery)},
        "trials": [{"name": "all crops", "queries": len(records), "gallery": len(records), "cause": "gallery"}],
        "feature": encoder.headline,
        "crops": len(records),
        "unreadable": unreadable,
        "labels_without_crop": unmatched,
        "queries": scores.queries,
        "valid_queries": scores.valid_queries,
        "chance": chance(same, gallery),
        "scores": {"rank-1": scores.rank(1), "rank-5": scores.rank(5), "mAP": scores.mAP, "mINP": scores.mINP},
        "intervals": {name: asdict(value) for name, value in intervals([[scores.per_query]]).items()},
        "per_query": QUERY_SCORES,
        "comparable": False,
    }
    with folder_lock(out):
        remove_leftovers_of(out / name for name in (QUERY_SCORES, SHEET, RESULT))
        (out / RESULT).unlink(missing_ok=True)  # it may be another model's, and must not stand beside these scores
        write_query_scores(out / QUERY_SCORES, {encoder.headline: [scores]})
        _draw(out / SHEET, dataset, seen, features, same, gallery, settings)
        write_json(out / RESULT, result)
    return result


def read_sightings(crops: Path) -> Sightings:
    """What manifest.csv tells; nobody is known yet.

    Raises:
        DataError: no manifest, or not one of ``dapg data crop``.
    """
    rows = _table(crops / MANIFEST, ("file", "video", "frame", "seconds", "track"))
    if not rows:
        raise DataError(f"{crops / MANIFEST} lists no crop")
    videos = {name: number for number, name in enumerate(sorted({row["video"] for row in rows}))}
    names = sorted({(row["video"], int(row["track"])) for row in rows})
    tracks = {name: number for number, name in enumerate(names)}
    return Sightings(
        tuple(row["file"] for row in rows),
        torch.tensor([videos[row["video"]] for row in rows]),
        torch.tensor([int(row["frame"]) for row in rows]),
        torch.tensor([float(row["seconds"]) for row in rows], dtype=torch.float64),
        torch.tensor([tracks[row["video"], int(row["track"])] for row in rows]),
        torch.full((len(rows),), UNKNOWN),
    )


def name_people(sightings: Sightings, crops: Path, people: Path) -> tuple[Sightings, int]:
    """Sightings with the persons of a label file, and how many of its labels fit no crop.

    A label belongs to the crop of the same video and frame with the largest overlap of boxes, at least 0.7.

    Raises:
        DataError: the file cannot be read, names nobody, or two persons for one crop.
    """
    wanted = ("video", "frame", "left", "top", "right", "bottom")
    labels = [row for row in _table(people, (*wanted, "person")) if row["person"]]
    places: dict[tuple[str, str], list[int]] = {}
    manifest = _table(crops / MANIFEST, wanted)
    for number, row in enumerate(manifest):
        places.setdefault((row["video"], row["frame"]), []).append(number)
    numbers = {name: number for number, name in enumerate(sorted({row["person"] for row in labels}))}
    persons = sightings.persons.clone()
    unmatched = 0
    for row in labels:
        candidates = places.get((row["video"], row["frame"]), [])
        overlaps = iou(_box([row]), _box([manifest[number] for number in candidates]))[0]
        if overlaps.max(initial=0) < _SAME_BOX:
            unmatched += 1
            continue
        chosen, person = candidates[int(overlaps.argmax())], numbers[row["person"]]
        if persons[chosen] not in (UNKNOWN, person):
            raise DataError(f"{people} names two persons for {sightings.files[chosen]}")
        persons[chosen] = person
    videos, labelled = ({row["video"] for row in rows} for rows in (manifest, labels))
    if labels and not videos & labelled:
        raise DataError(
            f"{people} labels {', '.join(sorted(labelled)[:3])}, but the crops in {crops} are of "
            f"{', '.join(sorted(videos)[:3])}: was a video renamed? Use the names of the manifest"
        )
    if not bool((persons != UNKNOWN).any()):
        raise DataError(f"no label of {people} fits a crop of {crops}")
    known = (sightings.videos, sightings.frames, sightings.seconds, sightings.tracks)
    return Sightings(sightings.files, *known, persons), unmatched


def pairs(
    seen: Sightings, test: Literal["people", "tracks"], seconds: float
) -> tuple[Bool[Tensor, "N N"], Bool[Tensor, "N N"]]:
    """(same, gallery): whom query i (row) should find, and which crops stand in its gallery at all."""
    one_video = seen.videos[:, None] == seen.videos
    far = ~one_video | ((seen.seconds[:, None] - seen.seconds).abs() > seconds)
    one_track = seen.tracks[:, None] == seen.tracks
    if test == "people":
        known = seen.persons != UNKNOWN
        same = (seen.persons[:, None] == seen.persons) & known
        return same & ~one_track, far & ~one_track & known
    return one_track, far & (one_track | together(seen))


def together(seen: Sightings) -> Bool[Tensor, "N N"]:
    """Pairs of crops whose tracks both gave a crop of one frame, and so are two people."""
    moments = torch.unique(torch.stack([seen.videos, seen.frames], dim=1), dim=0, return_inverse=True)[1]
    present = torch.zeros(int(seen.tracks.max()) + 1, int(moments.max()) + 1)
    present[seen.tracks, moments] = 1
    met = present @ present.T > 0
    met.fill_diagonal_(False)
    return met[seen.tracks][:, seen.tracks]


def score_pairs(
    features: Float[Tensor, "N D"], same: Bool[Tensor, "N N"], gallery: Bool[Tensor, "N N"], persons: Int[Tensor, "N"]
) -> Scores:
    """CMC, mAP and mINP of every crop as a query among the crops that are kept for it; formulas as in ``metrics``.

    Args:
        features: unit rows.
        same: whom a query should find.
        gallery: which crops it is compared with.
        persons: whose queries are resampled together for intervals.

    Raises:
        UsageError: no query has a match.
    """
    blocks = [
        _score_block(
            features[start : start + _BLOCK] @ features.T, same[start : start + _BLOCK], gallery[start : start + _BLOCK]
        )
        for start in range(0, len(features), _BLOCK)
    ]
    values = torch.cat(blocks)
    if not bool(values[:, 2].any()):
        raise UsageError("no crop has a match that is kept: more video, or a shorter --seconds, may help")
    return summarise(persons.numpy(), values)


def _score_block(
    similarity: Float[Tensor, "b N"], same: Bool[Tensor, "b N"], gallery: Bool[Tensor, "b N"]
) -> Float64[Tensor, "b 3"]:
    """AP, INP and first match of each query."""
    order = similarity.masked_fill(~gallery, -torch.inf).argsort(dim=1, descending=True, stable=True)
    match = (same & gallery).gather(1, order)
    ranks = torch.arange(1, match.shape[1] + 1)
    hits = match.cumsum(dim=1)
    count = hits[:, -1]
    precision = (hits / ranks * match).double().sum(dim=1) / count
    last = (ranks * match).amax(dim=1)
    first = torch.where(count > 0, match.int().argmax(dim=1) + 1, 0)
    return torch.stack([precision, torch.where(count > 0, count / last.double(), torch.nan), first], dim=1)


def chance(same: Bool[Tensor, "N N"], candidates: Bool[Tensor, "N N"]) -> float:
    """Rank-1 of guessing: the mean share of matches in a query's gallery."""
    matches, gallery = (same & candidates).sum(dim=1), candidates.sum(dim=1)
    valid = matches > 0
    return float((matches[valid] / gallery[valid]).mean()) if bool(valid.any()) else 0.0


def _hash(records: Sequence[Record], same: Tensor, gallery: Tensor) -> str:
    """Of the test: two results with the same one can be compared query by query."""
    import hashlib

    digest = hashlib.sha256(list_hash(list(records)).encode())
    for mask in (same, gallery):
        digest.update(np.packbits(mask.numpy()).tobytes())
    return digest.hexdigest()[:16]


_NUMBERS = {"frame": int, "track": int, "seconds": float, "left": float, "top": float, "right": float, "bottom": float}


def _table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file with all of these columns, those of ``_NUMBERS`` in them finite numbers."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{path} has no column {', '.join(missing)}")
            rows = [{name: plain_cell(value or "") for name, value in row.items() if name} for row in reader]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; give the folder that `dapg data crop` made") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a table in UTF-8 ({error})") from error
    for line, row in enumerate(rows, 2):
        for name in [name for name in columns if name in _NUMBERS]:
            with wall(f"{path}, line {line}: {name}", f"it must be a number, not {shown(row[name])}"):
                if not -(2.0**63) < _NUMBERS[name](row[name]) < 2.0**63:
                    raise ValueError("too large")
    return rows


def _box(rows: Sequence[dict[str, str]]) -> np.ndarray:
    sides = [[float(row[side]) for side in ("left", "top", "right", "bottom")] for row in rows]
    return np.array(sides, dtype=np.float64).reshape(-1, 4)


def _draw(
    path: Path,
    dataset: Folder,
    seen: Sightings,
    features: Float[Tensor, "N D"],
    same: Bool[Tensor, "N N"],
    gallery: Bool[Tensor, "N N"],
    settings: NeighbourSettings,
) -> None:
    """A row for each query: itself, then its ten nearest with similarity, second of the video and track."""
    valid = (same & gallery).any(dim=1).nonzero()[:, 0]
    generator = torch.Generator().manual_seed(settings.seed)
    chosen = valid[torch.randperm(len(valid), generator=generator)[: settings.queries_drawn]].sort().values
    sheet = Image.new("RGB", (_MARGIN + 11 * _CELL[0] + 34, 30 + max(1, len(chosen)) * _CELL[1]), "white")
    pen = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(13), ImageFont.load_default(11)
    who = "the same person" if settings.people else "the same track"
    pen.text((_MARGIN, 6), "query", _INK, font)
    left = _MARGIN + _CELL[0] + 34
    _mark(pen, (left, 9), right=True)
    pen.text((left + 16, 6), f"{who};", _INK, font)
    _mark(pen, (left + 130, 9), right=False)
    pen.text((left + 146, 6), "somebody else. Nearest first: similarity, second of the video, track", _INK, font)
    for row, query in enumerate(chosen.tolist()):
        similarity = (features[query] @ features.T).masked_fill(~gallery[query], -torch.inf)
        nearest = similarity.topk(min(10, int(gallery[query].sum()))).indices.tolist()
        for column, crop in enumerate([query, *nearest]):
            record = Record(seen.files[crop])
            left, top = _MARGIN + column * _CELL[0] + 34 * (column > 0), 30 + row * _CELL[1]
            sheet.paste(open_rgb(dataset.read(record), record.path).resize((64, 128)), (left + 3, top + 3))
            lines = [f"{seen.seconds[crop]:.1f} s", f"track {seen.tracks[crop]}"]
            if column:
                right = bool(same[query, crop])
                _frame(pen, (left, top, left + 69, top + 133), right)
                _mark(pen, (left + 2, top + 137), right)
                pen.text((left + 18, top + 135), f"{similarity[crop]:.2f}", _INK, small)
            for line, text in enumerate(lines, start=1):
                pen.text((left + 2, top + 135 + 13 * line), text, _INK, small)
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")


_MARGIN, _CELL = 8, (76, 182)
"""Pixels at the left; width and height of an image with its lines."""
_INK, _RIGHT, _WRONG = (29, 33, 37), (0, 117, 90), (184, 74, 0)


def _frame(pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int], right: bool) -> None:
    """Solid around right answers, dashed around wrong ones."""
    if right:
        pen.rectangle(box, outline=_RIGHT, width=3)
        return
    for x in range(box[0], box[2], 8):
        for y in (box[1], box[3] - 2):
            pen.rectangle((x, y, min(x + 4, box[2]), y + 2), fill=_WRONG)
    for y in range(box[1], box[3], 8):
        for x in (box[0], box[2] - 2):
            pen.rectangle((x, y, x + 2, min(y + 4, box[3])), fill=_WRONG)


def _mark(pen: ImageDraw.ImageDraw, corner: tuple[int, int], right: bool) -> None:
    """A tick or a cross of ten pixels: most fonts have neither."""
    x, y = corner
    if right:
        pen.line(((x, y + 5), (x + 4, y + 9), (x + 11, y)), fill=_RIGHT, width=3)
    else:
        pen.line(((x, y), (x + 10, y + 10)), fill=_WRONG, width=3)
        pen.line(((x, y + 10), (x + 10, y)), fill=_WRONG, width=3)
