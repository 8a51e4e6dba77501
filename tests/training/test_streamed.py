"""Pre-training from tars in streamed order."""

from dataclasses import replace
from pathlib import Path

import pytest

from dapg.core.errors import UsageError
from dapg.core.train_config import BackboneConfig, DataConfig
from dapg.data.sets.folder import Folder
from dapg.data.shards.pack import pack
from dapg.recipes import pretraining
from dapg.training.pretrain import pretrain
from dapg.training.training_settings import PretrainSettings
from figures import make_figures


def recipe(data: DataConfig, out: Path) -> PretrainSettings:
    base = pretraining("mocov2", "demo")
    train = replace(base.train, steps=0, epochs=2.0, batch_size=12)
    small = replace(base, data=data, backbone=BackboneConfig("resnet18", width=0.125), train=train, device="cpu")
    return replace(small, streamed=True, out=str(out))


def test_packed_pictures_are_streamed_and_others_are_refused(tmp_path: Path) -> None:
    figures = make_figures(tmp_path / "figures", persons=6, pictures=2)
    pack(Folder(figures), tmp_path / "tars", per_shard=10)
    result = pretrain(recipe(DataConfig("shards", str(tmp_path / "tars")), tmp_path / "run"))
    assert result["steps"] == 3  # two passes over the 18 images of train, 12 at a time; the other 18 are test images
    assert result["data"]["pictures"] == 18
    for data in (DataConfig("folder", str(figures)), DataConfig("shards", str(tmp_path / "tars"), subset=8)):
        with pytest.raises(UsageError, match="packed set"):
            pretrain(recipe(data, tmp_path / "other"))
