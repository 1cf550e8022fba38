"""The tests' stand-in for CUDA graphs refuses what a graph refuses, and replays what was recorded alone."""

import pytest
import torch
from graph_tape import WaitError, taped

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.sum().item(), lambda x: float(x[0]), lambda x: bool((x > 0).any()), lambda x: x.tolist(),
        lambda x: x.numpy(), lambda x: x.cpu(), lambda x: x[x > 0], lambda x: x.nonzero(),
        lambda x: torch.masked_select(x, x > 0), lambda x: x.unique(), lambda x: torch.equal(x, x),
        lambda x: torch.allclose(x, x), lambda x: x + torch.tensor([1.0, 2.0, 3.0]),
        lambda x: x.repeat_interleave(torch.tensor([1, 2, 3])),
    ],
)  # fmt: skip
def test_the_host_cannot_wait(work):
    x = torch.tensor([1.0, -2.0, 3.0])
    with pytest.raises(WaitError):
        taped(lambda: work(x), CPU)


def test_recording_changes_nothing_and_a_replay_takes_the_numbers_of_now():
    x, total, steps = torch.tensor([1.0, 2.0]), torch.zeros(2), [10]

    def work():
        total.add_(x * steps[0])
        return total * 2

    replay = taped(work, CPU)
    assert total.tolist() == [0, 0]
    steps[0] = 99  # what Python knows is that of the recording
    assert replay().tolist() == [20, 40]
    x.copy_(torch.tensor([0.0, 1.0]))
    result = replay()
    assert result.tolist() == [20, 60] and total.tolist() == [10, 30]
    assert replay() is result


def test_a_replay_computes_in_the_precision_of_the_recording():
    x, weight = torch.randn(5, 64), torch.randn(64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        replay = taped(lambda: x @ weight, CPU)
        expected = x @ weight
        assert torch.equal(replay(), expected)
    assert torch.equal(replay(), expected) and expected.dtype == torch.bfloat16
