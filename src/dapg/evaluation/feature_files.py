"""Scores of features from any program: an ``.npz`` file and a protocol's name are enough."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from dapg.core.device import resolve_device
from dapg.core.errors import DataError, UsageError, nearest
from dapg.core.files import sha256, write_json
from dapg.core.ranges import Count
from dapg.core.types import JsonObject, Protocol
from dapg.data.sets import llcm, market1501, regdb, sysu
from dapg.evaluation.result import describe_scores
from dapg.features.table import zero_notes
from dapg.scoring.bootstrap import write_query_scores
from dapg.scoring.labels import Labels
from dapg.scoring.metrics import Scores, score, score_features
from dapg.scoring.rerank import Rerank, reranked_distances, reranked_name

PROTOCOLS: Mapping[str, Protocol] = {
    "sysu": sysu.PROTOCOL,
    "regdb": regdb.PROTOCOL,
    "llcm": llcm.PROTOCOL,
    "market": market1501.PROTOCOL,
    "plain": Protocol("plain"),
}
"""Names that ``--protocol`` accepts. ``plain`` leaves nothing out and counts images, like ``regdb``."""
_FEATURE = "file"
_SHORTEST = 1e-12
_LARGEST_LABEL = 2**53
"""From here on floating-point numbers skip whole numbers."""


@dataclasses.dataclass(frozen=True)
class FileSettings:
    """How a feature file is scored."""

    protocol: str = ""
    """sysu, regdb, llcm, market or plain."""
    max_rank: Count = 20
    """Length of the CMC curve."""
    rerank: Rerank = dataclasses.field(default_factory=Rerank)
    """Also score the features after k-reciprocal re-ranking or query expansion."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    out: str = "scores.json"
    """File of the scores; those of each query are written beside it."""


@dataclasses.dataclass(frozen=True)
class FeatureFile:
    """Unit features and labels of one query and one gallery set."""

    query_features: Float[Tensor, "Q D"]
    gallery_features: Float[Tensor, "G D"]
    labels: Labels


def protocol_named(name: str) -> Protocol:
    """The protocol of a short name.

    Raises:
        UsageError: no such name; the nearest one is suggested.
    """
    if name not in PROTOCOLS:
        what = f"no protocol is called {name!r}{nearest(name, list(PROTOCOLS))}" if name else "which --protocol"
        raise UsageError(f"{what}? Known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def read_features(path: Path | str, protocol: Protocol) -> FeatureFile:
    """Read and check a feature file, and scale its features to unit length.

    Keys: ``query_features`` (Q, D), ``query_persons`` (Q), ``query_cameras`` (Q), ``gallery_features`` (G, D),
    ``gallery_persons`` (G), ``gallery_cameras`` (G); the cameras may be absent where the protocol uses none. Features
    are floating point of any width and byte order, labels whole numbers (a float array of whole numbers is fine). Both
    sides are computed in float64 where one of them is wider than float32, else in float32.

    Raises:
        DataError: the file or a key is missing, a shape does not fit, a value is not finite, or the protocol's rules
            name cameras and the file has others.
    """
    needs_cameras = protocol.same_person_same_camera or bool(protocol.camera_groups)
    wanted = ["query_features", "gallery_features", "query_persons", "gallery_persons"]
    cameras = ["query_cameras", "gallery_cameras"]
    try:
        stored = np.load(path, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            raise DataError(f"{path} holds one array; expected an .npz file with {', '.join(wanted)}")
        with stored:
            missing = [key for key in wanted + cameras * needs_cameras if key not in stored.files]
            if missing:
                raise DataError(f"{path} has no {', '.join(missing)}; it has {', '.join(stored.files) or 'nothing'}")
            arrays = {key: stored[key] for key in wanted + cameras if key in stored.files}
    except DataError:
        raise
    except Exception as error:  # whatever numpy, zipfile and zlib raise for a damaged file
        raise DataError(f"{path}: not an .npz file that can be read without pickles, or damaged ({error})") from error
    wide = any(arrays[key].dtype.itemsize > 4 for key in wanted[:2])
    query, gallery = (_unit(path, key, arrays.pop(key), wide) for key in wanted[:2])
    if query.shape[1] != gallery.shape[1]:
        raise DataError(f"{path}: query features have {query.shape[1]} numbers, gallery features {gallery.shape[1]}")
    sizes = {"query": len(query), "gallery": len(gallery)}
    columns = {key: _labels(path, key, array, sizes[key.split("_")[0]]) for key, array in arrays.items()}
    if protocol.name == sysu.PROTOCOL.name:
        _check_cameras(path, columns)
    persons = columns["query_persons"], columns["gallery_persons"]
    labels = Labels(*persons, columns.get("query_cameras"), columns.get("gallery_cameras"), protocol)
    return FeatureFile(query, gallery, labels)


def score_file(path: Path | str, settings: FileSettings) -> tuple[JsonObject, dict[str, list[Scores]]]:
    """Score a feature file; returns the result (as it is written to JSON) and each feature's scores.

    The one feature is called ``file``; with re-ranking the result has a second row of scores under another name. It
    says protocol and rules, hash of the file, counts, re-ranking (null when there was none), scores, and 95 %
    intervals over test persons.

    Raises:
        UsageError: no such protocol, or no query with a match.
        DataError: the file is not as ``read_features`` describes.
    """
    protocol = protocol_named(settings.protocol)
    features = read_features(path, protocol)
    device, rerank = resolve_device(settings.device), settings.rerank
    query, gallery = features.query_features.to(device), features.gallery_features.to(device)
    scores = {_FEATURE: [score_features(query, gallery, features.labels, settings.max_rank)]}
    if rerank.method != "none":
        reranked = score(reranked_distances(query, gallery, rerank), features.labels, settings.max_rank)
        scores[reranked_name(_FEATURE, rerank)] = [reranked]
    trial = {
        "name": "file",
        "queries": len(query),
        "gallery": len(gallery),
        "drawn": "by the program that made the features",
        "cause": "gallery",
    }
    result = {
        "model": str(path),
        "data": {"name": "features file", "mode": settings.protocol, "hash": _label_hash(features.labels)},
        **describe_scores(protocol, [trial], _FEATURE, scores),
        "comparable": None,
        "rerank": None if rerank.method == "none" else dataclasses.asdict(rerank),
        "corrupted": None,
        "weights": None,
        "sha256": sha256(path),
        "dimension": gallery.shape[1],
        "notes": zero_notes({"query_features": query, "gallery_features": gallery}),
    }
    return result, scores


def write_result(path: Path | str, result: JsonObject, scores: Mapping[str, Sequence[Scores]]) -> None:
    """Write the JSON of ``score_file`` and, beside it, the query scores that comparisons need."""
    path = Path(path)
    arrays = path.with_suffix(".queries.npz")
    write_query_scores(arrays, scores)
    write_json(path, {**result, "per_query": arrays.name})


def _unit(path: Path | str, key: str, array: NDArray[np.generic], wide: bool) -> Tensor:
    if array.ndim != 2 or array.dtype.kind != "f" or 0 in array.shape:
        raise DataError(f"{path}: {key} must be floating point (images, numbers), found {array.dtype} {array.shape}")
    with np.errstate(over="ignore"):  # beyond float64's range: infinite, which is refused below
        features = torch.from_numpy(array.astype(np.float64 if wide else np.float32, copy=False))
    lengths = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    odd = ~lengths[:, 0].isfinite() | (lengths[:, 0] < _SHORTEST)  # squares may leave the range that numbers are in
    if bool(odd.any()):
        rows = odd.nonzero()[:, 0]
        largest = features[rows].abs().amax(dim=1, keepdim=True)
        if not bool(largest.isfinite().all()):
            row = int(rows[~largest[:, 0].isfinite()][0])
            raise DataError(f"{path}: {key} row {row} holds a NaN or infinite number")
        features[rows] /= torch.where(largest > 0, largest, 1)
        lengths[rows] = torch.linalg.vector_norm(features[rows], dim=1, keepdim=True)
    return features.div_(lengths.clamp_(min=_SHORTEST))  # in place: a gallery may fill a good part of the memory


def _check_cameras(path: Path | str, columns: Mapping[str, NDArray[np.int64]]) -> None:
    """Refuse cameras that SYSU-MM01 does not have: its rule on cameras 2 and 3 would leave out the wrong images."""
    for key in ("query_cameras", "gallery_cameras"):
        unknown = sorted(set(columns[key].tolist()) - {*sysu.VISIBLE_CAMERAS, *sysu.INFRARED_CAMERAS})
        if unknown:
            raise DataError(
                f"{path}: {key} has {', '.join(map(str, unknown[:5]))}, but SYSU-MM01's cameras are 1 to 6 and its "
                "rules depend on their numbers; were they counted from 0?"
            )


def _labels(path: Path | str, key: str, array: NDArray[np.generic], count: int) -> NDArray[np.int64]:
    if array.shape != (count,):
        raise DataError(f"{path}: {key} must have {count} entries, one a feature, found shape {array.shape}")
    if array.dtype.kind not in "iuf" or bool((array != np.floor(array)).any()):
        raise DataError(f"{path}: {key} must be whole numbers, found {array.dtype}")
    if bool((np.abs(array.astype(np.float64)) >= _LARGEST_LABEL).any()):
        raise DataError(f"{path}: {key} holds a number that is no label (infinite, or 2^53 and more)")
    return array.astype(np.int64)


def _label_hash(labels: Labels) -> str:
    """A short hash of persons and cameras: two files with the same one can be compared query by query."""
    digest = hashlib.sha256()
    for name in ("gallery_cameras", "gallery_persons", "query_cameras", "query_persons"):
        values = getattr(labels, name)
        digest.update(name.encode())
        digest.update(b"" if values is None else values.tobytes())
    return digest.hexdigest()[:16]
