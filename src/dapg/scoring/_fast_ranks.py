"""Average precision, INP and first match of every query without sorting which image comes where.

All three need only the ranks of a query's matches. A rank is a count: how many gallery images that the rules keep are
nearer. So each row of distances is sorted by *value* alone (which runs on vector instructions), and the matches are
looked up in it. Where a match has exactly the distance of another image, gallery order decides, as in a stable sort.

The definition of the three numbers is ``metrics.score_query``; a test compares both.
"""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dapg.core.errors import UsageError
from dapg.core.types import UNKNOWN, Protocol
from dapg.scoring.labels import Labels

_CPU_ELEMENTS = 2_000_000
"""Distances worked on at a time by one thread: two copies of them fit in the processor's cache or nearly so."""
_CUDA_ELEMENTS = 32_000_000
_PRODUCT_ELEMENTS = 48_000_000
"""Distances made by one matrix product when they come from features: 192 MB of float32."""


def of_distances(distances: Float[Tensor, "Q G"], labels: Labels) -> Float[Tensor, "Q 3"]:
    """AP, INP and first match (0: none; AP and INP are NaN then) of each query, float64 on the CPU.

    Raises:
        UsageError: shapes that do not fit, or a NaN or infinite distance.
    """
    sheet = _Sheet.build(labels, distances.device)
    _check_shape(distances.shape, sheet)
    return _score_block(distances, 0, sheet)


def of_features(query: Float[Tensor, "Q D"], gallery: Float[Tensor, "G D"], labels: Labels) -> Float[Tensor, "Q 3"]:
    """As ``of_distances`` of negative dot products, block by block.

    Raises:
        UsageError: as ``of_distances``.
    """
    sheet = _Sheet.build(labels, query.device)
    _check_shape((len(query), len(gallery)), sheet)
    step = max(1, _PRODUCT_ELEMENTS // max(1, len(gallery)))
    parts = []
    for start in range(0, len(query), step):
        products = query[start : start + step] @ gallery.T
        parts.append(_score_block(products.neg_(), start, sheet))
        del products
    return _joined(parts)


def of_galleries(
    query: Float[Tensor, "Q D"],
    features: Float[Tensor, "N D"],
    galleries: Sequence[Int[Tensor, "_"]],
    labels: Sequence[Labels],
) -> list[Float[Tensor, "Q 3"]]:
    """The same queries against several galleries: each is multiplied once with every image that is in some gallery.

    Args:
        query: unit features.
        features: unit features of all images.
        galleries: for each gallery the rows of ``features`` in it.
        labels: for each gallery.

    Raises:
        UsageError: as ``of_distances``.
    """
    device = features.device
    galleries = [rows.to(device) for rows in galleries]
    union = torch.cat(list(galleries)).unique(sorted=True)  # type: ignore[no-untyped-call]
    columns = [torch.searchsorted(union, rows) for rows in galleries]
    sheets = [_Sheet.build(those, device) for those in labels]
    gallery_features = features[union]
    parts: list[list[Tensor]] = [[] for _ in galleries]
    step = max(1, _PRODUCT_ELEMENTS // max(1, len(union)))
    for start in range(0, len(query), step):
        distances = (query[start : start + step] @ gallery_features.T).neg_()
        for part, sheet, chosen in zip(parts, sheets, columns, strict=True):
            part.append(_score_block(distances.index_select(1, chosen), start, sheet))
    return [_joined(part) for part in parts]


def _joined(parts: Sequence[Float[Tensor, "_ 3"]]) -> Float[Tensor, "_ 3"]:
    return torch.cat(list(parts)) if parts else torch.empty(0, 3, dtype=torch.float64)


@contextlib.contextmanager
def one_thread_each() -> Iterator[int]:
    """Every operation on one thread within the block; gives the number of threads that are free for chunks instead.

    Splitting each of many small operations over threads mostly waits, worst on a machine that has other work.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class _Sheet:
    """The labels of one scoring, prepared once: who matches whom, and which pairs the rules leave out.

    Gallery columns are renumbered: junk is gone and images of one person stand together, so that a query's matches
    are the run ``starts[code]`` ... ``starts[code] + counts[code]``. ``columns`` holds the original column of each.
    """

    queries: int
    gallery: int
    query_cameras: Int[Tensor, "Q"] | None
    query_groups: Int[Tensor, "Q"] | None
    columns: Int[Tensor, "g"]
    identity: bool
    """True when ``columns`` is 0, 1, 2, ...: nothing has to be moved."""
    cameras: Int[Tensor, "g"] | None
    groups: Int[Tensor, "g"] | None
    starts: Int[Tensor, "n"]
    match_starts: Int[Tensor, "Q"]
    match_counts: Int[Tensor, "Q"]
    unique: bool

    @classmethod
    @one_thread_each()
    def build(cls, labels: Labels, device: torch.device) -> "_Sheet":
        protocol = labels.protocol
        query_cameras, gallery_cameras = (
            None if cameras is None else torch.tensor(cameras, device=device)
            for cameras in (labels.query_cameras, labels.gallery_cameras)
        )
        query_persons = torch.tensor(labels.query_persons, device=device)
        gallery_persons = torch.tensor(labels.gallery_persons, device=device)
        counted = torch.ones_like(gallery_persons, dtype=torch.bool)
        for junk in protocol.junk_persons:
            counted &= gallery_persons != junk
        columns = counted.nonzero()[:, 0]
        columns = columns[gallery_persons[columns].argsort(stable=True)]
        in_order = gallery_persons[columns]
        opens_run = torch.ones_like(in_order, dtype=torch.bool)
        opens_run[1:] = in_order[1:] != in_order[:-1]
        starts = opens_run.nonzero()[:, 0]
        persons, counts = in_order[starts], starts.new_tensor([*starts.tolist(), len(in_order)]).diff()
        codes = torch.searchsorted(persons, query_persons).clamp(max=max(0, len(persons) - 1))
        if len(persons):
            known = (persons[codes] == query_persons) & (query_persons > UNKNOWN)
            match_starts, match_counts = starts[codes] * known, counts[codes] * known
        else:
            match_starts = match_counts = torch.zeros_like(query_persons)
        same_camera = protocol.same_person_same_camera
        return cls(
            queries=len(query_persons),
            gallery=len(gallery_persons),
            query_cameras=query_cameras if same_camera else None,
            query_groups=_groups(query_cameras, protocol),
            columns=columns,
            identity=torch.equal(columns, torch.arange(len(gallery_persons), device=device)),
            cameras=_picked(gallery_cameras, columns) if same_camera else None,
            groups=_groups(_picked(gallery_cameras, columns), protocol),
            starts=starts,
            match_starts=match_starts,
            match_counts=match_counts,
            unique=protocol.unique_identity_cmc,
        )


def _picked(labels: Tensor | None, columns: Tensor) -> Tensor | None:
    return None if labels is None else labels[columns]


def _groups(cameras: Tensor | None, protocol: Protocol) -> Tensor | None:
    """Group number of each camera, counted from 0; -1 for cameras in no group; None without groups."""
    if not protocol.camera_groups or cameras is None:
        return None
    numbers = {group: number for number, group in enumerate(sorted(set(protocol.camera_groups.values())))}
    groups = torch.full_like(cameras, -1, dtype=torch.int64)
    for camera, group in protocol.camera_groups.items():
        groups[cameras == camera] = numbers[group]
    return groups


def _check_shape(shape: Sequence[int], sheet: _Sheet) -> None:
    if tuple(shape) != (sheet.queries, sheet.gallery):
        raise UsageError(
            f"{shape[0]} x {shape[1]} distances do not fit {sheet.queries} query and {sheet.gallery} gallery labels"
        )


def _score_block(distances: Float[Tensor, "b G"], first: int, sheet: _Sheet) -> Float[Tensor, "b 3"]:
    """AP, INP and first-match rank (0: no match) of queries ``first`` ..., in chunks that bound the memory."""
    with one_thread_each() as threads:
        limit = _CUDA_ELEMENTS if distances.is_cuda else _CPU_ELEMENTS
        step = max(1, min(limit // max(1, distances.shape[1]), -(-len(distances) // threads)))
        starts = range(0, len(distances), step)

        def chunk(start: int) -> Tensor:
            return _score_chunk(distances[start : start + step], first + start, sheet)

        if threads < 2 or len(starts) < 2 or distances.is_cuda:
            results = [chunk(start) for start in starts]
        else:
            with ThreadPoolExecutor(threads) as pool:
                results = list(pool.map(chunk, starts))
    return _joined(results)


def _score_chunk(distances: Float[Tensor, "b G"], first: int, sheet: _Sheet) -> Float[Tensor, "b 3"]:
    """One chunk: leave out, look up, count."""
    rows = slice(first, first + len(distances))
    chosen = distances.clone() if sheet.identity else distances.index_select(1, sheet.columns)
    if chosen.dtype in (torch.float16, torch.bfloat16):
        chosen = chosen.float()
    if not bool(chosen.sum().isfinite()) and not bool(
        chosen.isfinite().all()
    ):  # the sum alone is fast, but may overflow
        raise UsageError("a distance is NaN or infinite: check the features that it comes from")
    columns, is_match = _match_columns(chosen, rows, sheet)
    counts = is_match.sum(dim=1)
    if columns.shape[1] == 0:
        return _rows_of(torch.full_like(counts, torch.nan, dtype=torch.float64), counts, counts)
    _leave_out_groups(chosen, rows, sheet)
    values = chosen.gather(1, columns).masked_fill_(~is_match, torch.inf)
    ranks = _ranks(chosen, values, columns, is_match, sheet)
    steps = torch.arange(1, ranks.shape[1] + 1, device=ranks.device)
    precision = (steps / ranks.double()).masked_fill(~(steps <= counts[:, None]), 0)
    average_precision = precision.sum(dim=1) / counts  # 0 / 0 is NaN: no match
    last = ranks.gather(1, (counts - 1).clamp(min=0)[:, None])[:, 0]
    firsts = _person_ranks(chosen, values, columns, sheet) if sheet.unique else ranks[:, 0]
    firsts = firsts.masked_fill(counts == 0, 0)
    return _rows_of(average_precision, counts.double() / last.masked_fill(counts == 0, 0), firsts)


def _rows_of(average_precision: Tensor, penalty: Tensor, firsts: Tensor) -> Float[Tensor, "b 3"]:
    penalty = torch.where(average_precision.isnan(), torch.nan, penalty.double())
    return torch.stack([average_precision, penalty, firsts.double()], dim=1).cpu()


def _match_columns(
    chosen: Float[Tensor, "b g"], rows: slice, sheet: _Sheet
) -> tuple[Int[Tensor, "b P"], Bool[Tensor, "b P"]]:
    """Columns of each query's matches, and which of the P places hold a match that the rules keep.

    Images of the query's person that the rules leave out are set to infinity in ``chosen``.
    """
    starts, counts = sheet.match_starts[rows], sheet.match_counts[rows]
    most = int(counts.max()) if len(counts) else 0
    places = torch.arange(most, device=chosen.device)
    is_match = places < counts[:, None]
    columns = (starts[:, None] + places).masked_fill_(~is_match, 0)
    if most == 0:
        return columns, is_match
    if sheet.cameras is not None and sheet.query_cameras is not None:
        left_out = is_match & (sheet.cameras[columns] == sheet.query_cameras[rows][:, None])
        at = left_out.nonzero()
        chosen[at[:, 0], columns[at[:, 0], at[:, 1]]] = torch.inf
        is_match &= ~left_out
    if sheet.groups is not None and sheet.query_groups is not None:
        groups = sheet.query_groups[rows][:, None]
        is_match &= (sheet.groups[columns] != groups) | (groups < 0)
    return columns, is_match


def _leave_out_groups(chosen: Float[Tensor, "b g"], rows: slice, sheet: _Sheet) -> None:
    """Set gallery images by cameras of the query's group to infinity, whatever the person."""
    if sheet.groups is None or sheet.query_groups is None:
        return
    query_groups = sheet.query_groups[rows]
    for group in range(int(sheet.groups.max()) + 1 if len(sheet.groups) else 0):
        queries, columns = (query_groups == group).nonzero()[:, 0], (sheet.groups == group).nonzero()[:, 0]
        chosen[queries[:, None], columns] = torch.inf


def _ranks(
    chosen: Float[Tensor, "b g"],
    values: Float[Tensor, "b P"],
    columns: Int[Tensor, "b P"],
    is_match: Bool[Tensor, "b P"],
    sheet: _Sheet,
) -> Int[Tensor, "b P"]:
    """Ranks of the matches from 1, ascending along each row; places without a match hold large numbers."""
    in_order = _sort_values(chosen)
    nearer = torch.searchsorted(in_order, values)
    tied = (torch.searchsorted(in_order, values, right=True) - nearer > 1) & is_match
    ranks = nearer + 1
    for row, place in tied.nonzero().tolist():
        same = (chosen[row] == values[row, place]).nonzero()[:, 0]
        ranks[row, place] += (sheet.columns[same] < sheet.columns[columns[row, place]]).sum()
    return ranks.masked_fill_(~is_match, torch.iinfo(torch.int64).max).sort(dim=1).values


def _sort_values(distances: Float[Tensor, "b g"]) -> Float[Tensor, "b g"]:
    """Each row in ascending order. NumPy's sort of plain values is vectorised and several times faster than torch's."""
    if distances.is_cuda:
        return distances.sort(dim=1).values
    return torch.from_numpy(np.sort(distances.numpy(), axis=1))


def _person_ranks(
    chosen: Float[Tensor, "b g"], values: Float[Tensor, "b P"], columns: Int[Tensor, "b P"], sheet: _Sheet
) -> Int[Tensor, "b"]:
    """Place of the query's person when every person stands at its best image, from 1."""
    best = _best_per_person(chosen, sheet.starts)
    own = values.min(dim=1).values
    nearer = (best < own[:, None]).sum(dim=1)
    tied = ((best == own[:, None]).sum(dim=1) > 1) & own.isfinite()
    for row in tied.nonzero()[:, 0].tolist():
        first = sheet.columns[columns[row][values[row] == own[row]]].min()
        same = (chosen[row] == own[row]).nonzero()[:, 0]
        earlier = same[sheet.columns[same] < first]
        persons = torch.searchsorted(sheet.starts, earlier, right=True) - 1
        passed = torch.zeros_like(best[row], dtype=torch.bool).index_fill_(0, persons, True)
        nearer[row] += (passed & (best[row] == own[row])).sum()
    return nearer + 1


def _best_per_person(distances: Float[Tensor, "b g"], starts: Int[Tensor, "n"]) -> Float[Tensor, "b n"]:
    """Smallest distance in each run of columns."""
    if not distances.is_cuda:
        return torch.from_numpy(np.minimum.reduceat(distances.numpy(), starts.numpy(), axis=1))
    runs = torch.searchsorted(starts, torch.arange(distances.shape[1], device=distances.device), right=True) - 1
    empty = distances.new_full((len(distances), len(starts)), torch.inf)
    return empty.scatter_reduce_(1, runs.expand(len(distances), -1), distances, "amin")
