"""``dapg.train``: a folder in, a network that ``dapg.load`` takes out."""

import json
from pathlib import Path

import pytest

import dapg
from dapg.core.errors import DataError, UsageError
from figures import make_figures

SMALL = {"loader.workers": 0, "backbone.width": 0.125, "device": "cpu", "seed": 3}


def test_a_folder_is_pretrained_on_and_its_persons_are_fine_tuned_on(tmp_path: Path) -> None:
    people = make_figures(tmp_path / "people", persons=8)
    first = dapg.train(
        people, "mocov2", out=tmp_path / "first", init="random", preset="demo", steps=1,
        settings={**SMALL, "train.batch_size": 8},
    )  # fmt: skip
    assert json.loads((first / "result.json").read_text())["data"]["pictures"] == 24, "those of its training persons"
    second = dapg.train(
        people, "agw", out=tmp_path / "second", init=first, preset="demo", steps=2,
        settings={**SMALL, "train.batch_size": 16, "pictures": 2},
    )  # fmt: skip
    result = json.loads((second / "result.json").read_text())
    assert (result["steps"], result["facts"]["persons"]) == (2, [0, 1, 2, 3])
    weights = json.loads((first / "result.json").read_text())["weights"]["backbone.safetensors"]
    assert result["init"]["sha256"] == weights, "it begins where the first one ended"
    features = dapg.load(second, device="cpu").encode(people / "camera3" / "005_0.png", "infrared")
    assert features.norm().item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "mocov3"}, UsageError, "did you mean 'mocov2'"),
        ({"preset": "smal"}, UsageError, "did you mean 'small'"),
        ({"settings": {"train.step": 1}}, UsageError, r"settings\.train\.step is not a setting; did you mean 'steps'"),
        ({"steps": -1}, UsageError, r"settings\.train\.steps must be"),
        ({"method": "agw"}, UsageError, r"labels\.csv says who"),
        ({"data": "nowhere/at/all"}, DataError, "nowhere"),
    ],
)
def test_mistakes_are_named(arguments: dict[str, str], error: type[Exception], message: str, tmp_path: Path) -> None:
    people = make_figures(tmp_path / "people", persons=2, pictures=1)
    (people / "labels.csv").unlink()
    with pytest.raises(error, match=message):
        dapg.train(**{"data": people, "out": tmp_path / "out", **arguments})  # type: ignore[arg-type]
