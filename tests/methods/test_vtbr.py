"""VTBR's captions: from what rendered people wear to tokens, and what dropout draws from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dapg.cli import main
from dapg.core.batch import Batch
from dapg.core.errors import DataError, UsageError
from dapg.core.rng import SampleGenerator, generator_from
from dapg.core.train_config import DataConfig
from dapg.core.types import Modality, Record
from dapg.data.captions import CaptionSettings, captions, garment_sentence
from dapg.methods.base import DataFacts
from dapg.methods.pretraining.vtbr import VTBR, tokens
from dapg.methods.runs import load_method
from dapg.models.backbones.resnet18 import ResNet18
from dapg.models.captioner import END, FIRST_WORD, PADDING, START


def method_of(file: Path, records: list[Record], **changes: Any) -> VTBR:
    config = VTBR.Config(captions=str(file), vocabulary=50, length=8, width=16, attention_heads=2, hidden=32, **changes)
    config = replace(config, views=replace(config.views, height=32, width=32))
    backbone = ResNet18(ResNet18.Config(width=0.125), generator_from("backbone"))
    return VTBR(config, backbone, DataFacts(len(records), (0,), records), generator_from("head")).train()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "captions.tsv"
    path.write_text("b.jpg\ta black coat\na.jpg\tRed shoes, a red hat!\n")
    return path


def test_sentences_from_garments() -> None:
    garments = {"upper": "navy wool coat, band white", "lower": "black jeans", "shoes": "red shoes04"}
    garments["hair"] = "grey bob01"
    assert garment_sentence(garments) == (
        "a person with grey bob hair wears navy wool coat, band white, black jeans and red shoes"
    )
    assert garment_sentence({"lower": "denim denim jeans", "scarf": "red wool scarf"}, 1) == (
        "somebody in denim jeans and red wool scarf has no visible hair"
    )


def test_tokens_are_the_words_between_start_and_end() -> None:
    row = tokens("Red shoes, a RED hat!", 50, 8)
    assert (row[0], row[6], row[7]) == (START, END, PADDING)
    assert row[1] == row[4] >= FIRST_WORD
    assert len(tokens("one two three four five six seven eight", 50, 8)) == 8
    assert tokens("one two three four five six seven eight", 50, 8)[-1] == END


def test_each_picture_keeps_its_caption_whatever_the_order_of_the_file(file: Path) -> None:
    records = [Record("a.jpg"), Record("b.jpg")]
    method = method_of(file, records)
    assert method.captions.tolist() == [tokens("red shoes a red hat", 50, 8), tokens("a black coat", 50, 8)]
    assert "captions" not in method.state_dict()


def test_pictures_without_a_caption_are_left_out(file: Path) -> None:
    config = VTBR.Config(captions=str(file))
    assert [r.path for r in config.labelled([Record("c.jpg"), Record("a.jpg")])] == ["a.jpg"]
    with pytest.raises(DataError, match="no caption is given for any"):
        config.labelled([Record("c.jpg")])
    with pytest.raises(UsageError, match="dapg data caption"):
        VTBR.Config().labelled([Record("c.jpg")])


def test_dropout_draws_from_the_samples_and_leaves_torch_s_generator_alone(file: Path) -> None:
    method = method_of(file, [Record("a.jpg"), Record("b.jpg")], dropout=0.5)
    ones = torch.ones(2, dtype=torch.int64)
    batch = Batch(torch.full((2, 3, 32, 32), 90, dtype=torch.uint8), ones, ones, ones, torch.arange(2))

    def loss(step: int) -> float:
        torch.manual_seed(torch.seed())
        before = torch.get_rng_state()
        found = float(method(batch, SampleGenerator.for_step(0, step, torch.arange(2))).loss.detach())
        assert torch.equal(torch.get_rng_state(), before)
        return found

    assert loss(0) == loss(0)
    assert loss(0) != loss(1)


def test_the_captioner_has_its_own_rate(file: Path) -> None:
    groups = method_of(file, [Record("a.jpg")], text_rate=0.005).parameter_groups(0.2, 1e-4)
    assert [group["lr"] for group in groups] == [0.2, pytest.approx(0.001)]


def test_unlabelled_people_are_described_by_what_they_wear(tmp_path: Path) -> None:
    found = captions(CaptionSettings(DataConfig(split="unlabelled", subset=5)))
    assert len(found) == 5
    assert all(" hair" in sentence for sentence in found.values())
    Image.new("RGB", (32, 64)).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match="only of rendered people"):
        captions(CaptionSettings(DataConfig("folder", str(tmp_path))))


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, run = tmp_path / "captions.tsv", tmp_path / "run"
    assert main(f"data caption synthetic --data.subset 20 --out {file}".split()) == 0
    assert "20 images, such as:" in capsys.readouterr().out
    words = f"pretrain vtbr --preset demo --method.captions {file} --train.steps 2 --train.batch_size 4"
    assert main([*words.split(), *f"--loader.workers 0 --device cpu --out {run}".split()]) == 0
    read_back = load_method(run)
    assert read_back.encode(torch.randn(2, 3, 64, 32), Modality.VISIBLE)["backbone"].shape[0] == 2
