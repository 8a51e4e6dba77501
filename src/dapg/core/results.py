"""What later stages and pages read in a run's ``result.json`` and ``config.yaml``: shapes for ``core/schema.py``."""

from typing import NotRequired, TypedDict

from dapg.core.errors import DataError
from dapg.core.ranges import CountOrZero
from dapg.core.schema import REMEDY, checked


class TrainingFacts(TypedDict):
    """What a method must know of its data before its weights fit."""

    pictures: CountOrZero
    persons: list[int]


class Network(TypedDict):
    """What a trained method needs beside its weights."""

    facts: TrainingFacts
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class _Source(TypedDict):
    sha256: str | None
    source: str


class TrainingData(TypedDict):
    """What was trained on."""

    pictures: CountOrZero
    hash: str
    version: NotRequired[str | int | None]


class Training(Network):
    """A finished training."""

    steps: CountOrZero
    pictures_seen: CountOrZero
    seconds: float
    pictures_per_second: float
    data_wait: float
    logs: dict[str, float | None]
    bad_images: dict[str, list[str]]
    data: TrainingData
    init: str | _Source
    extended_from: list[dict[str, object]]
    precision: NotRequired[str]


class TrainingSettings(TypedDict):
    """``config.yaml`` of a training."""

    stage: str
    name: str
    seed: CountOrZero
    backbone: dict[str, object]
    method: dict[str, object]
    data: dict[str, object]
    train: dict[str, object]


class ReportedTraining(TypedDict, total=False):
    """What a page shows of a training."""

    steps: CountOrZero
    seconds: float | None
    pictures_per_second: float | None
    data_wait: float
    logs: dict[str, float | None]
    bad_images: dict[str, object]
    poses: list[str]
    generator: dict[str, object]


class TestData(TypedDict):
    """What was scored."""

    name: str
    mode: str


class Trial(TypedDict):
    """One split."""

    name: str
    cause: str
    drawn: NotRequired[str]
    """By what it was drawn, such as a list of the data set, or a seed."""


class FeatureScores(TypedDict):
    """Of one feature, as fractions."""

    cmc: list[float]
    mAP: float
    mINP: float


class Interval(TypedDict):
    """Of a measure."""

    low: float
    high: float
    persons: CountOrZero


class Levels(TypedDict):
    """Spread by one cause."""

    levels: CountOrZero
    std: float


Intervals = TypedDict("Intervals", {"rank-1": Interval, "mAP": Interval, "mINP": Interval})
Spread = TypedDict("Spread", {"rank-1": dict[str, Levels], "mAP": dict[str, Levels], "mINP": dict[str, Levels]})


class _Causes(TypedDict):
    repeat: Levels
    trial: Levels


_CorruptedSpread = TypedDict("_CorruptedSpread", {"rank-1": _Causes})
_Relative = TypedDict("_Relative", {"rank-1": float | None, "mAP": float | None})
_CorruptedScores = TypedDict(
    "_CorruptedScores",
    {"rank-1": float, "mAP": float, "mINP": float, "relative": _Relative, "spread": _CorruptedSpread},
)


class _Corrupted(TypedDict):
    list: NotRequired[dict[str, object]]
    name: str
    group: str
    types: NotRequired[list[str]]
    severities: NotRequired[list[int]]
    scores: dict[str, _CorruptedScores]
    per_query: NotRequired[list[str]]


class Picture(TypedDict):
    """An entry of a ranked list."""

    picture: str
    path: str
    person: int
    camera: int
    match: NotRequired[bool | None]
    similarity: NotRequired[float | None]
    corruption: NotRequired[str]


class RankedList(TypedDict):
    """A query and its answers."""

    query: Picture
    answers: list[Picture]


class Evaluation(TypedDict):
    """A finished evaluation, as pages and comparisons read it."""

    feature: str
    scores: dict[str, FeatureScores]
    data: TestData
    trials: list[dict[str, object]]
    intervals: NotRequired[Intervals]
    spread: NotRequired[Spread]
    comparable: NotRequired[bool | None]
    weights: NotRequired[str | None]
    notes: NotRequired[list[str]]
    corrupted: NotRequired[list[_Corrupted] | None]
    ranked_lists: NotRequired[list[RankedList]]
    corrupted_lists: NotRequired[list[RankedList]]


class Environment(TypedDict, total=False):
    """``environment.json``."""

    command: list[str]
    dapg_version: str
    commit: str | None
    packages: dict[str, str]
    device: str
    machine: str


def check_evaluation(result: object, where: object) -> None:
    """Refuse what is no evaluation, or has no scores of the feature that it reports.

    Raises:
        DataError: says what is missing.
    """
    scored = checked(result, Evaluation, where)
    if not scored["scores"].get(scored["feature"], {}).get("cmc"):
        raise DataError(f"{where} has no scores of the feature {scored['feature']!r}; {REMEDY}")
    if any(scored["feature"] not in row["scores"] for row in scored.get("corrupted") or ()):
        raise DataError(f"{where} has no corrupted scores of the feature {scored['feature']!r}; {REMEDY}")
    if "spread" in scored and "intervals" not in scored:
        raise DataError(f"{where} has a spread and no intervals; {REMEDY}")
