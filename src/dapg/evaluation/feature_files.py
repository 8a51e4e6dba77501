"""Scores of features from any program: an ``.npz`` file and a protocol's name are enough."""

import dataclasses
import hashlib
import zipfile
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
"""Names that ``--protocol`` accepts. ``plain`` leaves nothing out and counts pictures, like ``regdb``."""
_FEATURE = "file"


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
    are floating point of any width, labels whole numbers (a float array of whole numbers is fine).

    Raises:
        DataError: the file or a key is missing, a shape does not fit, or a value is not finite.
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
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{path}: not an .npz file that can be read without pickles ({error})") from error
    query, gallery = (_unit(path, key, arrays.pop(key)) for key in wanted[:2])
    if query.shape[1] != gallery.shape[1]:
        raise DataError(f"{path}: query features have {query.shape[1]} numbers, gallery features {gallery.shape[1]}")
    sizes = {"query": len(query), "gallery": len(gallery)}
    columns = {key: _labels(path, key, array, sizes[key.split("_")[0]]) for key, array in arrays.items()}
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
    }
    return result, scores


def write_result(path: Path | str, result: JsonObject, scores: Mapping[str, Sequence[Scores]]) -> None:
    """Write the JSON of ``score_file`` and, beside it, the query scores that comparisons need."""
    path = Path(path)
    arrays = path.with_suffix(".queries.npz")
    write_query_scores(arrays, scores)
    write_json(path, {**result, "per_query": arrays.name})


def _unit(path: Path | str, key: str, array: NDArray[np.generic]) -> Tensor:
    if array.ndim != 2 or array.dtype.kind != "f" or 0 in array.shape:
        raise DataError(f"{path}: {key} must be floating point (pictures, numbers), found {array.dtype} {array.shape}")
    features = torch.from_numpy(array if array.dtype.itemsize > 2 else array.astype(np.float32))
    if features.dtype not in (torch.float32, torch.float64):
        raise DataError(f"{path}: {key} has the unusual type {array.dtype}; use float16, float32 or float64")
    lengths = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    if not bool(lengths.isfinite().all()):
        row = int((~lengths[:, 0].isfinite()).nonzero()[0, 0])
        raise DataError(f"{path}: {key} row {row} holds a NaN or infinite number")
    return features.div_(lengths.clamp_(min=1e-12))  # in place: a gallery may fill a good part of the memory


def _labels(path: Path | str, key: str, array: NDArray[np.generic], count: int) -> NDArray[np.int64]:
    if array.shape != (count,):
        raise DataError(f"{path}: {key} must have {count} entries, one a feature, found shape {array.shape}")
    if array.dtype.kind not in "iuf" or bool((array != np.floor(array)).any()):
        raise DataError(f"{path}: {key} must be whole numbers, found {array.dtype}")
    return array.astype(np.int64)


def _label_hash(labels: Labels) -> str:
    """A short hash of persons and cameras: two files with the same one can be compared query by query."""
    digest = hashlib.sha256()
    for name in ("gallery_cameras", "gallery_persons", "query_cameras", "query_persons"):
        values = getattr(labels, name)
        digest.update(name.encode())
        digest.update(b"" if values is None else values.tobytes())
    return digest.hexdigest()[:16]
