"""Every method keeps its contract, before anyone writes a test for it."""

from dataclasses import replace

import pytest
import torch

from dapg.contracts.methods import built, checks, draws, optimizer_of, some_batch, train_steps
from dapg.core import plugins
from dapg.core.scales import Stage
from dapg.methods.contrastive import PairConfig
from dapg.methods.runs import FOLDERS, method_class

METHODS = [(stage, name) for stage, folder in FOLDERS.items() for name in plugins.names(folder)]
CASES = [(stage, name, check) for stage, name in METHODS for check in checks(stage)]


@pytest.mark.parametrize(("stage", "name", "check"), CASES)
def test_method_keeps_its_contract(stage: Stage, name: str, check: str) -> None:
    checks(stage)[check](name)


@pytest.mark.parametrize("name", plugins.names("methods.pretraining"))
def test_corrupted_views_train_too(name: str) -> None:
    """Where a method offers them; its two views are then parts of one noise chain."""
    config = method_class("pretrain", name).Config()
    if not isinstance(config, PairConfig):
        pytest.skip("this method has no choice of views")
    losses = []
    for settings in (replace(config, pair="corrupted"), config):
        with built("pretrain", name, settings) as method:
            losses.append(train_steps(method, optimizer_of(method), range(2)))
    assert all(torch.isfinite(torch.tensor(losses[0])))
    assert losses[0] != losses[1]


def test_methods_were_found() -> None:
    assert {("pretrain", name) for name in ("byol", "mocov2", "simclr", "supervised")} <= set(METHODS)
    assert ("align", "dapg_align") in METHODS
    assert ("finetune", "agw") in METHODS


def test_a_batch_has_both_modalities_of_each_person() -> None:
    batch = some_batch()
    assert sorted(zip(batch.persons.tolist(), batch.modalities.tolist(), strict=True)) == [
        (person, modality) for person in range(6) for modality in (1, 2)
    ]
    assert draws(0).seeds.shape == (12,)
