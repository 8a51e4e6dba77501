from pathlib import Path

import pytest
import torch
from PIL import Image

from dapg.cli import main
from dapg.core.errors import UsageError
from dapg.core.train_config import DataConfig
from dapg.data.image_lines import read_groups
from dapg.data.source import open_dataset, select_records
from dapg.features.pseudo_persons import GroupSettings, clusters, group, require_clusters


def test_near_features_share_a_cluster() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(30) % 3
    found = clusters(torch.eye(3)[truth] + 0.05 * torch.randn(30, 3, generator=generator), 3, seed=0)
    pairs = {(cluster, int(label)) for cluster, label in zip(found, truth, strict=True)}
    assert len(pairs) == 3  # each cluster is one label, each label one cluster


def test_pictures_of_one_colour_are_one_pseudo_person(tmp_path: Path) -> None:
    colours = [(200, 20, 20), (20, 200, 20), (20, 20, 200)]
    for number in range(9):
        Image.new("RGB", (32, 64), colours[number % 3]).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"")
    unreadable: dict[str, str] = {}
    found = group(GroupSettings(DataConfig("folder", str(tmp_path)), groups=3, workers=0), unreadable)
    assert len(found) == 9
    assert list(unreadable) == ["broken.png"]
    by_colour = [{found[f"{number}.png"] for number in range(colour, 9, 3)} for colour in range(3)]
    assert all(len(groups) == 1 for groups in by_colour)
    assert len(set.union(*by_colour)) == 3


@pytest.mark.parametrize("count", [1, 10])
def test_impossible_numbers_of_groups_are_refused(count: int) -> None:
    with pytest.raises(UsageError, match="between 2 and"):
        require_clusters(9, count)


def test_the_command_writes_what_pnl_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From images without labels to a pre-training with pseudo-persons."""
    file, run = tmp_path / "groups.tsv", tmp_path / "run"
    assert main(f"data group synthetic --data.subset 40 --groups 8 --workers 0 --out {file}".split()) == 0
    assert "40 images in 8 groups" in capsys.readouterr().out
    assert len(set(read_groups(file).values())) == 8
    words = f"pretrain pnl --preset demo --data.split unlabelled --method.groups {file} --train.steps 2"
    assert main([*words.split(), *f"--train.batch_size 8 --loader.workers 0 --device cpu --out {run}".split()]) == 0
    assert (run / "backbone.safetensors").exists()


def test_tracks_of_a_cropped_video_are_pseudo_persons(tmp_path: Path) -> None:
    """Numbers of tracks begin anew in every video; the paths are those of the folder's records."""
    seen = [("b.mp4", 1), ("a.mp4", 1), ("a.mp4", 2), ("a.mp4", 1)]
    rows = [f"crops/{number}.png,{video},{number},{number}.0,{track}" for number, (video, track) in enumerate(seen)]
    (tmp_path / "manifest.csv").write_text("\n".join(["file,video,frame,seconds,track", *rows]))
    (tmp_path / "crops").mkdir()
    for number in range(len(seen)):
        Image.new("RGB", (32, 64)).save(tmp_path / "crops" / f"{number}.png")
    data = DataConfig("folder", str(tmp_path))
    found = group(GroupSettings(data, by="tracks"))
    assert set(found) == {record.path for record in select_records(open_dataset(data), data, seed=0)}
    first, second, third, fourth = (found[f"crops/{number}.png"] for number in range(4))
    assert second == fourth
    assert len({first, second, third}) == 3
