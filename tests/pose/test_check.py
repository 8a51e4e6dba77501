"""Scores of generated images, with an estimator that knows what it is shown."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from dapg.augment.skeleton import canonical_poses
from dapg.core.errors import DataError, UsageError
from dapg.data.manifest import GeneratedImage, Manifest, read_manifest, write_manifest
from dapg.pose.check import check_generated
from dapg.pose.estimators.base import Estimator

NAMES = tuple(canonical_poses())


class Knowing(Estimator):
    """Reads the pose's number from the grey level; 40 x the number, plus 1 where a third of the points is far off."""

    input_size, batch_size = (4, 2), 2
    calls = 0

    def estimate(self, images, sizes, records=()):  # type: ignore[no-untyped-def]
        Knowing.calls += 1
        levels = images[:, 0, 0, 0].tolist()
        points = torch.stack([canonical_poses()[NAMES[level // 40]] for level in levels]).clone()
        for row, level in enumerate(levels):
            if level % 40 == 1:
                points[row, 12:, 1] += 0.5
        return points


def folder(path: Path, *levels: tuple[str, int]) -> Path:
    pictures = [GeneratedImage("none.png", None)]
    for number, (pose, level) in enumerate(levels):
        Image.new("RGB", (32, 64), (level, level, level)).save(path / f"{number}.png")
        pictures.append(GeneratedImage(f"{number}.png", None, pose, f"{number}.png"))
    write_manifest(Manifest(path, tuple(pictures), {"pairs": "synthetic"}))
    return path


def test_hits_misses_and_wrong_poses_are_told_apart(tmp_path: Path) -> None:
    front, back = NAMES.index("front"), NAMES.index("back")
    where = folder(tmp_path, ("front", 40 * front), ("front", 40 * front + 1), ("front", 40 * back))
    result = check_generated(where, Knowing(Knowing.Config()))
    scores = [picture.score for picture in read_manifest(where).pictures]
    assert scores[0] is None
    assert scores[1] == 1.0
    assert scores[2] == pytest.approx(12 / 18, abs=1e-3)
    assert scores[3] is not None
    assert scores[3] < 0.6  # left and right are exchanged in a back view
    assert result["pictures"] == 3
    assert read_manifest(where).about == {"pairs": "synthetic"}


def test_what_is_scored_is_not_scored_again(tmp_path: Path) -> None:
    where = folder(tmp_path, ("front", 0), ("left", 40))
    check_generated(where, Knowing(Knowing.Config()))
    before = Knowing.calls
    check_generated(where, Knowing(Knowing.Config()))
    assert Knowing.calls == before


def test_missing_pictures_and_foreign_poses_are_named(tmp_path: Path) -> None:
    where = folder(tmp_path, ("front", 0))
    (where / "0.png").unlink()
    with pytest.raises(DataError, match=r"0\.png.*run dapg pose generate again"):
        check_generated(where, Knowing(Knowing.Config()), "fail")
    result = check_generated(where, Knowing(Knowing.Config()))
    assert list(result["unreadable"]) == ["0.png"]
    assert read_manifest(where).pictures[1].score is None, "it is tried again the next time"
    write_manifest(Manifest(where, (GeneratedImage("a.png", None, "upside", "a.png"),), {}))
    with pytest.raises(UsageError, match="upside is not one of the canonical poses"):
        check_generated(where, Knowing(Knowing.Config()))
