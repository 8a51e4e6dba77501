"""Training of pose generators: pairs without test persons, exact resume, what is left behind."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from dapg.augment.carry import carry
from dapg.augment.skeleton import draw_skeletons
from dapg.cli import main
from dapg.core.batch import BadImage, Batch
from dapg.core.errors import DataError, UsageError
from dapg.core.images import decode
from dapg.core.train_config import DataConfig
from dapg.core.types import UNKNOWN, Modality, Record
from dapg.data.loading import LoaderConfig, training_batches
from dapg.data.sets.synthetic import Synthetic
from dapg.losses.adversarial import feature_loss
from dapg.models.pn_gan import AttentionGenerator, GeneratorConfig
from dapg.models.weights.pose_weights import GENERATOR_FILE, load_generator
from dapg.pose import pairs
from dapg.pose.key_point_table import TABLE, KeyPointTable, write_table
from dapg.pose.mask import person_mask
from dapg.pose.pairs import Pairs, PairSampler, exact_points, held_out_persons, make_pairs, persons_tested
from dapg.pose.recipe import PAPER, PRESETS, settings
from dapg.pose.train_gan import (
    GanSettings,
    GanTrainConfig,
    Networks,
    _optimizer,
    _Step,
    open_pairs,
    rate_factor,
    train_gan,
)


@pytest.fixture(autouse=True, scope="module")
def points_are_read_once() -> Iterator[None]:
    """The embedded people's key points, which most tests ask for, from their archive the first time only."""
    read, known = pairs.exact_points, dict[Any, Any]()

    def once(dataset: Any, records: Sequence[Record]) -> Any:
        if not isinstance(dataset, Synthetic):
            return read(dataset, records)
        key = dataset.root, tuple(records)
        if key not in known:
            known[key] = read(dataset, records)
        return known[key].clone()

    with mock.patch.object(pairs, "exact_points", once):
        yield


def small(out: Path, **changes: Any) -> GanSettings:
    """Four steps of two pairs at 64 x 32; the discriminator comes in after the second."""
    base = settings("demo")
    return replace(
        base,
        generator=GeneratorConfig("attention", width=8, blocks=1, carry=True),
        discriminator=replace(base.discriminator, width=4),
        losses=replace(base.losses, adversarial_from=0.5),
        train=replace(base.train, steps=4, batch_size=2, checkpoint_every=2, log_every=1),
        out=str(out),
        device="cpu",
        **changes,
    )


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# ---- pairs -----------------------------------------------------------------------------------------------------------


def records() -> list[Record]:
    """Person 1: two images in camera 1, one in camera 2, one infrared; person 2: one; one of nobody."""
    return [
        Record("a", 1, 1),
        Record("b", 1, 1),
        Record("c", 1, 2),
        Record("d", 1, 3, Modality.INFRARED),
        Record("e", 2, 1),
        Record("f"),
    ]


def points(count: int = 6) -> torch.Tensor:
    return torch.rand(count, 18, 3, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.8


def names(pairs: Pairs) -> set[str]:
    listed = records()
    return {
        listed[s].path + listed[t].path for s, t in zip(pairs.sources.tolist(), pairs.targets.tolist(), strict=True)
    }


def test_pairs_by_hand() -> None:
    assert names(make_pairs(records(), points(), "labels")) == {"ab", "ba", "ac", "ca", "bc", "cb"}
    assert names(make_pairs(records(), points(), "synthetic")) == {"ab", "ba"}
    assert names(make_pairs(records(), points(), "self")) == {"aa", "bb", "cc", "dd", "ee", "ff"}
    assert names(make_pairs(records(), points(), "groups", {"a": 7, "f": 7, "e": 8})) == {"af", "fa"}


def test_targets_can_be_the_further_pictures_only() -> None:
    assert names(make_pairs(records(), points(), "labels", first_target=2)) == {"ac", "bc"}


def test_pictures_without_usable_key_points_are_in_no_pair() -> None:
    unsure = points()
    unsure[1, :, 2] = 0
    pairs = make_pairs(records(), unsure, "labels")
    assert names(pairs) == {"ac", "ca"}
    assert pairs.without_points == 1
    with pytest.raises(UsageError, match="no pair"):
        make_pairs(records(), unsure, "synthetic")


def test_an_epoch_holds_every_pair_once() -> None:
    pairs = make_pairs(records(), points(), "labels")
    sampler = PairSampler(pairs, 2, seed=0)
    assert sampler.steps_per_epoch == 3
    seen = [pair for step in range(3) for pair in zip(sampler.batch(step)[:2], sampler.batch(step)[2:], strict=True)]
    assert sorted(seen) == sorted(zip(pairs.sources.tolist(), pairs.targets.tolist(), strict=True))
    assert [sampler.batch(step) for step in range(3)] != [sampler.batch(step) for step in range(3, 6)]


@pytest.mark.parametrize("kind", ["synthetic", "labels", "self"])
def test_no_test_person_is_in_any_pair(kind: Any, tmp_path: Path) -> None:
    base = small(tmp_path)
    data = open_pairs(replace(base, pairs=replace(base.pairs, kind=kind)))
    people = Synthetic()
    test = set(people.persons("test"))
    used = {data.records[number].person for number in {*data.pairs.sources.tolist(), *data.pairs.targets.tolist()}}
    assert used == set(people.persons("train"))
    assert not used & test
    assert persons_tested(people) == test
    assert held_out_persons(people) == test | set(people.persons("val"))


def test_held_out_persons_of_another_set_are_left_out(tmp_path: Path) -> None:
    base = small(tmp_path, data=DataConfig(split="val"))
    with pytest.raises(UsageError, match="would spoil every score"):
        train_gan(base)
    held = replace(base, pairs=replace(base.pairs, held_out="synthetic"))
    with pytest.raises(UsageError, match="no pair"):  # all of the split's persons are held out
        open_pairs(held)


def test_test_persons_in_the_training_pictures_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    people = Synthetic()
    monkeypatch.setattr(Synthetic, "records", lambda self, split: self._shots(people.persons("test")[0], 1))
    with pytest.raises(UsageError, match="test persons are in the training images"):
        open_pairs(small(tmp_path))


def folder_settings(folder: Path, labels: str, kind: Any) -> GanSettings:
    """A folder of two images, with key points beside them."""
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (32, 64)).save(folder / name)
    if labels:
        (folder / "labels.csv").write_text(labels)
    write_table(folder / TABLE, KeyPointTable((("a.png", None), ("b.png", None)), points(2)))
    base = small(folder.with_suffix(".run"), data=DataConfig("folder", str(folder)))
    return replace(base, pairs=replace(base.pairs, kind=kind))


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ("", "self"),
        ("path,person\na.png,ann\nb.png,ann\n", "labels"),
        ("path,person,split\na.png,ann,train\nb.png,ann,train\n", "labels"),
    ],
)
def test_a_folder_that_sets_no_test_person_apart_can_be_trained_on(labels: str, kind: Any, tmp_path: Path) -> None:
    chosen = folder_settings(tmp_path / "images", labels, kind)
    assert len(open_pairs(chosen).pairs) == 2
    held = replace(chosen, pairs=replace(chosen.pairs, held_out=str(tmp_path / "images")))
    with pytest.raises(UsageError, match="sets no test or validation persons apart"):
        open_pairs(held)


def test_test_rows_of_a_folder_are_refused(tmp_path: Path) -> None:
    labels = "path,person,split\na.png,ann,train\nb.png,ann,test\n"
    with pytest.raises(UsageError, match="test persons are in the training images"):
        open_pairs(folder_settings(tmp_path / "images", labels, "self"))


def test_exact_points_are_parts_of_the_picture() -> None:
    people = Synthetic()
    record = people.records("train")[0]
    (found,) = exact_points(people, [record])
    stored = people.key_points(record)
    torch.testing.assert_close(found[:, 0] * 96, stored[:, 0])
    torch.testing.assert_close(found[:, 1] * 192, stored[:, 1])
    assert set(found[:, 2].tolist()) <= {0.0, 0.5, 1.0}


def test_mask_covers_the_body_and_not_the_corners() -> None:
    people = Synthetic()
    chosen = [record for record in people.records("train") if people.truth(record)["occluder"] == "none"][:20]
    body = exact_points(people, chosen)
    mask = person_mask(body, (128, 64))
    assert mask.shape == (20, 1, 128, 64)
    assert 0 <= float(mask.min()) <= float(mask.max()) == 1
    covered = [
        float(mask[row, 0, int(y * 128), int(x * 64)]) > 0.5
        for row in range(20)
        for x, y, seen in body[row].tolist()
        if seen and 0 < x < 1 and 0 < y < 1
    ]
    assert sum(covered) >= 0.93 * len(covered)  # a limb is lost when its other end is outside the image
    exact = torch.tensor([people.truth(record)["mask_area"] for record in chosen])
    assert float((mask.mean(dim=(1, 2, 3)) / exact).median()) == pytest.approx(1.0, abs=0.25)


# ---- training --------------------------------------------------------------------------------------------------------


def test_published_schedule_by_hand() -> None:
    config = GanTrainConfig(by_epoch=True)  # 20 epochs, here of 3 steps
    factors = [rate_factor(step, 60, 3, config) for step in range(60)]
    assert factors[:30] == [1.0] * 30
    assert factors[30:36] == pytest.approx([0.9] * 3 + [0.8] * 3)
    assert factors[57:] == pytest.approx([0.0] * 3)
    smooth = GanTrainConfig(steps=10, constant=0.5)
    assert [rate_factor(step, 10, 99, smooth) for step in (0, 5, 6, 9)] == pytest.approx([1, 1, 0.8, 0.2])


def test_paper_is_the_published_training() -> None:
    assert (PAPER.generator.kind, PAPER.generator.width, PAPER.generator.blocks) == ("residual", 64, 9)
    assert (PAPER.losses.adversarial, PAPER.losses.reconstruction, PAPER.losses.features) == (1.0, 10.0, 0.0)
    assert (PAPER.losses.real, PAPER.losses.person_weight, PAPER.losses.adversarial_from) == ("source", 1.0, 0.0)
    assert (PAPER.train.lr, PAPER.train.beta_1, PAPER.train.beta_2) == (2e-4, 0.5, 0.999)
    assert (PAPER.train.batch_size, PAPER.train.epochs, PAPER.train.average) == (32, 20.0, 0.0)
    assert (PAPER.pairs.kind, PAPER.pairs.mirror, PAPER.data.name) == ("labels", False, "market1501")
    assert (PAPER.loader.height, PAPER.loader.width) == (256, 128)


@pytest.mark.parametrize("preset", [name for name in PRESETS if name not in ("paper", "recommended")])
def test_presets_build(preset: str) -> None:
    Networks(settings(preset))


def test_resume_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped between the two phases and taken up again: every weight and every logged number as in one go."""
    by_three = replace(small(tmp_path).train, log_every=3)  # the stop after step 3 comes in a window of two phases
    from dapg.pose import train_gan as module

    def with_a_bad_picture(*arguments: Any) -> Iterator[Batch]:
        for step, batch in enumerate(training_batches(*arguments), arguments[2].start_step):
            yield batch if step else replace(batch, bad_images=(BadImage("a.jpg", "cut off", "b.jpg"),))

    monkeypatch.setattr(module, "training_batches", with_a_bad_picture)
    expected = train_gan(replace(small(tmp_path / "whole"), train=by_three))
    assert expected["bad_images"] == {"a.jpg": ["cut off", "b.jpg"]}
    update = module._Step.__call__

    def breaks(self: _Step, batch: Batch, step: int, total: int) -> object:
        if step == 3:
            raise KeyboardInterrupt
        return update(self, batch, step, total)

    monkeypatch.setattr(module._Step, "__call__", breaks)
    with pytest.raises(KeyboardInterrupt):
        train_gan(replace(small(tmp_path / "cut"), train=by_three))
    monkeypatch.setattr(module._Step, "__call__", update)
    result = train_gan(replace(small(tmp_path / "cut"), train=by_three))
    assert result["steps"] == 4
    assert [line["step"] for line in metrics(tmp_path / "cut")] == [3, 4]
    assert (result["logs"], result["bad_images"]) == (expected["logs"], expected["bad_images"])
    whole, cut = (load_file(tmp_path / name / GENERATOR_FILE) for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    states = [tmp_path / name / "checkpoints" / "step_00000004" / "method.safetensors" for name in ("whole", "cut")]
    first, second = (load_file(path) for path in states)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "cut")
    assert train_gan(small(tmp_path / "cut"))["reused"]


def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_none_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A turned bit changes no length. A run that nothing can be read of is not begun again unasked."""
    base = small(tmp_path / "run")
    train_gan(base)
    weights = tmp_path / "run" / "checkpoints" / "step_00000004" / "method.safetensors"
    expected, torn = weights.read_bytes(), bytearray(weights.read_bytes())
    torn[len(torn) // 2] ^= 128
    weights.write_bytes(torn)
    (tmp_path / "run" / "result.json").unlink()
    train_gan(base)
    assert f"{weights.parent} is damaged; going on from step 2" in capsys.readouterr().err
    assert weights.read_bytes() == expected, "its steps were done again"
    for manifest in tmp_path.glob("run/checkpoints/*/manifest.json"):
        manifest.write_text("[]")
    (tmp_path / "run" / "result.json").unlink()
    with pytest.raises(DataError, match=r"no checkpoint below .* can be read; delete .* to begin again"):
        train_gan(base)


def test_what_a_run_leaves_says_what_its_pairs_were(tmp_path: Path) -> None:
    result = train_gan(small(tmp_path / "run"))
    lines = metrics(tmp_path / "run")
    assert [set(line) >= {"fools", "tells_apart"} for line in lines] == [False, False, True, True]
    _, facts = load_generator(tmp_path / "run")
    assert (facts.height, facts.width, facts.supervision) == (64, 32, "synthetic")
    assert not facts.saw_identities
    assert "rendered persons" in (tmp_path / "run" / "README.md").read_text()
    assert result["person_numbers"] == Synthetic().persons("train")
    continued = small(tmp_path / "next", init=str(tmp_path / "run"))
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            Networks(continued).generator.state_dict().values(),
            load_generator(tmp_path / "run")[0].state_dict().values(),
            strict=True,
        )
    )


def test_self_pairs_go_there_and_back_and_labels_are_named(tmp_path: Path) -> None:
    base = small(tmp_path / "self", data=DataConfig(subset=8))  # unlabelled images
    result = train_gan(replace(base, pairs=replace(base.pairs, kind="self")))
    assert {"cycle", "trust"} <= set(metrics(tmp_path / "self")[0])
    assert result["person_numbers"] == []
    assert "no labels" in (tmp_path / "self" / "README.md").read_text()
    labelled = small(tmp_path / "labels")
    labelled = replace(labelled, pairs=replace(labelled.pairs, kind="labels"), train=replace(labelled.train, steps=1))
    train_gan(labelled)
    assert "SAW IDENTITY LABELS" in (tmp_path / "labels" / "README.md").read_text()
    assert load_generator(tmp_path / "labels")[1].saw_identities


def test_published_settings_train_at_a_small_size(tmp_path: Path) -> None:
    base = replace(
        PAPER,
        generator=GeneratorConfig("residual", 4, 1),
        discriminator=replace(PAPER.discriminator, width=4),
        data=DataConfig(split="train"),
        train=replace(PAPER.train, steps=2, batch_size=2, log_every=1),
        loader=LoaderConfig(height=64, width=64, workers=0),
        out=str(tmp_path / "paper"),
    )
    train_gan(base)
    first = metrics(tmp_path / "paper")[0]
    assert set(first) == {"step", "kind", "lr", "reconstruction", "fools", "tells_apart"}


def test_one_pair_is_learnt(tmp_path: Path) -> None:
    base = small(tmp_path / "run")
    train = replace(base.train, steps=40, batch_size=1, average=0.0, constant=1.0, lr=3e-3)
    data = DataConfig(split="train", subset=8)
    lone = replace(base, train=train, losses=replace(base.losses, adversarial=0.0, features=0.0), data=data)
    train_gan(replace(lone, pairs=replace(lone.pairs, kind="self", mirror=False)))
    lines = metrics(tmp_path / "run")
    early, late = (sum(line["reconstruction"] for line in part) for part in (lines[:8], lines[-8:]))
    assert late < 0.7 * early


def test_identity_looks_at_the_person_alone(tmp_path: Path) -> None:
    """Another background costs nothing; another person costs, and the less the nearer it comes."""
    base = small(tmp_path)
    base = replace(base, losses=replace(base.losses, features=0.0, identity=2.0))
    networks = Networks(base)
    step = _Step(base, networks, _optimizer(networks, base.train), points(), torch.device("cpu"))
    pictures = torch.rand(2, 3, 64, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    person = torch.zeros(2, 1, 64, 32)
    person[:, :, 16:48, 8:24] = 1
    wanted = step._recognise(pictures, person)
    grey_before = step._recognise(torch.where(person > 0, pictures, torch.zeros(())), torch.ones_like(person))
    elsewhere = step._recognise(torch.where(person > 0, pictures, torch.ones(())), person)
    for found in (grey_before, elsewhere):
        assert float(feature_loss(found, wanted)) < 1e-5
    other = pictures.flip(0)
    costs = [float(feature_loss(step._recognise(pictures.lerp(other, part), person), wanted)) for part in (0.1, 0.5, 1)]
    assert 0.01 < costs[0] < costs[1] < costs[2]
    train_gan(replace(base, train=replace(base.train, steps=1), out=str(tmp_path / "run")))
    assert {"identity", "reconstruction"} <= set(metrics(tmp_path / "run")[0])
    assert "features" not in metrics(tmp_path / "run")[0]


def test_what_is_carried_is_judged_coarsely_and_what_is_painted_finely(tmp_path: Path) -> None:
    """By hand for one step: the terms are those of the image painted and of the parts laid over it."""
    base = small(tmp_path)
    base = replace(base, pairs=replace(base.pairs, mirror=False, uncarried=0.0))
    networks, data = Networks(base), open_pairs(base)
    step = _Step(base, networks, _optimizer(networks, base.train), data.pairs.points, torch.device("cpu"))
    numbers = [int(data.pairs.sources[0]), int(data.pairs.targets[0])]
    records = [data.records[number] for number in numbers]
    images = torch.stack([decode(data.dataset.read(record), (64, 32), None, record.path) for record in records])
    source, target = (images / 127.5 - 1).split(1)
    own, points = data.pairs.points[numbers].split(1)
    generator = networks.generator
    assert isinstance(generator, AttentionGenerator)
    with torch.no_grad():
        parts = carry(source, own, points)
        painted, trust = generator.paint(source, 2 * draw_skeletons(points, (64, 32)) - 1, parts)
        made = painted + parts[:, 3:] * trust * (parts[:, :3] - painted)
    weights = 1 + 2 * person_mask(points, (64, 32))

    def difference(first: torch.Tensor, second: torch.Tensor, by: torch.Tensor) -> float:
        return float(((first - second).abs().mean(dim=1, keepdim=True) * by).sum() / by.sum())

    pooled = [torch.nn.functional.avg_pool2d(each, 8) for each in (made, target, weights)]
    wanted = {
        "reconstruction": 10 * difference(painted, target, weights),
        "coarse": 10 * difference(*pooled),
        "trust": 2.5 * float((parts[:, 3:] * (1 - trust)).mean()),
    }
    unknown = torch.full((2,), UNKNOWN)
    logs = step(Batch(images, unknown, unknown, unknown, torch.tensor(numbers)), 0, 4)
    assert wanted == {name: pytest.approx(float(logs[name]), rel=1e-4) for name in wanted}


def test_some_pairs_get_nothing_carried(tmp_path: Path) -> None:
    """All of them: trust costs nothing, and what was laid over is what was painted."""
    base = small(tmp_path / "run")
    train_gan(replace(base, pairs=replace(base.pairs, uncarried=1.0)))
    assert {line["trust"] for line in metrics(tmp_path / "run")} == {0.0}
    published = replace(base, generator=replace(base.generator, carry=False), out=str(tmp_path / "plain"))
    train_gan(published)
    assert not {"trust", "coarse"} & set(metrics(tmp_path / "plain")[0])


def test_a_painter_learns_to_carry(tmp_path: Path) -> None:
    """The first step begins with what the painter painted; a generator of another width is refused."""
    base = small(tmp_path / "painter")
    train_gan(replace(base, generator=replace(base.generator, carry=False)))
    painter, _ = load_generator(tmp_path / "painter")
    start = Networks(replace(base, init=str(tmp_path / "painter"))).generator
    picture, pose = (torch.rand(1, 3, 64, 32, generator=torch.Generator().manual_seed(n)) for n in (1, 2))
    torch.testing.assert_close(start(picture, pose), painter(picture, pose))
    assert all(weight.requires_grad for weight in start.parameters())
    wider = replace(base, generator=replace(base.generator, width=16), init=str(tmp_path / "painter"))
    with pytest.raises(UsageError, match="not GeneratorConfig"):
        Networks(wider)


def test_a_trained_generator_goes_on(tmp_path: Path) -> None:
    """By the command: ``--init`` is the generator here, not a backbone."""
    first, second = tmp_path / "first", tmp_path / "second"
    words = "pose train --preset demo --train.batch_size 2 --device cpu --train.average 0 --losses.adversarial 0"
    assert main([*words.split(), *f"--train.steps 2 --out {first}".split()]) == 0
    assert main([*words.split(), *f"--train.steps 1 --train.lr 0 --init {first} --out {second}".split()]) == 0
    start, end = (load_file(folder / GENERATOR_FILE) for folder in (first, second))
    assert all(torch.equal(start[name], end[name]) for name in start)
    assert "seed 0, from .../first." in (second / "README.md").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loader": LoaderConfig(height=60, width=32)}, "multiples of 16"),
        ({"data": DataConfig(split="test")}, "would spoil every score"),
        ({"loader": LoaderConfig(height=64, width=16)}, "halvings"),
    ],
)
def test_wrong_settings(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        train_gan(replace(small(tmp_path / "run"), **change))
