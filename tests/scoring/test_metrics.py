"""Scores against numbers counted by hand; the fast ranks against the definition; both against scikit-learn."""

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from dapg.core.errors import UsageError
from dapg.core.types import Protocol, Record, Trial
from dapg.scoring import _fast_ranks
from dapg.scoring.labels import Labels, TrialRows
from dapg.scoring.metrics import Scores, mean_scores, score, score_by_definition, score_features, score_trials

PLAIN = Protocol("plain")
MARKET = Protocol("market", same_person_same_camera=True, junk_persons=(-1,))
SYSU = Protocol("sysu", camera_groups={2: 2, 3: 2}, unique_identity_cmc=True)
LLCM = Protocol("llcm", same_person_same_camera=True, unique_identity_cmc=True)


Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""Distances, then persons and cameras of queries and gallery, as `Labels` takes them: persons first."""
Case = tuple[list[list[int]], list[int], list[int], list[int], list[int]]


def tensor(values: list[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def scored(distances: torch.Tensor, *labels_and_protocol: Any, max_rank: int = 20) -> Scores:
    return score(distances, Labels(*labels_and_protocol), max_rank)


def fixture() -> Tensors:
    """recipe fixture: distance(i, j) = ((7i + 11j + 4ij + 5) mod 29) / 29."""
    distances = [[((7 * i + 11 * j + 4 * i * j + 5) % 29) / 29 for j in range(10)] for i in range(5)]
    return (
        torch.tensor(distances),
        tensor([1, 2, 3, 4, 9]),
        tensor([1, 1, 2, 2, 3, 3, 4, 4, 1, 3]),
        tensor([3, 6, 3, 6, 3]),
        tensor([1, 2, 1, 4, 4, 5, 1, 2, 5, 2]),
    )


def test_published_sysu_rules_on_a_printed_example() -> None:
    scores = scored(*fixture(), SYSU, max_rank=4)
    assert scores.cmc == (0.25, 0.5, 0.5, 1.0)
    assert scores.mAP == pytest.approx(0.4232142857, abs=1e-9)
    assert scores.mINP == pytest.approx(0.3714285714, abs=1e-9)
    assert (scores.valid_queries, scores.queries) == (4, 5)


def test_published_regdb_rules_on_a_printed_example() -> None:
    scores = scored(*fixture(), PLAIN, max_rank=4)
    assert scores.cmc == (0, 0.5, 0.5, 0.5)
    assert scores.mAP == pytest.approx(0.3607142857, abs=1e-9)
    assert scores.mINP == pytest.approx(0.3297619048, abs=1e-9)


def five_images() -> Tensors:
    """Person 1 seen by camera 3; answers from near to far: persons 2, 1, 2, 1, 1 by cameras 1, 2, 4, 4, 3."""
    return (
        torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5]]),
        tensor([1]),
        tensor([2, 1, 2, 1, 1]),
        tensor([3]),
        tensor([1, 2, 4, 4, 3]),
    )


def test_plain_gallery_counted_by_hand() -> None:
    # matches at ranks 2, 4, 5: AP = (1/2 + 2/4 + 3/5) / 3, INP = 3/5
    scores = scored(*five_images(), PLAIN, max_rank=3)
    assert scores.cmc == (0, 1, 1)
    assert scores.mAP == pytest.approx((1 / 2 + 2 / 4 + 3 / 5) / 3)
    assert scores.mINP == pytest.approx(3 / 5)


def test_same_person_same_camera_counted_by_hand() -> None:
    # the last answer goes: ranks 2 and 4
    scores = scored(*five_images(), MARKET, max_rank=3)
    assert scores.mAP == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert scores.mINP == pytest.approx(2 / 4)
    assert scores.cmc == (0, 1, 1)


def test_camera_group_counted_by_hand() -> None:
    # cameras 2 and 3 go: 2, 2, 1 remain, so rank 3 among images and rank 2 among persons
    scores = scored(*five_images(), SYSU, max_rank=3)
    assert scores.mAP == pytest.approx(1 / 3)
    assert scores.mINP == pytest.approx(1 / 3)
    assert scores.cmc == (0, 1, 1)
    pictures = scored(*five_images(), Protocol("pictures", camera_groups={2: 2, 3: 2}), max_rank=3)
    assert pictures.cmc == (0, 0, 1)


def test_junk_is_left_out_and_distractors_stay() -> None:
    distances = torch.tensor([[0.1, 0.2, 0.3]])
    scores = scored(distances, tensor([5]), tensor([-1, 0, 5]), tensor([1]), tensor([2, 2, 2]), MARKET, max_rank=3)
    assert scores.cmc == (0, 1, 1)
    assert scores.mAP == 0.5


def test_negative_persons_never_match() -> None:
    arguments = (torch.tensor([[0.1, 0.2], [0.1, 0.2]]), tensor([-1, 4]), tensor([-1, 4]), None, None, PLAIN)
    scores = scored(*arguments)
    assert scores.per_query.valid.tolist() == [False, True]
    assert scores.cmc[0] == 0
    assert scores.cmc[1] == 1


def test_short_gallery_pads_the_curve() -> None:
    scores = scored(torch.tensor([[0.1, 0.2]]), tensor([1]), tensor([2, 1]), None, None, PLAIN, max_rank=6)
    assert scores.cmc == (0, 1, 1, 1, 1, 1)
    assert scores.rank(50) == 1


def test_ties_follow_gallery_order() -> None:
    # all equal: the order is that of the gallery, matches at 2 and 4; persons in order 7, 1, 8: place 2
    arguments = (torch.zeros(1, 4), tensor([1]), tensor([7, 1, 8, 1]), tensor([6]), tensor([1, 1, 1, 1]))
    assert scored(*arguments, PLAIN).mAP == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert scored(*arguments, SYSU).cmc[:3] == (0, 1, 1)


def test_errors_say_what_is_wrong() -> None:
    distances, *labels = fixture()
    with pytest.raises(UsageError, match="give query and gallery cameras"):
        scored(distances, labels[0], labels[1], None, None, SYSU)
    with pytest.raises(UsageError, match="NaN or infinite"):
        scored(distances.index_fill(1, tensor([3]), math.nan), *labels, PLAIN)
    with pytest.raises(UsageError, match="NaN or infinite"):
        scored(distances.index_fill(1, tensor([3]), math.inf), *labels, PLAIN)
    with pytest.raises(UsageError, match="none of 5 queries"):
        scored(distances, labels[0] + 100, *labels[1:], PLAIN)
    with pytest.raises(UsageError, match="do not fit"):
        scored(distances[:, :9], *labels, PLAIN)


@st.composite
def galleries(draw: st.DrawFn) -> Case:
    queries, gallery = draw(st.integers(1, 7)), draw(st.integers(1, 14))
    levels = draw(st.sampled_from([1, 2, 5, 1000]))  # few levels: many ties
    grid = st.lists(st.integers(0, levels), min_size=gallery, max_size=gallery)
    distances = draw(st.lists(grid, min_size=queries, max_size=queries))
    persons, cameras = st.integers(-1, 4), st.integers(1, 4)

    def labels(strategy: st.SearchStrategy[int], size: int) -> list[int]:
        return draw(st.lists(strategy, min_size=size, max_size=size))

    return (
        distances,
        labels(persons, queries),
        labels(persons, gallery),
        labels(cameras, queries),
        labels(cameras, gallery),
    )


rules = st.fixed_dictionaries(
    {
        "same_person_same_camera": st.booleans(),
        "camera_groups": st.sampled_from([{}, {2: 2, 3: 2}, {1: 9, 4: 9, 2: 5}]),
        "junk_persons": st.sampled_from([(), (-1,), (0, 2)]),
        "unique_identity_cmc": st.booleans(),
    }
)


@settings(max_examples=200, deadline=None)
@given(galleries(), rules, st.sampled_from([torch.float32, torch.float64]))
def test_fast_ranks_equal_the_definition(gallery: Case, rules: dict[str, Any], dtype: torch.dtype) -> None:
    distances, of_query, of_gallery, query_cameras, gallery_cameras = gallery
    labels = Labels(of_query, of_gallery, query_cameras, gallery_cameras, Protocol("any", **rules))
    try:
        expected = score_by_definition(np.array(distances, dtype=float), labels, max_rank=6)
    except UsageError as error:
        with pytest.raises(UsageError, match=re.escape(str(error))):
            score(torch.tensor(distances, dtype=dtype), labels)
        return
    scores = score(torch.tensor(distances, dtype=dtype), labels, max_rank=6)
    assert scores.cmc == expected.cmc
    assert (scores.mAP, scores.mINP) == pytest.approx((expected.mAP, expected.mINP), abs=1e-12)
    assert (scores.valid_queries, scores.queries) == (expected.valid_queries, expected.queries)
    for name, values in vars(scores.per_query).items():
        np.testing.assert_allclose(values, getattr(expected.per_query, name), rtol=0, atol=1e-12)


def random_case(queries: int = 60, gallery: int = 90, persons: int = 9, seed: int = 0) -> Tensors:
    generator = torch.Generator().manual_seed(seed)

    def integers(low: int, high: int, size: int) -> torch.Tensor:
        return torch.randint(low, high, (size,), generator=generator)

    return (
        torch.rand(queries, gallery, generator=generator),
        integers(0, persons, queries),
        integers(0, persons, gallery),
        integers(1, 5, queries),
        integers(1, 5, gallery),
    )


@pytest.mark.parametrize("protocol", [PLAIN, MARKET, SYSU, LLCM], ids=lambda protocol: protocol.name)
@pytest.mark.parametrize("threads", [1, 2])
def test_chunks_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch, protocol: Protocol, threads: int) -> None:
    arguments = (*random_case(), protocol)
    whole = scored(*arguments)
    monkeypatch.setattr(_fast_ranks, "_CPU_ELEMENTS", 7 * 90)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert scored(*arguments) == whole


def test_average_precision_is_scikit_learns() -> None:
    distances, persons, gallery_persons, *_ = random_case()
    scores = scored(distances, persons, gallery_persons, None, None, PLAIN)
    expected = [
        average_precision_score((gallery_persons == person).numpy(), -row.numpy())
        for row, person in zip(distances, persons, strict=True)
    ]
    assert scores.per_query.average_precision.tolist() == pytest.approx(expected, abs=1e-12)


def test_numpy_arrays_and_lists_score_as_tensors() -> None:
    distances, *columns = random_case()
    lists: list[list[int]] = [column.tolist() for column in columns]
    assert score(distances.numpy(), Labels(lists[0], lists[1], lists[2], lists[3], SYSU)) == scored(
        distances, *columns, SYSU
    )
    features = torch.nn.functional.normalize(distances[:, :12], dim=1)
    plain = Labels(lists[0], lists[0])
    assert score_features(features.numpy(), features.numpy(), plain) == score_features(features, features, plain)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_is_scored_as_its_exact_values(dtype: torch.dtype) -> None:
    distances, *labels = random_case()
    rounded = distances.to(dtype)
    assert scored(rounded, *labels, SYSU) == scored(rounded.double(), *labels, SYSU)


def test_features_in_blocks_equal_the_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    query = torch.nn.functional.normalize(torch.randn(60, 16, generator=generator), dim=1)
    gallery = torch.nn.functional.normalize(torch.randn(90, 16, generator=generator), dim=1)
    labels = random_case()[1:]
    expected = scored(-(query.double() @ gallery.double().T), *labels, SYSU)
    monkeypatch.setattr(_fast_ranks, "_PRODUCT_ELEMENTS", 90 * 11)
    scores = score_features(query.double(), gallery.double(), Labels(*labels, SYSU))
    assert scores.cmc == expected.cmc
    assert scores.mAP == pytest.approx(expected.mAP, abs=1e-9)


def test_order_of_the_gallery_does_not_matter_without_ties() -> None:
    distances, persons, gallery_persons, cameras, gallery_cameras = random_case()
    order = torch.randperm(90, generator=torch.Generator().manual_seed(1))
    shuffled = scored(distances[:, order], persons, gallery_persons[order], cameras, gallery_cameras[order], SYSU)
    assert shuffled == scored(distances, persons, gallery_persons, cameras, gallery_cameras, SYSU)


def test_trials_that_share_queries_score_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(5)
    persons, cameras = torch.randint(0, 6, (80,), generator=generator), torch.randint(1, 5, (80,), generator=generator)
    records = [Record(f"{n}.jpg", int(persons[n]), int(cameras[n])) for n in range(80)]
    features = torch.nn.functional.normalize(torch.randn(80, 8, generator=generator).double(), dim=1)
    galleries = [torch.randperm(50, generator=generator)[:20] for _ in range(3)]
    sides = [(list(range(50, 80)), gallery.tolist()) for gallery in galleries]
    sides.append((list(range(60, 70)), galleries[0].tolist()))
    trials = [
        Trial(str(n), "any", tuple(records[i] for i in query), tuple(records[i] for i in gallery), SYSU)
        for n, (query, gallery) in enumerate(sides)
    ]
    monkeypatch.setattr(_fast_ranks, "_PRODUCT_ELEMENTS", 300)
    rows = [
        TrialRows(torch.tensor(query), torch.tensor(gallery), Labels.of(trial))
        for (query, gallery), trial in zip(sides, trials, strict=True)
    ]
    together = score_trials(features, rows, 5)
    for scores, (query, gallery) in zip(together, sides, strict=True):
        expected = score_features(
            features[query],
            features[gallery],
            Labels(persons[query], persons[gallery], cameras[query], cameras[gallery], SYSU),
            5,
        )
        assert scores.cmc == expected.cmc
        assert scores.mAP == pytest.approx(expected.mAP, abs=1e-12)


def test_mean_over_trials() -> None:
    first = scored(*random_case(seed=1), SYSU)
    second = scored(*random_case(seed=2), SYSU)
    mean = mean_scores([first, second])
    assert mean.mAP == pytest.approx((first.mAP + second.mAP) / 2)
    assert mean.rank(1) == pytest.approx((first.cmc[0] + second.cmc[0]) / 2)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("protocol", [PLAIN, MARKET, SYSU, LLCM], ids=lambda protocol: protocol.name)
def test_cuda_equals_cpu(protocol: Protocol) -> None:
    distances, *labels = random_case(300, 400, 30)
    distances = (distances * 500).round()  # ties
    ours, expected = scored(distances.cuda(), *labels, protocol), scored(distances, *labels, protocol)
    assert np.array_equal(ours.per_query.first_match, expected.per_query.first_match)
    assert ours.mAP == pytest.approx(expected.mAP, abs=1e-12)
    assert ours.mINP == pytest.approx(expected.mINP, abs=1e-12)
