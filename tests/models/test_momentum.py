import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dapg.core import distributed
from dapg.core.errors import UsageError
from dapg.core.rng import SampleGenerator
from dapg.models.momentum import KeyEncoder, KeyQueue, momentum_at, momentum_copy, update_momentum


def small_network(seed: int) -> nn.Module:
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        nn.init.normal_(parameter, generator=generator)
    return network


def test_a_copy_shares_nothing_and_takes_no_gradient() -> None:
    online = small_network(0)
    target = momentum_copy(online)
    before = target.get_parameter("0.weight").clone()
    with torch.no_grad():
        online.get_parameter("0.weight").add_(1)
    assert torch.equal(target.get_parameter("0.weight"), before)
    assert not any(parameter.requires_grad for parameter in target.parameters())
    assert all(parameter.requires_grad for parameter in online.parameters())


def test_three_updates_equal_the_recurrence_written_out() -> None:
    online, target = small_network(0), momentum_copy(small_network(1))
    expected = {name: value.clone() for name, value in target.named_parameters()}
    for _ in range(3):
        for name, value in online.named_parameters():
            expected[name] = 0.9 * expected[name] + 0.1 * value.detach()
        update_momentum(target, online, 0.9)
    for name, value in target.named_parameters():
        torch.testing.assert_close(value, expected[name])


def test_buffers_stay_or_are_copied() -> None:
    online, target = small_network(0), momentum_copy(small_network(1))
    online(torch.randn(4, 2, generator=torch.Generator().manual_seed(2)))
    update_momentum(target, online, 0.5)
    assert torch.equal(target.get_buffer("1.running_mean"), torch.zeros(3))
    update_momentum(target, online, 0.5, buffers="copy")
    assert torch.equal(target.get_buffer("1.running_mean"), online.get_buffer("1.running_mean"))
    assert target.get_buffer("1.num_batches_tracked") == 1


def test_another_network_or_momentum_is_refused() -> None:
    with pytest.raises(ValueError, match="not a copy"):
        update_momentum(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)), 0.9)
    with pytest.raises(UsageError, match=r"\[0, 1\]"):
        update_momentum(nn.Linear(2, 2), nn.Linear(2, 2), 1.1)


def test_momentum_rises_along_half_a_cosine() -> None:
    assert momentum_at(0, 100, 0.99) == pytest.approx(0.99)
    assert momentum_at(50, 100, 0.99) == pytest.approx(0.995)
    assert momentum_at(100, 100, 0.99) == pytest.approx(1.0)
    assert momentum_at(25, 100, 0.99) == pytest.approx(1 - 0.01 * (2**-0.5 + 1) / 2)


@given(size=st.integers(1, 9), pushes=st.lists(st.integers(1, 12), max_size=6))
@settings(max_examples=60, deadline=None)
def test_the_queue_holds_the_last_keys_whatever_the_batch_sizes(size: int, pushes: list[int]) -> None:
    """Against a Python list: wrap-around where the size is no multiple of the batch, batches above the size."""
    queue = KeyQueue(size, 2)
    history: list[int] = []
    for count in pushes:
        fresh = list(range(len(history) + 1, len(history) + 1 + count))
        queue.push(torch.tensor([[value, -value] for value in fresh], dtype=torch.float32), torch.tensor(fresh))
        history += fresh
    keys, labels, valid = queue.contents()
    assert sorted(keys[valid][:, 0].tolist()) == history[-size:]
    assert torch.equal(keys[valid][:, 0].long(), labels[valid])
    assert valid.sum() == min(len(history), size)
    assert (labels[~valid] == -1).all()
    assert (keys[~valid] == 0).all()


def test_the_oldest_is_replaced_first() -> None:
    queue = KeyQueue(3, 1)
    queue.push(torch.tensor([[1.0], [2.0]]))
    queue.push(torch.tensor([[3.0], [4.0]]))
    assert queue.keys.flatten().tolist() == [4.0, 2.0, 3.0]
    assert queue.position == 1


def test_the_queue_travels_in_the_state_dict() -> None:
    queue, other = KeyQueue(5, 2), KeyQueue(5, 2)
    queue.push(torch.ones(3, 2), torch.tensor([7, 8, 9]))
    other.load_state_dict(queue.state_dict())
    for each in (queue, other):
        each.push(torch.full((4, 2), 2.0), torch.tensor([1, 2, 3, 4]))
    for mine, theirs in zip(queue.contents(), other.contents(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_push_before_backward_leaves_the_loss_alone() -> None:
    queue = KeyQueue(4, 2)
    queue.push(torch.ones(2, 2))
    query = torch.ones(1, 2, requires_grad=True)
    keys, labels, _ = queue.contents()
    loss = (query @ keys.T).sum()  # backward needs the keys of now
    queue.push(torch.full((4, 2), 5.0), torch.tensor([1, 2, 3, 4]))
    assert labels.tolist() == [-1, -1, -1, -1]
    loss.backward()
    assert query.grad is not None
    assert query.grad.tolist() == [[2.0, 2.0]]


def test_synchronised_and_absent_batch_norms_need_no_shuffling(monkeypatch: pytest.MonkeyPatch) -> None:
    """With several processes images travel to others' batches, unless all processes are one batch to batch norm."""

    def refuse(rows: torch.Tensor) -> torch.Tensor:
        raise AssertionError("images were sent")

    monkeypatch.setattr(distributed, "active", lambda: True)
    monkeypatch.setattr(distributed, "gather_without_gradient", refuse)
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    keys = KeyEncoder(backbone, nn.Linear(4, 2), 0.9, 8, 2).eval()
    view, generator = torch.rand(2, 3, 8, 4), SampleGenerator(torch.arange(2))
    with pytest.raises(AssertionError, match="images were sent"):
        keys(view, generator)
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(keys)
    assert synchronised(view, generator).shape == (2, 2)
    without = KeyEncoder(nn.Conv2d(3, 4, 3), nn.Linear(4, 2), 0.9, 8, 2)
    assert without(view, generator).shape == (2, 2)
