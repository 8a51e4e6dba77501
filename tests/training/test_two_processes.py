"""Every pre-training method on two local processes: the queue, the gathered rows and the weights are those of one."""

import functools
from pathlib import Path
from typing import Any

import method_steps
import pytest
import torch
from method_steps import BATCH, CASES, build, draws, run, view_of

import warm_processes

QUEUED = ("mocov2", "mocov2-corrupted", "dapg")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left behind."""
    folder = tmp_path_factory.mktemp("two")
    for rank in warm_processes.start_ranks(method_steps.main, folder, folder=folder):
        rank.succeed()
    return folder


@functools.cache
def alone(case: str) -> dict[str, Any]:
    """What one process ends with."""
    return run(case)


def left_by(folder: Path, case: str, rank: int) -> dict[str, Any]:
    return dict(torch.load(folder / f"{case}.rank{rank}.pt", weights_only=True))


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_like_one(folder: Path, case: str) -> None:
    """Same batch, batch norm in evaluation mode: weights, momentum copies and queue after three steps."""
    one, ranks = alone(case), [left_by(folder, case, rank) for rank in (0, 1)]
    losses = (ranks[0]["losses"] + ranks[1]["losses"]) / 2
    torch.testing.assert_close(losses, one["losses"], atol=1e-5, rtol=1e-5)
    fresh, moved = build(case).state_dict(), 0
    for name, tensor in one["state"].items():
        for rank in ranks:
            torch.testing.assert_close(rank["state"][name], tensor, atol=1e-5, rtol=1e-4, msg=f"{name} differs")
        moved += not torch.equal(tensor, fresh[name])
    assert moved > 20, "so that equality means something"


@pytest.mark.parametrize("case", QUEUED)
def test_the_queue_is_the_same_on_both_ranks_and_in_the_batch_s_order(folder: Path, case: str) -> None:
    """To the bit between ranks; and in the order of one process, which pushes sample after sample."""
    queues = [left_by(folder, case, rank)["state"]["keys.queue.keys"] for rank in (0, 1)]
    assert torch.equal(*queues)
    state = alone(case)["state"]
    assert int(state["keys.queue.filled"]) == 20
    assert int(state["keys.queue.position"]) == 3 * BATCH - 20
    order = (queues[0] @ state["keys.queue.keys"].T).argmax(dim=1)
    assert torch.equal(order, torch.arange(20))


def test_keys_are_encoded_in_shuffled_batches_and_come_back_in_order(folder: Path) -> None:
    """Batch norm in training mode: the halves that saw one another are those of the order by seed."""
    found = torch.cat([left_by(folder, "mocov2", rank)["keys"] for rank in (0, 1)])
    method = build("mocov2")
    method.load_state_dict(left_by(folder, "mocov2", 0)["state"])
    method.train()
    order = draws(9, slice(None)).fork("shuffle").seeds.argsort()
    assert sorted(order[: BATCH // 2].tolist()) != list(range(BATCH // 2)), "or shuffling would change nothing"
    views, expected = view_of(slice(None)), torch.empty_like(found)
    keys: Any = method.keys
    encode = keys._encode
    with torch.no_grad():
        for half in order.chunk(2):
            expected[half] = encode(views[half])
        unshuffled = torch.cat([encode(part) for part in views.chunk(2)])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found, unshuffled, atol=1e-3)
