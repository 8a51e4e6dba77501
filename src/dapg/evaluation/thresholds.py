"""Thresholds from labelled images: same person, ask a person, unknown; how often each errs, and how errors drift.

Everything follows ``scoring/open_set.py`` (ISO/IEC 19795-1). Persons are divided in half, again and again: thresholds
and probabilities are set on one half and read on the other. Within a half, half of the persons are enrolled; the others
search as strangers. What is stored is the mean of the thresholds, and what is said of it was read on other persons.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dapg.core.device import resolve_device
from dapg.core.errors import UsageError
from dapg.core.progress import progress_bar
from dapg.core.ranges import Count, CountOrZero, Pixels, Processes, Range, Seed
from dapg.core.runtime import Runtime
from dapg.core.seeds import derive_seed
from dapg.core.settings import run_only
from dapg.core.train_config import BackboneConfig, DataConfig
from dapg.core.types import UNKNOWN, JsonObject, Modality, Record
from dapg.corruptions import library
from dapg.data.base import Dataset
from dapg.data.loading import OnBadImage
from dapg.data.source import open_dataset, refuse_parts, root_of
from dapg.evaluation.corrupted_sets import CorruptedDataset, CorruptionPolicy
from dapg.features.encoders import Encoder
from dapg.features.extract import Unreadable, extract
from dapg.features.table import FeatureTable
from dapg.scoring.open_set import (
    REPLICATES,
    Measured,
    Trials,
    best_by_person,
    comparisons,
    det,
    miss_rate,
    missed_at,
    passed_at,
    person_splits,
    searches,
    split_searches,
    threshold_at,
)

_BINS = 10
_KNOTS = 64
_FALSE_ACCEPTS = (0.05, 0.01)
_FALSE_POSITIVES = (0.1, 0.01)
_PAIRS = [(query, gallery) for query in Modality for gallery in Modality]
Rate = Annotated[float, Range(0.0001, 0.5)]


@dataclass(frozen=True)
class ThresholdSettings:
    """What thresholds are set on, and what they promise."""

    data: DataConfig = field(default_factory=DataConfig)
    """Labelled images of persons that the network has not learnt from."""
    false_positives: Rate = 0.01
    """FPIR at the threshold of "same"; of too few persons the smallest that can be measured."""
    misses: Rate = 0.1
    """FNIR at the threshold of "ask": below it even persons of the gallery are called unknown."""
    splits: Annotated[int, Range(2, 100)] = 10
    """Divisions of the persons."""
    drift: tuple[str, ...] = ()
    """Corruptions of the query under which the thresholds are read: all, or names and families; none if empty."""
    drift_queries: CountOrZero = 300
    """Queries of each kind of light that are corrupted; 0: all."""
    replicates: Count = REPLICATES
    """Draws of the bootstrap over persons."""
    seed: Seed = 0
    """Of the divisions and the bootstrap."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """Network for ``random``, ``imagenet`` and weights files; a run brings its own."""
    height: Pixels = 256
    """Rows of the input, where the model does not say."""
    width: Pixels = 128
    """Columns of the input, where the model does not say."""
    on_bad_image: OnBadImage = "skip"
    """An image that cannot be read: leave it out, and list it in the result, or stop (fail)."""
    out: str = run_only("")
    """Also write the result to this JSON file."""
    html: str = run_only("")
    """Also write a page with curves."""
    batch_size: Count = run_only(64)
    """Images encoded at once."""
    workers: Processes = run_only(2)
    """Loader processes."""
    device: str = run_only("auto")
    """auto, cpu, cuda or cuda:N."""


@dataclass(frozen=True)
class _Table:
    """Similarity of each query to each person of the gallery, at that person's most similar image."""

    best: Float[np.ndarray, "Q P"]
    persons: Int[np.ndarray, "P"]
    queries: Int[np.ndarray, "Q"]
    """Persons of the queries."""

    def of(self, people: frozenset[int]) -> "_Table":
        """The part in which only these persons search and are enrolled."""
        rows, columns = np.isin(self.queries, list(people)), np.isin(self.persons, list(people))
        return _Table(self.best[rows][:, columns], self.persons[columns], self.queries[rows])


def measure(encoder: Encoder, infrared: str, settings: ThresholdSettings) -> JsonObject:
    """Thresholds, probabilities, error rates with intervals, curves, and drift, for each pair of kinds of light.

    Args:
        encoder: whose headline is measured.
        infrared: kind of infrared that it has learnt from: near, thermal or unknown.
        settings: the rest.

    Raises:
        UsageError: too few persons for every pair, another infrared than the network's, or scikit-learn is missing.
    """
    library.expand(settings.drift)  # an unknown one is named before the images are encoded
    refuse_parts(settings.data, ("subset", "persons"), "thresholds are set on all labelled persons of the split")
    dataset = open_dataset(settings.data)
    split = settings.data.split or dataset.tested_split()
    kind = dataset.infrared
    if "unknown" not in (kind, infrared) and kind != infrared:
        raise UsageError(f"{dataset.title} is {kind} infrared; the network has learnt {infrared} infrared")
    records = [record for record in dataset.records(split) if record.person != UNKNOWN]
    runtime = Runtime(resolve_device(settings.device), settings.batch_size, settings.workers, progress=True)
    unreadable: Unreadable = {}
    table = extract(encoder, dataset, records, runtime, unreadable if settings.on_bad_image == "skip" else None)
    features, records = _rounded(table[encoder.headline]), list(table.records)
    pairs, too_few = list[JsonObject](), list[str]()
    for query, gallery in _PAIRS:
        compared = _table(features, records, features, records, (query, gallery))
        if not len(compared.best) or not len(compared.persons):
            continue
        try:
            pairs.append({"query": query.name.lower(), "gallery": gallery.name.lower(), **_pair(compared, settings)})
        except _TooFew as error:
            too_few.append(f"{query.name.lower()} query, {gallery.name.lower()} gallery: {error}")
    if not pairs:
        remedy = "label more of them, or choose the split that has them with --data.split"
        why = "; ".join([*too_few, remedy]) if too_few else "no person is seen twice"
        raise UsageError(f"{dataset.title}, split {split}: {why}")
    drift = _drift(encoder, dataset, settings, table, (features, pairs, runtime)) if settings.drift else []
    return {
        "infrared": infrared if kind == "unknown" else kind,
        "data": {"name": dataset.title, "root": str(root_of(settings.data) or "embedded"), "split": split},
        "persons": len({record.person for record in records}),
        "pictures": len(records),
        "unreadable": unreadable,
        "pairs": pairs,
        "too_few": too_few,
        "drift": drift,
    }


def _rounded(features: Float[Tensor, "N D"]) -> NDArray[np.float32]:
    """Of unit length, rounded as a gallery keeps them."""
    array: NDArray[np.float32] = functional.normalize(features).half().float().numpy()
    return array


def _table(
    queries: NDArray[np.float32],
    query_records: Sequence[Record],
    gallery: NDArray[np.float32],
    gallery_records: Sequence[Record],
    pair: tuple[Modality, Modality],
    everybody: bool = False,
) -> _Table:
    """A query's own image, and other images of its person by its own camera, do not count.

    Queries of persons of whom nothing else is there do not count either. Persons whom no query shows are enrolled if
    ``everybody`` is: a stranger may resemble them, too.
    """
    rows = [place for place, record in enumerate(query_records) if record.modality == pair[0]]
    columns = [place for place, record in enumerate(gallery_records) if record.modality == pair[1]]
    asked, there = [query_records[row] for row in rows], [gallery_records[column] for column in columns]
    who, whom = (np.array([record.person for record in side], dtype=np.int64) for side in (asked, there))
    where, place = (np.array([record.camera for record in side], dtype=np.int64) for side in (asked, there))
    if not rows or not columns:
        return _Table(np.zeros((0, 0), np.float32), whom[:0], who[:0])
    left_out: Bool[np.ndarray, "Q G"] = (who[:, None] == whom) & (where[:, None] == place)
    persons, best = best_by_person(queries[rows] @ gallery[columns].T, whom, left_out)
    own = best[np.arange(len(who)), np.searchsorted(persons, who).clip(max=len(persons) - 1)]
    usable = np.isin(who, persons) & (own > -np.inf)
    seen = np.isin(persons, who[usable]) | everybody
    return _Table(best[usable][:, seen], persons[seen], who[usable])


_FEWEST = 16
"""Persons of whom a quarter, the strangers of one half, are four: of three no rate below 3 / 3 can be told."""


class _TooFew(UsageError):
    """Of one pair of kinds of light; others may have enough."""


def _pair(table: _Table, settings: ThresholdSettings) -> JsonObject:
    if len(table.persons) < _FEWEST:
        raise _TooFew(
            f"{len(table.persons)} persons are too few to set a threshold on (at least {_FEWEST}, better hundreds)"
        )
    halves, count = person_splits(table.persons, settings.splits, 0.5, settings.seed), settings.replicates
    everybody = frozenset(table.persons.tolist())
    set_on = [_trials(table.of(half), settings.seed + number) for number, half in enumerate(halves)]
    read_on = [_trials(table.of(everybody - half), settings.seed + number) for number, half in enumerate(halves)]
    strangers = min(len(np.unique(trials.non_mated_persons)) for trials in (*set_on, *read_on))
    rate = max(settings.false_positives, 3 / strangers)
    same = [threshold_at(trials.non_mated, rate) for trials in set_on]
    ask = [
        min(float(np.quantile(trials.mated, settings.misses, method="lower")), top)
        for trials, top in zip(set_on, same, strict=True)
    ]
    measured = {
        "strangers called same": passed_at(read_on, same, count),
        "persons not called same": missed_at(read_on, same, count),
        "strangers not called unknown": passed_at(read_on, ask, count),
        "persons called unknown": missed_at(read_on, ask, count),
    }
    known = person_splits(table.persons, settings.splits, 0.5, settings.seed)
    whole = split_searches(table.best, table.persons, table.queries, known)
    compared = comparisons(table.best, table.persons, table.queries)
    knots, reliability = _probabilities(table, halves, settings.seed)
    few = f"; {settings.false_positives:.1%} would need {3 / settings.false_positives:.0f} strangers"
    rates = {
        **{f"FNIR at FPIR {rate:.0%}": miss_rate(whole, rate, count) for rate in _FALSE_POSITIVES},
        **{f"TAR at FAR {rate:.0%}": _complement(miss_rate([compared], rate, count)) for rate in _FALSE_ACCEPTS},
    }
    return {
        "same": float(np.mean(same)),
        "ask": float(np.mean(ask)),
        "scores": knots[0],
        "probabilities": knots[1],
        "enrolled": set_on[0].enrolled,
        "persons": len(table.persons),
        "queries": len(table.queries),
        "aimed": {"FPIR": rate, "FNIR": settings.misses, "note": few if rate > settings.false_positives else ""},
        "read": {name: _plain(value) for name, value in measured.items()},
        "rates": {name: _plain(value) for name, value in rates.items()},
        "det": _det(whole),
        "reliability": reliability,
        "splits": {"same": same, "ask": ask},
        "said": f"{set_on[0].enrolled} persons enrolled: "
        + "; ".join(f"{name} {value}" for name, value in measured.items()),
    }


def _trials(table: _Table, seed: int) -> Trials:
    """Half of the persons are enrolled."""
    (known,) = person_splits(table.persons, 1, 0.5, derive_seed("enrolled", seed))
    unknown = frozenset(table.persons.tolist()) - known
    return searches(table.best, table.persons, table.queries, unknown)


def _complement(missed: Measured) -> Measured:
    if missed.value is None or missed.low is None or missed.high is None:
        return missed
    return replace(missed, value=1 - missed.value, low=1 - missed.high, high=1 - missed.low)


def _plain(value: Measured) -> JsonObject:
    return {**asdict(value), "text": str(value)}


def _det(trials: Sequence[Trials]) -> JsonObject:
    """The curves of all splits as one, by the mean of FNIR at each FPIR."""
    rates = np.linspace(0, 1, 101)
    curves = []
    for split in trials:
        curve = det(split.mated, split.non_mated)
        curves.append([float(curve.false_negative[curve.false_positive <= rate][-1]) for rate in rates])
    return {"FPIR": rates.round(4).tolist(), "FNIR": np.mean(curves, axis=0).round(4).tolist()}


def _probabilities(
    table: _Table, halves: Sequence[frozenset[int]], seed: int
) -> tuple[tuple[list[float], list[float]], list[JsonObject]]:
    """Knots of the calibrated probability that query and person are the same; and how reliable it is on others.

    Isotonic regression over all comparisons of a query with an enrolled person, half of the searching persons being
    strangers, so that the prior is that of such a gallery.
    """
    try:
        from sklearn.isotonic import IsotonicRegression
    except ImportError as error:
        raise UsageError("thresholds need scikit-learn: pip install 'dapg[plot]'") from error
    pooled: list[tuple[NDArray[np.float64], NDArray[np.bool_]]] = []
    read: list[NDArray[np.float64]] = []
    everybody = frozenset(table.persons.tolist())
    for number, half in enumerate(halves):
        sides = [_comparisons(table.of(side), seed + number) for side in (half, everybody - half)]
        (scores, same, _), (others, truth, who) = sides
        fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, same)
        read.append(np.stack([fitted.predict(others), truth, who], axis=1))
        pooled.append((scores, same))
    whole = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
    whole.fit(*(np.concatenate(side) for side in zip(*pooled, strict=True)))
    knots = np.stack([whole.X_thresholds_, whole.y_thresholds_])
    levels = np.searchsorted(knots[1], np.linspace(0, knots[1, -1], _KNOTS)).clip(max=knots.shape[1] - 1)
    chosen = knots[:, np.unique(np.concatenate([[0], levels, [knots.shape[1] - 1]]))]
    return (chosen[0].round(5).tolist(), chosen[1].round(5).tolist()), _reliability(np.concatenate(read), seed)


def _comparisons(table: _Table, seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]:
    """Scores, whether both are the same person, and the searching person, of a gallery in which half are enrolled."""
    (known,) = person_splits(table.persons, 1, 0.5, derive_seed("enrolled", seed))
    columns = np.isin(table.persons, list(known))
    best = table.best[:, columns].astype(np.float64)
    same = table.queries[:, None] == table.persons[columns]
    who = np.broadcast_to(table.queries[:, None], best.shape)
    counted = best > -np.inf
    return best[counted], same[counted], who[counted]


def _reliability(read: Float[np.ndarray, "N 3"], seed: int) -> list[JsonObject]:
    """Bins of predicted probability: mean prediction, share that was right, and its interval over searching persons."""
    persons, numbers = np.unique(read[:, 2], return_inverse=True)
    generator = np.random.default_rng(derive_seed("reliability", seed))
    draws = generator.multinomial(len(persons), np.full(len(persons), 1 / len(persons)), size=REPLICATES)
    bins = np.minimum((read[:, 0] * _BINS).astype(np.int64), _BINS - 1)
    lines = []
    for place in range(_BINS):
        rows = bins == place
        if not rows.any():
            continue
        counts, right = (
            np.bincount(numbers[rows], weights, len(persons)).astype(np.float64) for weights in (None, read[rows, 1])
        )
        drawn = draws @ counts
        shares = (draws @ right)[drawn > 0] / drawn[drawn > 0]
        low, high = np.quantile(shares, [0.025, 0.975])
        line = {"predicted": read[rows, 0].mean(), "right": read[rows, 1].mean(), "low": low, "high": high}
        lines.append({**{name: round(float(v), 4) for name, v in line.items()}, "comparisons": int(rows.sum())})
    return lines


def _drift(
    encoder: Encoder,
    dataset: Dataset,
    settings: ThresholdSettings,
    table: FeatureTable,
    clean: tuple[NDArray[np.float32], list[JsonObject], Runtime],
) -> list[JsonObject]:
    """The thresholds of clean images, read on searches with corrupted query images."""
    features, pairs, runtime = clean
    runtime = replace(runtime, progress=False)
    gallery = table.records
    names, lines = library.expand(settings.drift), list[JsonObject]()
    conditions = [(name, severity) for name in names if name != library.NONE for severity in library.SEVERITIES]
    asked = [gallery[place] for place in _drawn(gallery, settings.drift_queries)]
    with progress_bar("drift", "condition", len(conditions)) as bar:
        for name, severity in conditions:
            view = CorruptedDataset(
                dataset, CorruptionPolicy((name,), "both", (severity,), height=0, width=0, seed=settings.seed)
            )
            queries = _rounded(extract(encoder, view, view.views_of(asked), runtime)[encoder.headline])
            for pair in pairs:
                lights = (Modality[pair["query"].upper()], Modality[pair["gallery"].upper()])
                compared = _table(queries, asked, features, gallery, lights, everybody=True)
                lines.append({"type": name, "severity": severity, **_read_again(compared, pair, settings)})
            bar.update(1)
    return lines


def _drawn(records: Sequence[Record], count: int) -> list[int]:
    """Places of evenly spaced records, ``count`` of each kind of light, or all where there are fewer; 0: all."""
    places = []
    for modality in Modality:
        of_kind = [place for place, record in enumerate(records) if record.modality == modality]
        taken = min(count or len(of_kind), len(of_kind))
        places += [of_kind[number * len(of_kind) // taken] for number in range(taken)]
    return places


def _read_again(table: _Table, pair: JsonObject, settings: ThresholdSettings) -> JsonObject:
    """Means over splits, without intervals: a condition is one of a hundred."""
    halves = person_splits(table.persons, settings.splits, 0.5, settings.seed)
    everybody, sides = frozenset(table.persons.tolist()), list[Trials]()
    for number, half in enumerate(halves):
        with contextlib.suppress(UsageError):  # the few queries that were drawn may be of strangers alone, or of none
            sides.append(_trials(table.of(everybody - half), settings.seed + number))
    errors = {
        "strangers called same": [float(np.mean(side.non_mated >= pair["same"])) for side in sides],
        "persons not called same": [float(np.mean(side.mated < pair["same"])) for side in sides],
        "persons called unknown": [float(np.mean(side.mated < pair["ask"])) for side in sides],
    }
    means = {name: round(float(np.mean(values)), 4) if values else None for name, values in errors.items()}
    return {"query": pair["query"], "gallery": pair["gallery"], **means}
