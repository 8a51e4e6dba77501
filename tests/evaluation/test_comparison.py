"""Result files against each other and together: numbers by hand, and refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dapg.core.errors import DataError, UsageError
from dapg.core.files import write_json
from dapg.core.types import Protocol
from dapg.evaluation.comparison import combine_results, compare_results
from dapg.scoring.bootstrap import write_query_scores
from dapg.scoring.labels import Labels
from dapg.scoring.metrics import Scores, score

FIRST, SECOND = [[0.5, 0.2, 0.9], [0.1, 0.2, 0.3]], [[0.1, 0.2, 0.9], [0.3, 0.2, 0.3]]
"""Rank-1 0 and 1, mAP 0.5 and 1: in FIRST each person's own image is second."""


def trial_of(distances: list[list[float]], persons: tuple[int, ...] = (1, 2)) -> Scores:
    labels = Labels(torch.tensor(persons), torch.tensor([*persons, 3]), None, None, Protocol("plain"))
    return score(torch.tensor(distances), labels)


def saved(
    folder: Path,
    name: str,
    *distances: list[list[float]],
    cause: str = "gallery",
    names: list[str] | None = None,
    persons: tuple[int, ...] = (1, 2),
    **changes: object,
) -> Path:
    """A result with one trial for each distance matrix."""
    trials = [trial_of(each, persons) for each in distances]
    write_query_scores(folder / f"{name}.npz", {"after BN": trials})
    names = names or [f"trial {number}" for number in range(len(trials))]
    content = {
        "feature": "after BN",
        "protocol": "plain",
        "data": {"name": "toy", "mode": "all", "hash": "abc"},
        "trials": [{"name": each, "cause": cause} for each in names],
        "comparable": True,
        "per_query": f"{name}.npz",
        **changes,
    }
    write_json(folder / f"{name}.json", content)
    return folder / f"{name}.json"


def test_difference_is_second_minus_first(tmp_path: Path) -> None:
    first, second = saved(tmp_path, "a", FIRST), saved(tmp_path, "b", SECOND)
    (found,) = compare_results([first], [second])
    assert found["differences"]["rank-1"]["value"] == pytest.approx(1.0)
    assert found["differences"]["mAP"]["value"] == pytest.approx(0.5)
    assert found["first"] == [str(first)]


def test_different_precision_is_refused(tmp_path: Path) -> None:
    first, half = saved(tmp_path, "a", FIRST, precision="fp32"), saved(tmp_path, "b", SECOND, precision="bf16")
    unknown = saved(tmp_path, "c", SECOND, precision=None)
    for refused in (lambda: compare_results([first], [half]), lambda: combine_results([first, half])):
        with pytest.raises(UsageError, match=r"different precision cannot be compared: bf16, fp32$"):
            refused()
    assert compare_results([first], [unknown])
    assert compare_results([half], [half])


def test_a_folder_stands_for_the_result_in_it(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    saved(tmp_path / "run", "result", FIRST)
    (found,) = compare_results([tmp_path / "run"], [tmp_path / "run" / "result.json"])
    assert found["differences"]["mAP"]["value"] == 0


def test_groups_of_seeds_and_holms_rule_over_several_groups(tmp_path: Path) -> None:
    base = [saved(tmp_path, f"base-{n}", FIRST) for n in range(3)]
    better = [saved(tmp_path, f"better-{n}", SECOND) for n in range(2)]
    mixed = [saved(tmp_path, "mixed-0", FIRST), saved(tmp_path, "mixed-1", SECOND)]
    sure, unsure = compare_results(base, better, mixed)
    assert sure["differences"]["mAP"]["value"] == pytest.approx(0.5)
    assert unsure["differences"]["mAP"]["value"] == pytest.approx(0.25)
    assert sure["differences"]["mAP"]["seeds"] == 2
    assert sure["differences"]["mAP"]["p_holm"] == pytest.approx(2 * sure["differences"]["mAP"]["p"])
    assert unsure["differences"]["mAP"]["p_holm"] == pytest.approx(unsure["differences"]["mAP"]["p"])


def test_partitions_pair_by_their_list_in_any_order(tmp_path: Path) -> None:
    def side(name: str, distances: list[list[float]]) -> tuple[Path, Path]:
        data = {"name": "toy", "mode": "all"}
        one = saved(tmp_path, f"{name}-1", distances, data={**data, "hash": "one"})
        two = saved(tmp_path, f"{name}-2", distances, persons=(5, 6), data={**data, "hash": "two"})
        return one, two

    first, second = side("a", FIRST), side("b", SECOND)
    (found,) = compare_results(first, second[::-1])
    assert found["differences"]["mAP"]["value"] == pytest.approx(0.5)
    with pytest.raises(UsageError, match="different test lists"):
        compare_results(first, second[:1])


def test_unlike_results_are_refused(tmp_path: Path) -> None:
    first = saved(tmp_path, "a", FIRST)
    with pytest.raises(UsageError, match="different protocols"):
        compare_results([first], [saved(tmp_path, "b", FIRST, protocol="sysu-mm01")])
    other = saved(tmp_path, "c", FIRST, data={"name": "toy", "mode": "all", "hash": "xyz"})
    with pytest.raises(UsageError, match="different test lists"):
        compare_results([first], [other])
    (tmp_path / "a.npz").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"a\.npz"):
        compare_results([first], [first])
    write_json(tmp_path / "d.json", {"feature": "x"})
    with pytest.raises(DataError, match="has no data, per_query, protocol, trials"):
        compare_results([tmp_path / "d.json"], [tmp_path / "d.json"])


def test_seeds_and_galleries_have_a_spread_each(tmp_path: Path) -> None:
    """Seed 0 scores mAP 0.5 and 0.75 on its two galleries, seed 1 scores 1.0 and 0.75."""
    middle = [[0.1, 0.2, 0.9], [0.1, 0.2, 0.3]]
    zero = saved(tmp_path, "zero", FIRST, middle, model_seed=0)
    one = saved(tmp_path, "one", SECOND, middle, model_seed=1)
    found = combine_results([zero, one])
    assert (found["models"], found["comparable"]) == (2, True)
    assert found["clean"]["scores"]["mAP"] == pytest.approx(0.75)
    spread = found["clean"]["spread"]["mAP"]
    assert spread["seed"] == {"levels": 2, "std": pytest.approx(np.std([0.625, 0.875], ddof=1))}
    assert spread["gallery"] == {"levels": 2, "std": pytest.approx(0.0)}
    assert spread["partition"]["levels"] == 1
    assert found["clean"]["intervals"]["mAP"]["seeds"] == 2


def test_partitions_are_a_cause_of_their_own(tmp_path: Path) -> None:
    paths = [
        saved(tmp_path, f"p{n}", distances, cause="partition", names=[f"partition {n}"], persons=(n, n + 10))
        for n, distances in enumerate((FIRST, SECOND), start=1)
    ]
    spread = combine_results(paths)["clean"]["spread"]["rank-1"]
    assert spread["partition"] == {"levels": 2, "std": pytest.approx(np.std([0, 1], ddof=1))}
    assert spread["gallery"]["levels"] == 1


def test_corruption_repeats_are_a_cause_of_their_own(tmp_path: Path) -> None:
    paths = []
    for seed in (0, 1):
        files = []
        for repeat, distances in enumerate((FIRST, SECOND, SECOND)):
            write_query_scores(tmp_path / f"c{seed}{repeat}.npz", {"after BN": [trial_of(distances)]})
            files.append(f"c{seed}{repeat}.npz")
        corrupted = [{"name": "seen", "per_query": files}]
        paths.append(saved(tmp_path, f"r{seed}", SECOND, model_seed=seed, corrupted=corrupted))
    found = combine_results(paths)
    assert found["clean"]["scores"]["mAP"] == 1
    seen = found["corrupted"]["seen"]
    assert seen["scores"]["mAP"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert seen["spread"]["mAP"]["repeat"] == {"levels": 3, "std": pytest.approx(np.std([0.5, 1, 1], ddof=1))}
    assert seen["spread"]["mAP"]["seed"]["std"] == 0


def test_corrupted_scores_are_compared_by_name(tmp_path: Path) -> None:
    """SECOND has an mAP of 1 and FIRST of one half: that far apart on corrupted images alone."""
    paths = []
    for name, distances in (("a", FIRST), ("b", SECOND)):
        write_query_scores(tmp_path / f"{name}-seen.npz", {"after BN": [trial_of(distances)]})
        corrupted = [{"name": "seen", "per_query": [f"{name}-seen.npz"]}]
        paths.append(saved(tmp_path, name, FIRST, corrupted=corrupted))
    for corrupted_set, expected in (("", 0.0), ("seen", 0.5)):
        (comparison,) = compare_results([paths[0]], [paths[1]], corrupted=corrupted_set)
        assert comparison["differences"]["mAP"]["value"] == pytest.approx(expected)
    with pytest.raises(UsageError, match="no scores on the corrupted test set 'fog'"):
        compare_results([paths[0]], [paths[1]], corrupted="fog")


def test_corrupted_sets_of_one_name_and_other_images_are_refused(tmp_path: Path) -> None:
    """``all`` of twenty types beside ``all`` of light fog; and the same types on the other kind of light."""
    write_query_scores(tmp_path / "all.npz", {"after BN": [trial_of(FIRST)]})

    def with_all(name: str, light: str = "visible", **drawn: object) -> Path:
        row = {"name": "all", "per_query": ["all.npz"], "types": ["fog", "snow"], "severities": [1, 2], **drawn}
        return saved(tmp_path, name, FIRST, corrupted=[row], corruption={"modality": light})

    first, same = with_all("a"), with_all("b")
    assert combine_results([first, same])["corrupted"]["all"]["scores"]["mAP"] == pytest.approx(0.5)
    for other in (with_all("c", types=["fog"]), with_all("d", severities=[1]), with_all("e", "infrared")):
        with pytest.raises(UsageError, match="'all' were not corrupted alike"):
            compare_results([first], [other], corrupted="all")
        with pytest.raises(UsageError, match="'all' were not corrupted alike"):
            combine_results([first, other])
        compare_results([first], [other])  # of clean images


def test_what_has_no_mean_is_refused(tmp_path: Path) -> None:
    first = saved(tmp_path, "a", FIRST, model_seed=3)
    nameless = saved(tmp_path, "n", FIRST)
    for one in (first, nameless):
        with pytest.raises(UsageError, match="occurs twice"):
            combine_results([one, one])
    with pytest.raises(UsageError, match="occurs twice"):
        combine_results([first, saved(tmp_path, "again", FIRST, model_seed=3)])
    with pytest.raises(UsageError, match="different protocols"):
        combine_results([first, saved(tmp_path, "b", FIRST, protocol="regdb")])
    with pytest.raises(UsageError, match="different test lists"):
        combine_results([first, saved(tmp_path, "l", FIRST, data={"name": "toy", "mode": "all", "hash": "def"})])
    drawn = [{"name": "trial 0", "cause": "gallery", "drawn": "Random(10)"}]
    data = {"name": "toy", "mode": "all", "hash": "def"}
    assert combine_results([first, saved(tmp_path, "d", FIRST, model_seed=4, data=data, trials=drawn)])
    with pytest.raises(UsageError, match="different tests"):
        combine_results([first, saved(tmp_path, "c", FIRST, data={"name": "toy", "mode": "indoor", "hash": "abc"})])
