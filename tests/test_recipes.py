"""Pre-training presets: every method has all of them, and those that quote a source have its figures."""

from pathlib import Path
from typing import Any

import pytest

from dapg.core import plugins
from dapg.core.scales import PRESETS, SCALES
from dapg.core.settings import from_dict, read_yaml
from dapg.experiment.matrix import ARMS
from dapg.experiment.registration import Registration
from dapg.recipes import finetuning, pretraining

ROOT = Path(__file__).resolve().parents[1]
METHODS = plugins.names("methods.pretraining")


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_every_preset(method: str, preset: str) -> None:
    made = pretraining(method, preset)
    assert made.name == method
    assert made.train.total_steps(100.0) > 0
    if preset in ("small", "demo"):
        assert 0 < made.train.steps <= 300
        assert made.data.name == "synthetic"
        assert made.method.views.size == SCALES[preset].size
        assert (made.loader.height, made.loader.width) == SCALES[preset].decoded


@pytest.mark.parametrize("method", plugins.names("methods.finetuning"))
def test_the_small_scale_is_what_was_gated(method: str) -> None:
    """docs/explanation/experiment.md; a network that begins as ImageNet's, short, its first layers fixed."""
    made: Any = finetuning(method, "small")
    backbone, train = made.backbone, made.train
    network = (backbone.name, backbone.init, backbone.end, backbone.fixed)
    assert network == ("mobilenet_v2", "imagenet", "layer3", "layer1")
    assert (train.steps, train.batch_size, made.pictures, train.optimizer.lr) == (400, 64, 2, 2e-3)
    assert (made.method.views.size, made.method.network.stripes) == ((96, 48), 6)
    assert made.method.views.mixing == (None if method == "caj" else 0.6)  # CAJ exchanges channels itself
    assert finetuning(method, "small", "random").backbone.name == "resnet18"
    published: Any = finetuning(method, "gpu")
    assert published.method.views.mixing is None


def test_only_recommended_adds_to_the_method() -> None:
    """The other presets are compared with other methods, or are the paper's."""
    configs: dict[str, Any] = {preset: pretraining("dapg", preset).method for preset in PRESETS}
    assert {preset: (config.views.mixing, config.positives_reduction) for preset, config in configs.items()} == {
        preset: (0.6, "mean_outside") if preset == "recommended" else (None, "sum_inside") for preset in PRESETS
    }
    registered = from_dict(Registration, read_yaml(ROOT / "results" / "registration.yaml"), "")
    changes = ARMS[registered.arm].changes
    assert changes == {"views.mixing": 0.6, "positives_reduction": "mean_outside"}, "what is registered is recommended"


def test_pnl_has_its_script_s_schedule() -> None:
    train = pretraining("pnl").train
    assert (train.epochs, train.optimizer.name, train.optimizer.lr, train.optimizer.lr_batch) == (90, "sgd", 0.4, 1536)
    assert (train.schedule.name, train.schedule.milestones) == ("step", (40.0, 80.0))


@pytest.mark.parametrize("method, rate", [("simclr", 0.3), ("byol", 0.45)])
def test_simclr_and_byol_have_lightly_s_rates(method: str, rate: float) -> None:
    optimizer = pretraining(method).train.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.lr_batch) == ("lars", rate, 256)
