"""Re-ranking against a second implementation with sets and dictionaries, written from the paper's equations."""

import math

import pytest
import torch

from dapg.core.errors import UsageError
from dapg.core.types import Protocol
from dapg.scoring import rerank
from dapg.scoring.labels import Labels
from dapg.scoring.metrics import score
from dapg.scoring.ranking import similarity
from dapg.scoring.rerank import Rerank, expand_queries, k_reciprocal, reranked_distances


def slow_k_reciprocal(
    query: list[list[float]], gallery: list[list[float]], k1: int, k2: int, weight: float
) -> list[list[float]]:
    features = [[value / math.sqrt(sum(x * x for x in row)) for value in row] for row in (query + gallery)]
    count = len(features)
    distance = [[sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) for q in features] for p in features]
    distance = [[value / max(row) for value in row] for row in distance]
    order = [sorted(range(count), key=row.__getitem__) for row in distance]

    def reciprocal(p: int, k: int) -> set[int]:
        return {q for q in order[p][: k + 1] if p in order[q][: k + 1]}

    def expanded(p: int) -> set[int]:
        found = reciprocal(p, k1)
        for q in reciprocal(p, k1):
            other = reciprocal(q, round(k1 / 2))
            if len(other & reciprocal(p, k1)) > 2 / 3 * len(other):
                found |= other
        return found

    vectors = []
    for p in range(count):
        members = expanded(p)
        total = sum(math.exp(-distance[p][q]) for q in members)
        vectors.append([math.exp(-distance[p][q]) / total if q in members else 0 for q in range(count)])
    if k2 > 1:
        vectors = [[sum(vectors[q][j] for q in order[p][:k2]) / k2 for j in range(count)] for p in range(count)]
    answer = []
    for p in range(len(query)):
        row = []
        for g in range(len(query), count):
            smaller = sum(min(a, b) for a, b in zip(vectors[p], vectors[g], strict=True))
            larger = sum(max(a, b) for a, b in zip(vectors[p], vectors[g], strict=True))
            row.append((1 - weight) * (1 - smaller / larger) + weight * distance[p][g])
        answer.append(row)
    return answer


@pytest.mark.parametrize(("k1", "k2", "weight"), [(4, 2, 0.3), (7, 3, 0.0), (5, 1, 0.5)])
def test_k_reciprocal_equals_the_slow_one(k1: int, k2: int, weight: float) -> None:
    generator = torch.Generator().manual_seed(k1)
    query, gallery = (torch.randn(size, 5, generator=generator).double() for size in (6, 19))
    expected = slow_k_reciprocal(query.tolist(), gallery.tolist(), k1, k2, weight)
    assert torch.allclose(k_reciprocal(query, gallery, k1, k2, weight), torch.tensor(expected).double(), atol=1e-9)


def test_k_reciprocal_helps_where_neighbours_know_more() -> None:
    """Persons are arcs on a circle: images at an arc's far end are found through those in the middle."""
    generator = torch.Generator().manual_seed(0)
    persons = torch.arange(12).repeat_interleave(12)
    angles = persons * 0.5 + torch.linspace(0, 0.36, 12).repeat(12) + 0.005 * torch.randn(144, generator=generator)
    features = torch.stack([angles.cos(), angles.sin()], dim=1).double()
    query = torch.arange(0, 144, 12)  # the first of each arc
    rest = torch.tensor([n for n in range(144) if n % 12])
    labels = Labels(persons[query], persons[rest], None, None, Protocol("p"))
    before = score(-similarity(features[query], features[rest]), labels).mAP
    after = score(k_reciprocal(features[query], features[rest], 8, 3), labels).mAP
    assert after > before + 0.05


def test_query_expansion_by_hand() -> None:
    query, gallery = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])
    # nearest two: similarity 0.6 and 0; weights 0.216 and 0
    expected = torch.tensor([1 + 0.216 * 0.6, 0.216 * 0.8])
    assert torch.allclose(expand_queries(query, gallery, 2)[0], expected / expected.norm())
    distances = reranked_distances(query, gallery, Rerank("query-expansion", neighbours=2))
    assert distances.shape == (1, 3)
    assert torch.allclose(distances[0, 2], expected[0] / expected.norm())


def test_settings_out_of_range_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.eye(4)
    for arguments in ({"k1": 0}, {"k2": 0}, {"weight": 1.5}):
        with pytest.raises(UsageError, match="k-reciprocal needs"):
            k_reciprocal(features, features, **arguments)
    with pytest.raises(UsageError, match="at least 1 neighbour"):
        expand_queries(features, features, 0)
    monkeypatch.setattr(rerank, "MAX_IMAGES", 7)
    with pytest.raises(UsageError, match="too many"):
        k_reciprocal(features, features)
