"""What to run in alignment (stage 2): complete settings at each scale, fitted to the stage-1 run they start from.

``recommended`` and ``paper`` are for Market-1501 without labels, as in the paper; ``gpu``, ``tiny`` and ``demo`` for
the embedded synthetic people (split ``train``, whose persons are known, so that every ablation arm can run on it).
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from dapg.core.presets import require_preset
from dapg.core.run_folder import CONFIG
from dapg.core.settings import from_dict, read_yaml, to_dict
from dapg.data.loading import LoaderConfig
from dapg.data.source import DataConfig
from dapg.methods.runs import BackboneConfig, method_class
from dapg.recipes.pretraining import small
from dapg.train.align import AlignSettings
from dapg.train.loop import TrainConfig
from dapg.train.optimizers import OptimizerConfig, ScheduleConfig
from dapg.train.pretrain import PretrainSettings


def settings(method: str, preset: str = "recommended", init: str | PretrainSettings = "") -> AlignSettings:
    """Complete settings of a method at a scale.

    Args:
        method: a file of ``methods/alignment``.
        preset: the scale.
        init: where the first weights come from. Of a run's folder the network, the input size and the head's shape
            are taken over too, and just so of the settings of a run that need not have been made yet.

    Raises:
        UsageError: unknown method or preset, or a folder that is no run.
    """
    require_preset(preset)
    kind = method_class("align", method)
    builders: dict[str, Callable[[str, Any], AlignSettings]] = {
        "recommended": _recommended,
        "paper": lambda name, _: _paper(name, kind.paper()),
        "gpu": _gpu,
        "tiny": _tiny,
        "demo": _demo,
    }
    chosen = builders[preset](method, kind.Config())
    return chosen if not init else _start_from(chosen, init)


def _start_from(chosen: AlignSettings, init: str | PretrainSettings) -> AlignSettings:
    """The same for the network of an earlier run."""
    if isinstance(init, PretrainSettings):
        stored, init = to_dict(init), init.out
    elif (Path(init) / CONFIG).is_file():
        stored = read_yaml(Path(init) / CONFIG)
    else:
        return replace(chosen, backbone=replace(chosen.backbone, init=init))
    backbone = replace(from_dict(BackboneConfig, stored["backbone"], "backbone"), init=init)
    before = stored.get("method", {})
    method, loader = chosen.method, chosen.loader
    if "head" in before and set(before["head"]) == set(vars(method.head)):
        method = replace(method, head=from_dict(type(method.head), before["head"], "head"))
    if "views" in before:
        height, width = int(before["views"]["height"]), int(before["views"]["width"])
        method = replace(method, views=replace(method.views, height=height, width=width))
        loader = replace(loader, height=height, width=width)
    return replace(chosen, backbone=backbone, method=method, loader=loader)


def _recommended(name: str, config: Any) -> AlignSettings:
    """ResNet-50 at 256 x 128 on Market-1501's training pictures, 200 epochs (paper), SGD 0.03 for 256, bf16."""
    return AlignSettings(
        name=name,
        method=config,
        data=DataConfig(name="market1501", split="train"),
        backbone=BackboneConfig("resnet50"),
        loader=LoaderConfig(workers=8),
        train=TrainConfig(
            epochs=200.0,
            batch_size=256,
            optimizer=OptimizerConfig("sgd", lr=0.03, weight_decay=1e-4),
            schedule=ScheduleConfig(warmup=10.0, by_epoch=True),
            precision="bf16",
        ),
        out=f"outputs/align/{name}",
    )


def _paper(name: str, config: Any) -> AlignSettings:
    """The printed settings: Adam at 0.0075, 200 epochs, 64 pictures a step; it goes on after a collapse."""
    base = _recommended(name, config)
    optimizer = OptimizerConfig("adam", lr=0.0075, lr_batch=0, weight_decay=0.0)
    train = replace(
        base.train, batch_size=64, optimizer=optimizer, schedule=ScheduleConfig(), on_collapse="warn", precision="fp32"
    )
    return replace(base, train=train, out=f"outputs/align/{name}-paper")


def _gpu(name: str, config: Any) -> AlignSettings:
    """The recommended settings on the embedded people: one GPU, some minutes."""
    base = _recommended(name, config)
    return replace(base, data=DataConfig(split="train"), out=f"outputs/align/{name}-gpu")


def _tiny(name: str, config: Any) -> AlignSettings:
    """A quarter-width ResNet-18 at 128 x 64 with AdamW, 64 pictures a step.

    A twentieth of stage 1's rate: at half of it, the network forgets what it learnt there (docs/results.md).
    """
    return AlignSettings(
        name=name,
        method=small(config, 128, 64),
        data=DataConfig(split="train"),
        backbone=BackboneConfig("resnet18", width=0.25),
        loader=LoaderConfig(height=128, width=64, workers=1),
        train=TrainConfig(
            steps=200,
            batch_size=64,
            optimizer=OptimizerConfig("adamw", lr=1e-4, lr_batch=0, weight_decay=1e-4),
            schedule=ScheduleConfig(unit="steps", warmup=20.0),
            checkpoint_every=50,
        ),
        out=f"outputs/align/{name}-tiny",
    )


def _demo(name: str, config: Any) -> AlignSettings:
    """The tiny network at 64 x 32 for a few seconds: shows that everything runs, not how well it can."""
    base = _tiny(name, config)
    return replace(
        base,
        method=small(config, 64, 32),
        loader=replace(base.loader, height=64, width=32),
        train=replace(base.train, steps=60, checkpoint_every=30),
        out=f"outputs/align/{name}-demo",
    )
