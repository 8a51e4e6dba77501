"""Neighbours among crops: masks by hand, scores against a slow loop, labels that find their boxes."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dapg.cli import main
from dapg.core.errors import DataError, UsageError
from dapg.features.neighbours import (
    Sightings,
    chance,
    name_people,
    pairs,
    read_sightings,
    score_pairs,
    together,
)

# Two videos. In video 0 tracks 0 and 1 are in the image together at frame 0, track 2 comes later.
SEEN = Sightings(
    files=tuple("abcdefg"),
    videos=torch.tensor([0, 0, 0, 0, 0, 1, 1]),
    frames=torch.tensor([0, 0, 40, 90, 95, 0, 0]),
    seconds=torch.tensor([0.0, 0.0, 4.0, 9.0, 9.5, 0.0, 0.0], dtype=torch.float64),
    tracks=torch.tensor([0, 1, 0, 2, 2, 3, 4]),
    persons=torch.tensor([5, 6, 5, 5, -1, 6, 5]),
)


def named(mask: torch.Tensor) -> dict[str, str]:
    return {query: "".join(np.array(list("abcdefg"))[row.numpy()]) for query, row in zip("abcdefg", mask, strict=True)}


def test_by_people_other_tracks_of_known_people_stand_in_the_gallery() -> None:
    same, kept = pairs(SEEN, "people", 2.0)
    # a and b are of one moment; a and c one track; e is nobody known; f and g are another video's
    assert named(kept) == {
        "a": "dfg",
        "b": "cdfg",
        "c": "bdfg",
        "d": "abcfg",
        "e": "abcfg",
        "f": "abcd" + "",
        "g": "abcd",
    }
    assert named(same & kept) == {"a": "dg", "b": "f", "c": "dg", "d": "acg", "e": "", "f": "b", "g": "acd"}


def test_by_tracks_only_who_was_there_together_stands_against_a_track() -> None:
    assert named(together(SEEN)) == {"a": "b", "b": "ac", "c": "b", "d": "", "e": "", "f": "g", "g": "f"}
    same, kept = pairs(SEEN, "tracks", 2.0)
    assert named(kept) == {"a": "c", "b": "c", "c": "ab", "d": "", "e": "", "f": "", "g": ""}
    assert named(same & kept) == {"a": "c", "b": "", "c": "a", "d": "", "e": "", "f": "", "g": ""}
    assert named(pairs(SEEN, "tracks", 0.4)[1])["d"] == "e"


def test_chance_by_hand() -> None:
    same, kept = pairs(SEEN, "people", 2.0)
    assert chance(same, kept) == pytest.approx(np.mean([2 / 3, 1 / 4, 2 / 4, 3 / 5, 1 / 4, 3 / 4]))
    assert chance(same & False, kept) == 0


def test_scores_equal_a_slow_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(520, 8, generator=generator))
    same = torch.rand(520, 520, generator=generator) < 0.02
    kept = torch.rand(520, 520, generator=generator) < 0.5
    same[3] = False
    scores = score_pairs(features, same, kept, torch.arange(520))
    similarity = (features @ features.T).tolist()
    matches = same.tolist()
    precisions, penalties, firsts = [], [], []
    for query in range(520):
        order = sorted(kept[query].nonzero()[:, 0].tolist(), key=lambda n: -similarity[query][n])
        ranks = [rank for rank, crop in enumerate(order, start=1) if matches[query][crop]]
        if ranks:
            precisions.append(np.mean([(n + 1) / rank for n, rank in enumerate(ranks)]))
            penalties.append(len(ranks) / ranks[-1])
            firsts.append(ranks[0])
    assert scores.valid_queries == len(firsts) < scores.queries == 520
    assert scores.mAP == pytest.approx(np.mean(precisions), abs=1e-6)
    assert scores.mINP == pytest.approx(np.mean(penalties), abs=1e-6)
    assert scores.rank(1) == pytest.approx(np.mean(np.array(firsts) == 1), abs=1e-6)
    assert not scores.per_query.valid[3]


def test_nothing_to_find_is_said() -> None:
    with pytest.raises(UsageError, match="no crop has a match"):
        score_pairs(torch.eye(3), torch.zeros(3, 3).bool(), torch.ones(3, 3).bool(), torch.arange(3))


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    """Two people in two tracks each, red and blue, with crops every second."""
    folder = tmp_path / "crops"
    (folder / "v").mkdir(parents=True)
    rows: list[tuple[str | int, ...]] = [
        ("file", "video", "frame", "seconds", "left", "top", "right", "bottom", "score", "track", "sharpness")
    ]
    noise = np.random.default_rng(0)
    for second in range(12):
        for person, colour in enumerate(((200, 40, 40), (40, 40, 200))):
            file = f"v/{second}_{person}.png"
            pixels = np.clip(np.array(colour) + noise.integers(-30, 30, (64, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / file)
            left = 10 + 100 * person
            track = 2 * person + (second >= 6)
            rows.append((file, "v", second * 10, second, left, 10, left + 30, 90, 1, track, 9))
    with (folder / "manifest.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows(rows)
    return folder


def people(path: Path, shift: int = 0) -> Path:
    rows: list[tuple[str | int, ...]] = [("video", "frame", "left", "top", "right", "bottom", "person")]
    for second in range(12):
        for person, name in enumerate(("anna", "ben")):
            left = 10 + 100 * person + shift
            rows.append(("v", second * 10, left, 10, left + 30, 90, name if second else ""))
    with path.open("w", newline="") as handle:
        csv.writer(handle).writerows(rows)
    return path


def test_labels_find_their_boxes_also_moved_ones(crops: Path, tmp_path: Path) -> None:
    seen = read_sightings(crops)
    assert len(seen.files) == 24
    assert seen.tracks.unique().tolist() == [0, 1, 2, 3]
    for shift in (0, 4):
        labelled, unmatched = name_people(seen, crops, people(tmp_path / "people.csv", shift))
        assert unmatched == 0
        assert labelled.persons.tolist() == [-1, -1] + [0, 1] * 11
    with pytest.raises(DataError, match="no label of"):
        name_people(seen, crops, people(tmp_path / "people.csv", shift=20))


def test_two_names_for_one_crop_are_refused(crops: Path, tmp_path: Path) -> None:
    path = people(tmp_path / "people.csv")
    path.write_text(path.read_text() + "v,10,11,10,41,90,cleo\n")
    with pytest.raises(DataError, match=r"names two persons for v/1_0\.png"):
        name_people(read_sightings(crops), crops, path)


def test_command_line_with_and_without_labels(crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--crops", str(crops), "--workers", "0", "--device", "cpu"]
    labels = ["--people", str(people(tmp_path / "people.csv"))]
    for name, more in (("tracks", []), ("people", labels)):
        out = tmp_path / name
        assert main(["neighbours", "histogram", *common, *more, "--out", str(out)]) == 0
        result = json.loads((out / "result.json").read_text())
        assert result["scores"]["mAP"] == 1, "colours tell red from blue"
        assert result["intervals"]["rank-1"]["persons"] == (4 if name == "tracks" else 2)
        assert 0 < result["chance"] < 1
        sheet = Image.open(out / "neighbours.png").convert("RGB")
        assert sheet.getpixel((8 + 76 + 34 + 30, 31)) == (0, 117, 90), "the first answer is right: a solid frame"
    random = ["neighbours", "random", "--backbone", "mobilenet_v2", "--backbone.width", "0.25"]
    assert main([*random, *common, *labels, "--out", str(tmp_path / "random")]) == 0
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "random"), str(tmp_path / "people")]) == 0
    assert "rank-1" in capsys.readouterr().out
    assert main(["compare", str(tmp_path / "tracks"), str(tmp_path / "people")]) == 2
    assert main(["neighbours", "histogram"]) == 2
    assert main(["neighbours", "histogram", "--crops", str(tmp_path), "--out", str(tmp_path / "x")]) == 1
