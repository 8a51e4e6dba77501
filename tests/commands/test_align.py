"""`dapg align` from a stage-1 run, in every arm; what it takes over and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dapg.augment.repose import repose
from dapg.augment.skeleton import canonical_poses
from dapg.commands import align, pretrain
from dapg.core.errors import DapgError, UsageError
from dapg.core.files import write_json
from dapg.core.rng import SampleGenerator, generator_from
from dapg.core.schema import read_json
from dapg.core.settings import read_yaml
from dapg.core.types import Modality
from dapg.data.manifest import GeneratedImage, Manifest, write_manifest
from dapg.data.sets.folder import Folder
from dapg.data.sets.synthetic import Synthetic
from dapg.methods.alignment._on_the_fly import OnTheFly
from dapg.methods.runs import load_method
from dapg.models.pn_gan import GeneratorConfig, build_generator
from dapg.models.weights.pose_weights import GeneratorFacts, save_generator
from figures import colour_at

SMALL = [
    "--preset",
    "demo",
    "--device",
    "cpu",
    "--loader.workers",
    "0",
    "--train.steps",
    "2",
    "--train.batch_size",
    "8",
]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of four persons, two generated poses of each but the first, and a stage-1 run."""
    root = tmp_path_factory.mktemp("align")
    colours = torch.randint(0, 255, (12, 3), generator=torch.Generator().manual_seed(0)).tolist()
    rows, lines = ["path,person,modality"], []
    for number, colour in enumerate(colours):
        path = root / "data" / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (32, 64), tuple(colour)).save(path)
        modality = "infrared" if number == 11 else "visible"
        rows.append(f"{path.name},p{number % 4},{modality}")
        if number == 0:
            lines.append(GeneratedImage(path.name, None))
            continue
        for pose in ("front", "left"):
            made = root / "made" / f"{number}_{pose}.png"
            made.parent.mkdir(exist_ok=True)
            Image.new("RGB", (32, 64), tuple(colour[::-1])).save(made)
            lines.append(GeneratedImage(path.name, None, pose, made.name, 0.9 if pose == "front" else 0.3))
    (root / "data" / "labels.csv").write_text("\n".join(rows))
    assert len(Folder(root / "data").records("all")) == 12
    write_manifest(Manifest(root / "made", tuple(lines), {"generator": "ab", "pairs": "synthetic"}))
    first = ["mocov2", *SMALL, "--data", str(root / "data"), "--backbone.width", "0.125", "--out", str(root / "first")]
    pretrain.main(first, "dapg pretrain")
    return root


def run(work: Path, name: str, *words: str, first: str = "first") -> dict[str, Any]:
    out = work / name
    common = [*SMALL, "--init", str(work / first), "--data", str(work / "data"), "--data.split", "all"]
    align.main([*common, "--out", str(out), *words], "dapg align")
    return dict(read_json(out / "result.json"))


@pytest.mark.parametrize(
    ("positives", "words", "without"),
    [
        ("generated", ("--generated", "made"), 1),
        ("shuffled", ("--generated", "made"), 1),
        ("true", (), 0),
        ("original", (), None),
    ],
)
def test_every_arm_runs_and_says_what_its_positives_were(
    work: Path, positives: str, words: tuple[str, ...], without: int | None
) -> None:
    words = tuple(str(work / word) if word == "made" else word for word in words)
    result = run(work, positives, "--positives", positives, *words)
    assert result["positives"] == positives
    assert result["facts"]["pictures"] == 11  # the infrared one is left out
    assert (result["companions"]["sources_without"] if without is not None else None) == without
    if positives in ("generated", "shuffled"):
        assert result["generator"] == {"generator": "ab", "pairs": "synthetic"}
        assert result["poses"] == ["front", "left"]
    assert (work / positives / "positives.jpg").exists() == (positives != "original")
    method = load_method(work / positives)
    assert method.encode(torch.randn(2, 3, *method.input_size), Modality.VISIBLE)["backbone"].shape[0] == 2


def test_network_head_and_size_come_from_the_first_stage(work: Path) -> None:
    run(work, "frozen", "--positives", "original", "--train.optimizer.lr", "0.0")
    stored, first = read_yaml(work / "frozen" / "config.yaml"), read_yaml(work / "first" / "config.yaml")
    assert stored["backbone"]["width"] == 0.125
    assert stored["method"]["head"] == first["method"]["head"]
    before, after = (load_file(work / name / "method.safetensors") for name in ("first", "frozen"))
    weights = [key for key in before if key.startswith(("head.", "backbone.")) and key.endswith("weight")]
    assert any(key.startswith("head.") for key in weights)
    for key in weights:  # a rate of 0 leaves them as stage 1 left them
        assert torch.equal(before[key], after[key]), key
    run(work, "new head", "--positives", "original", "--train.optimizer.lr", "0.0", "--keep_head", "false")
    fresh = load_file(work / "new head" / "method.safetensors")
    heads = [key for key in weights if key.startswith("head.")]
    assert not any(torch.equal(before[key], fresh[key]) for key in heads)


@pytest.mark.parametrize("negatives", ["queue", "batch"])
def test_stage_1_may_have_had_no_momentum_encoder(work: Path, negatives: str) -> None:
    first = ["dapg", *SMALL, "--data", str(work / "data"), "--out", str(work / "batch first")]
    pretrain.main(first, "dapg pretrain")  # reused the second time
    before = load_file(work / "batch first" / "method.safetensors")
    assert not [key for key in before if key.startswith("keys.")]
    words = ("--positives", "original", "--train.optimizer.lr", "0.0", "--method.negatives", negatives)
    run(work, f"after {negatives}", *words, first="batch first")
    after = load_file(work / f"after {negatives}" / "method.safetensors")
    weights = [key for key in before if key.endswith("weight")]
    copies = [f"keys.{key}" for key in weights] if negatives == "queue" else []
    for key in [*weights, *copies]:
        assert torch.equal(before[key.removeprefix("keys.")], after[key]), key
    assert any(key.startswith("keys.") for key in after) == (negatives == "queue")


def test_pictures_that_miss_the_pose_are_dropped(work: Path) -> None:
    result = run(work, "strict", "--generated", str(work / "made"), "--least_score", "0.5")
    assert result["companions"]["pictures"] == 10  # front only, of ten visible images with generated ones
    with pytest.raises(DapgError, match="not one image has another"):
        run(work, "too strict", "--generated", str(work / "made"), "--least_score", "0.95")


def test_pictures_can_be_generated_during_training(work: Path) -> None:
    network = build_generator(GeneratorConfig("attention", 8, 1), generator_from("align generator"))
    save_generator(network, work / "g.safetensors", GeneratorFacts(64, 32, "self", {}))
    result = run(work, "fly", "--generator", str(work / "g.safetensors"), "--method.positives", "2")
    assert result["generator"]["pairs"] == "self"
    assert result["logs"]["own_positive"] == 0
    with Image.open(work / "fly" / "positives.jpg") as sheet:
        assert sheet.size == (11 * 64, 5 * 128), "eleven images, each with four poses below it"
    assert not [key for key in load_file(work / "fly" / "method.safetensors") if "fly" in key]
    with pytest.raises(UsageError, match="goes with --positives generated"):
        run(work, "both", "--generator", str(work / "g.safetensors"), "--positives", "shuffled")
    with pytest.raises(UsageError, match="no canonical pose is called up"):
        run(work, "up", "--generator", str(work / "g.safetensors"), "--poses", "[up]")


def test_poses_on_the_fly_are_those_of_the_generator_and_do_not_hang_on_the_batch() -> None:
    network = build_generator(GeneratorConfig("attention", 8, 1), generator_from("align generator")).eval()
    poses = canonical_poses()
    maker = OnTheFly(network, (64, 32), list(poses.values()))
    images = torch.randint(0, 255, (3, 3, 64, 32), dtype=torch.uint8, generator=generator_from("fly"))
    draws = SampleGenerator.for_step(0, 1, torch.arange(3))
    made = maker(images, 4, draws)
    direct = repose(network, images, torch.stack(list(poses.values())))
    for row in range(3):
        distance = (made[row][:, None].int() - direct[row][None].int()).abs().flatten(2).amax(dim=2)
        assert sorted(distance.argmin(dim=1).tolist()) == [0, 1, 2, 3]  # each pose once
        assert int(distance.amin(dim=1).max()) <= 1
    alone = maker(images[1:2], 4, SampleGenerator.for_step(0, 1, torch.tensor([1])))
    assert int((alone[0].int() - made[1].int()).abs().max()) <= 1


def test_the_sheet_shows_each_picture_above_its_positives(work: Path) -> None:
    run(work, "sheet", "--generated", str(work / "made"), "--poses", "[front]")
    with Image.open(work / "sheet" / "positives.jpg") as sheet:
        for column in range(11):
            with Image.open(work / "data" / f"{column:02d}.png") as source:
                colour = colour_at(source, (0, 0))
            below = (255, 255, 255) if column == 0 else colour[::-1]  # the first image has no positive
            for row, wanted in enumerate((colour, below)):
                found = colour_at(sheet, (64 * column + 32, 128 * row + 64))
                assert max(abs(a - b) for a, b in zip(found, wanted, strict=True)) < 12, (column, row)


def test_a_finished_alignment_on_another_version_of_the_people_is_refused(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was made before alignments noted the version is taken as it is."""
    words = ["--positives", "true", "--data", "synthetic", "--data.split", "train", "--data.persons", "4"]
    words = [*SMALL, "--init", str(work / "first"), *words, "--out", str(work / "people")]
    align.main(words, "dapg align")
    result = dict(read_json(work / "people" / "result.json"))
    assert result["data"]["version"] == Synthetic().version
    monkeypatch.setattr(Synthetic, "version", "0")
    with pytest.raises(UsageError, match="was trained on version"):
        align.main(words, "dapg align")
    result["data"]["version"] = None
    write_json(work / "people" / "result.json", result)
    align.main(words, "dapg align")


def test_what_is_missing_is_said(work: Path) -> None:
    with pytest.raises(UsageError, match="needs --generated FOLDER"):
        run(work, "none")
    with pytest.raises(UsageError, match="--streamed is for pre-training"):
        run(work, "streamed", "--positives", "original", "--streamed", "true")
    with pytest.raises(DapgError, match="dapg pose generate makes it"):
        run(work, "absent", "--generated", str(work / "data"))
    with pytest.raises(UsageError, match="has poses front, left, not back"):
        run(work, "pose", "--generated", str(work / "made"), "--poses", "[back]")
    with pytest.raises(DapgError, match=r"projection head .* does not fit"):
        run(work, "head", "--positives", "original", "--method.head.output_dim", "8")


def test_help_names_the_arms(capsys: pytest.CaptureFixture[str]) -> None:
    align.main(["--help"], "dapg align")
    text = capsys.readouterr().out
    assert "--positives shuffled" in text
    assert "dapg_align" in text
