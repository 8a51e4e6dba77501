"""Ranked lists against a stable sort in plain Python, and their first match against the scores."""

import pytest
import torch

from dapg.core.errors import UsageError
from dapg.core.types import Protocol
from dapg.scoring import ranking
from dapg.scoring.labels import Labels
from dapg.scoring.metrics import score
from dapg.scoring.ranking import rank, similarity, unit_rows

PLAIN = Protocol("plain")
MARKET = Protocol("market", same_person_same_camera=True, junk_persons=(-1,))
SYSU = Protocol("sysu", camera_groups={2: 2, 3: 2})


def case(queries: int = 25, gallery: int = 40, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    # Axes of either sign: similarities are exactly -1, 0 or 1, so that order among ties is tested.
    axes = torch.cat([torch.eye(3), -torch.eye(3)]).double()
    return (
        axes[torch.randint(0, 6, (queries,), generator=generator)],
        axes[torch.randint(0, 6, (gallery,), generator=generator)],
        torch.randint(-1, 5, (queries,), generator=generator),
        torch.randint(-1, 5, (gallery,), generator=generator),
        torch.randint(1, 5, (queries,), generator=generator),
        torch.randint(1, 5, (gallery,), generator=generator),
    )


@pytest.mark.parametrize("protocol", [PLAIN, MARKET, SYSU], ids=lambda protocol: protocol.name)
@pytest.mark.parametrize("elements", [10_000, 70])
def test_rank_is_a_stable_sort_of_what_the_rules_keep(
    monkeypatch: pytest.MonkeyPatch, protocol: Protocol, elements: int
) -> None:
    monkeypatch.setattr(ranking, "_ELEMENTS", elements)
    query, gallery, persons, gallery_persons, cameras, gallery_cameras = case()
    answer = rank(query, gallery, Labels(persons, gallery_persons, cameras, gallery_cameras, protocol), top=35)
    values = similarity(query, gallery).tolist()
    for row, person in enumerate(persons.tolist()):
        kept = []
        for column, other in enumerate(gallery_persons.tolist()):
            group = {2: "room", 3: "room"}
            same_group = group.get(int(cameras[row]), "a") == group.get(int(gallery_cameras[column]), "b")
            if protocol is MARKET and (other == -1 or (other == person and cameras[row] == gallery_cameras[column])):
                continue
            if protocol is SYSU and same_group:
                continue
            kept.append(column)
        expected = sorted(kept, key=lambda column: -values[row][column])[:35]
        expected += [-1] * (35 - len(expected))
        assert answer.gallery[row].tolist() == expected
        flags = [column >= 0 and person >= 0 and int(gallery_persons[column]) == person for column in expected]
        assert answer.matches[row].tolist() == flags


def test_first_match_agrees_with_the_scores() -> None:
    query, gallery, persons, gallery_persons, cameras, gallery_cameras = case(seed=4)
    labels = Labels(persons, gallery_persons, cameras, gallery_cameras, SYSU)
    answer = rank(query, gallery, labels, top=40)
    firsts = score(-similarity(query, gallery), labels).per_query.first_match
    from_list = torch.where(answer.matches.any(1), answer.matches.int().argmax(1) + 1, 0)
    assert firsts.tolist() == from_list.tolist()


def test_top_beyond_the_gallery_is_padded() -> None:
    persons = torch.tensor([1, 2])
    answer = rank(torch.eye(2), torch.eye(2), Labels(persons, persons, None, None, PLAIN), top=3)
    assert answer.gallery.tolist() == [[0, 1, -1], [1, 0, -1]]
    assert answer.similarity[0].tolist() == [1, 0, -torch.inf]
    assert answer.matches.tolist() == [[True, False, False]] * 2


def test_errors_name_the_cause() -> None:
    query, gallery, persons, gallery_persons, *_ = case()
    with pytest.raises(UsageError, match="give query and gallery cameras"):
        Labels(persons, gallery_persons, None, None, MARKET)
    labels = Labels(persons, gallery_persons, None, None, PLAIN)
    with pytest.raises(UsageError, match="NaN or infinite"):
        rank(query * torch.nan, gallery, labels)
    with pytest.raises(UsageError, match="at least 1"):
        rank(query, gallery, labels, top=0)


def test_unit_rows() -> None:
    rows = unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    assert rows.flatten().tolist() == pytest.approx([0.6, 0.8, 0, 0])
    assert unit_rows(torch.ones(1, 2, dtype=torch.float16)).dtype == torch.float32


def test_left_out_marks_pairs() -> None:
    persons, cameras = torch.tensor([1, 1, -1]), torch.tensor([3, 4, 3])
    labels = Labels([1, 2], persons, [3, 3], cameras, MARKET)
    assert labels.left_out(0).tolist() == [True, False, True]
    assert labels.left_out(1).tolist() == [False, False, True]
