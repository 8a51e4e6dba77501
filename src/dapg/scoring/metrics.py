"""CMC, mAP and mINP by the rules of each test protocol (docs/reference/protocols.md).

Read ``score_query``: it is the whole definition, for one query. ``score_by_definition`` applies it to every query by
sorting; ``score``, ``score_features`` and ``score_trials`` give the same numbers fast (``_fast_ranks``).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dapg.core.errors import UsageError
from dapg.core.types import UNKNOWN
from dapg.scoring import _fast_ranks
from dapg.scoring.labels import Labels, TrialRows


def score_query(answers: Int[np.ndarray, "n"], person: int, count_persons: bool = False) -> tuple[float, float, int]:
    """Average precision, inverse negative penalty and place of the first match of one query.

    Let r_1 < ... < r_P be the ranks, from 1, of the P answers that show the query's person. Then AP is the mean over k
    of k / r_k (the precision at the k-th match), and INP = P / r_P says how far one must read to see every match (Ye
    et al., Deep Learning for Person Re-identification, TPAMI 2022). The CMC steps from 0 to 1 at r_1, or, when persons
    are counted, at the place of the person among the persons, each standing at its best image.

    Args:
        answers: person of each gallery image that the rules keep, nearest first.
        person: the query's; a negative one matches nobody.
        count_persons: the protocol's ``unique_identity_cmc``.

    Returns:
        AP and INP in (0, 1] and the step of the CMC, from 1; NaN, NaN and 0 without a match.

    Example: matches at ranks 2, 4 and 5, so AP = (1/2 + 2/4 + 3/5) / 3 and INP = 3/5. With persons 2, 2, 1 (two images
    of person 2 first) the first match is image 3, but person 2.

        >>> ap, inp, first = score_query(np.array([2, 1, 2, 1, 1]), person=1)
        >>> round(ap, 4), inp, first
        (0.5333, 0.6, 2)
        >>> score_query(np.array([2, 2, 1]), person=1)[2], score_query(np.array([2, 2, 1]), 1, count_persons=True)[2]
        (3, 2)
    """
    ranks = np.flatnonzero(answers == person) + 1
    if person <= UNKNOWN or len(ranks) == 0:
        return math.nan, math.nan, 0
    matches = np.arange(1, len(ranks) + 1)
    first = len(set(answers[: ranks[0]].tolist())) if count_persons else int(ranks[0])
    return float(np.mean(matches / ranks)), float(len(ranks) / ranks[-1]), first


def score_by_definition(
    distances: Float[Tensor, "Q G"] | Float[np.ndarray, "Q G"], labels: Labels, max_rank: int = 20
) -> "Scores":
    """``score`` written plainly: leave out, sort, look at the ranks. Some hundred times slower.

    Raises:
        UsageError: no query with a match.
    """
    values = []
    for query, row in enumerate(np.asarray(distances)):
        counted = ~labels.left_out(query)
        nearest_first = np.argsort(row[counted], kind="stable")  # equal distances stay in gallery order
        answers = labels.gallery_persons[counted][nearest_first]
        person = int(labels.query_persons[query])
        values.append(score_query(answers, person, labels.protocol.unique_identity_cmc))
    return summarise(labels.query_persons, torch.tensor(values, dtype=torch.float64).reshape(-1, 3), max_rank)


@dataclass(frozen=True)
class QueryScores:
    """What each query scored, in the order of the queries.

    ``average_precision`` and ``inverse_negative_penalty`` are NaN, ``first_match`` is 0 where ``valid`` is False: the
    gallery held no match that the rules keep. ``first_match`` counts from 1 and counts what the protocol's CMC counts,
    images or persons.
    """

    persons: Int[np.ndarray, "Q"]
    average_precision: Float[np.ndarray, "Q"]
    inverse_negative_penalty: Float[np.ndarray, "Q"]
    first_match: Int[np.ndarray, "Q"]
    valid: Bool[np.ndarray, "Q"]


@dataclass(frozen=True)
class Accuracy:
    """CMC curve, mAP and mINP as fractions in [0, 1].

    ``cmc[k - 1]`` is rank-k: the share of valid queries with a match among the first k answers. The tuple always has
    ``max_rank`` entries; a gallery with fewer answers repeats its last value.
    """

    cmc: tuple[float, ...]
    mAP: float
    mINP: float

    def rank(self, k: int) -> float:
        """Rank-k as a fraction; beyond the curve its last value."""
        return self.cmc[min(k, len(self.cmc)) - 1]


@dataclass(frozen=True)
class Scores(Accuracy):
    """Scores of one trial. Queries without any match are counted in ``queries`` alone."""

    valid_queries: int
    queries: int
    per_query: QueryScores = field(repr=False, compare=False)


@_fast_ranks.one_thread_each()
def summarise(persons: Int[np.ndarray, "Q"], values: Float[Tensor, "Q 3"], max_rank: int = 20) -> Scores:
    """Means over the queries with a match, from AP, INP and first match of each query, on the CPU.

    Raises:
        UsageError: no query has a match.
    """
    valid = values[:, 2] > 0
    count = int(valid.sum())
    if count == 0:
        raise UsageError(f"none of {len(values)} queries has a match in the gallery that the protocol keeps")
    first = values[:, 2].long()
    hits = torch.bincount(first[valid].clamp(max=max_rank + 1), minlength=max_rank + 2)[1 : max_rank + 1]
    average_precision, penalty = values[:, 0], values[:, 1]
    return Scores(
        cmc=tuple((hits.cumsum(0).double() / count).tolist()),
        mAP=float(average_precision[valid].mean()),
        mINP=float(penalty[valid].mean()),
        valid_queries=count,
        queries=len(values),
        per_query=QueryScores(persons, average_precision.numpy(), penalty.numpy(), first.numpy(), valid.numpy()),
    )


def score(distances: Float[Tensor, "Q G"] | Float[np.ndarray, "Q G"], labels: Labels, max_rank: int = 20) -> Scores:
    """Score given distances (smaller is nearer; of a similarity pass its negative), on their device.

    Raises:
        UsageError: shapes that do not fit, a NaN or infinite distance, or no query with a match at all.
    """
    return summarise(labels.query_persons, _fast_ranks.of_distances(torch.as_tensor(distances), labels), max_rank)


def score_features(
    query_features: Float[Tensor, "Q D"] | Float[np.ndarray, "Q D"],
    gallery_features: Float[Tensor, "G D"] | Float[np.ndarray, "G D"],
    labels: Labels,
    max_rank: int = 20,
) -> Scores:
    """Score unit features by their dot product, block by block: the whole Q x G matrix never exists.

    Features are used as they are (see ``ranking.unit_rows``). Memory beyond the features stays under about 1 GB for any
    size of query and gallery set.

    Raises:
        UsageError: as ``score``.
    """
    query, gallery = torch.as_tensor(query_features), torch.as_tensor(gallery_features)
    return summarise(labels.query_persons, _fast_ranks.of_features(query, gallery, labels), max_rank)


def score_trials(features: Float[Tensor, "N D"], trials: Sequence[TrialRows], max_rank: int = 20) -> list[Scores]:
    """Scores of each trial from one table of unit features; trials with the same queries share their distances.

    Raises:
        UsageError: as ``score``.
    """
    scores: dict[int, Scores] = {}
    while len(scores) < len(trials):
        query = next(trial.query for number, trial in enumerate(trials) if number not in scores)
        together = [number for number, trial in enumerate(trials) if torch.equal(trial.query, query)]
        galleries = [trials[number].gallery for number in together]
        labels = [trials[number].labels for number in together]
        values = _fast_ranks.of_galleries(features[query], features, galleries, labels)
        for number, those, of_each in zip(together, labels, values, strict=True):
            scores[number] = summarise(those.query_persons, of_each, max_rank)
    return [scores[number] for number in range(len(trials))]


def mean_scores(trials: Sequence[Scores]) -> Accuracy:
    """Mean over trials of the curve, mAP and mINP: the number that papers print for ten trials.

    Raises:
        UsageError: no trial.
    """
    if not trials:
        raise UsageError("no trial to average")
    return Accuracy(
        cmc=tuple(np.mean([scores.cmc for scores in trials], axis=0).tolist()),
        mAP=float(np.mean([scores.mAP for scores in trials])),
        mINP=float(np.mean([scores.mINP for scores in trials])),
    )
