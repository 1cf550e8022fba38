"""One step of the optimizer: which gradients it takes, when it is left out, what several processes tell each other."""

import os
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing, nn

from common import distributed
from common.config import TrainConfig
from common.device import pick_device
from common.precision import Precision
from common.program import StopSignal
from common.training import loop
from common.training.averaging import WeightAverage
from common.training.run import Progress, Run

CPU = pick_device("cpu")


class Toy(nn.Module):
    """loss = weight · x, so that x is the gradient; ``seen`` sums up what went in, as batch norm's statistics do."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("seen", torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += x.detach()
        return self.weight @ x


def make_toy(**settings) -> Run:
    """With an optimizer that goes down the gradient as it is: Adam's steps do not tell how long that was."""
    model = Toy()
    precision = Precision("O0", 1.0, CPU, model)
    optimizer = torch.optim.SGD(precision.master_params, lr=1.0)
    config = SimpleNamespace(train_config=TrainConfig(**settings))
    average = WeightAverage(0.5, model, precision)
    return Run("toy", config, CPU, model, precision, optimizer, average, progress=Progress(100, first_iteration=100))


def step(run: Run, *gradients, loss=Toy.__call__, asked=0, model=None) -> tuple[float, bool, bool]:
    """A step over batches with these gradients."""
    stop = StopSignal()
    stop.requested = asked
    batches = [torch.tensor(gradient) for gradient in gradients]
    return loop.step(run, loss, model or run.model, batches, stop, lambda *_, **__: None)


def moved(run: Run) -> list[float]:
    """By what the weights were lowered."""
    return (-run.model.weight).tolist()


def test_a_step_goes_down_the_gradient():
    run = make_toy()
    assert step(run, [3.0, 4.0]) == (0.0, True, False)
    assert moved(run) == [3, 4]
    assert step(run, [1.0, 1.0]) == (-7.0, True, False)
    assert moved(run) == [4, 5]


@pytest.mark.parametrize(("limit", "expected"), [(0.0, [3, 4]), (5.5, [3, 4]), (2.0, [1.2, 1.6]), (0.01, [6e-3, 8e-3])])
def test_gradients_are_scaled_down_to_the_norm_of_grad_clip(limit, expected):
    run = make_toy(grad_clip=limit)
    step(run, [3.0, 4.0])
    assert moved(run) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("limit", [0.0, 2.0])
def test_the_norm_is_that_before_clipping(limit):
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([2.0]), torch.tensor([3.0, 6.0])
    assert loop.clip_gradients(parameters, limit, CPU).item() == pytest.approx(7)


@pytest.mark.parametrize("limit", [0.0, 2.0])
def test_operators_on_lists_are_used_only_where_the_device_has_them(monkeypatch, limit):
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(3)]
    norms, called = torch._foreach_norm, []
    monkeypatch.setattr(torch, "_foreach_norm", lambda *args: called.append(1) or norms(*args))
    for has, expected in ((True, 1), (False, 0)):
        for parameter in parameters:
            parameter.grad = torch.ones(1)
        monkeypatch.setattr(loop, "has_foreach", lambda device, has=has: has)
        called.clear()
        assert loop.clip_gradients(parameters, limit, CPU).item() == pytest.approx(3**0.5)
        assert len(called) == expected


@pytest.mark.parametrize(("limit", "expected"), [(0.0, [2, 1]), (1.0, [2 / 5**0.5, 1 / 5**0.5])])
def test_accumulated_gradients_and_losses_are_averaged_and_then_clipped(limit, expected):
    run = make_toy(grad_clip=limit)
    run.model.weight.data[:] = torch.tensor([1.0, 0.0])
    loss, *_ = step(run, [3.0, 0.0], [3.0, 0.0], [0.0, 3.0])
    assert loss == pytest.approx(2)
    assert [1 - run.model.weight[0].item(), -run.model.weight[1].item()] == pytest.approx(expected, rel=1e-5)


def test_gradients_are_exchanged_with_the_last_batch_of_a_step(monkeypatch):
    told = []
    reduced, backward = distributed.gradients_reduced, Precision.backward
    monkeypatch.setattr(distributed, "gradients_reduced", lambda model, now: told.append(now) or reduced(model, now))
    monkeypatch.setattr(Precision, "backward", lambda self, loss, last: told.append(last) or backward(self, loss, last))
    step(make_toy(), [1.0, 0.0], [1.0, 0.0], [1.0, 0.0])
    step(make_toy(), [1.0, 0.0])
    assert told == [False, False, False, False, True, True, True, True]


def infinite_gradient(model: Toy, x: torch.Tensor) -> torch.Tensor:
    """A loss of 0 whose gradient is not finite: the slope of a root at 0."""
    return (model(0 * x) ** 2).sqrt()


def infinite_loss(model: Toy, x: torch.Tensor) -> torch.Tensor:
    """With the gradient x all the same."""
    return model(x) + torch.inf


@pytest.mark.parametrize("limit", [0.0, 5.5])
@pytest.mark.parametrize(
    ("loss", "x"),
    [(infinite_gradient, 1.0), (infinite_loss, 1.0), (Toy.__call__, torch.nan)],
)
def test_a_step_with_a_loss_or_a_gradient_that_is_not_finite_moves_nothing(limit, loss, x):
    run = make_toy(grad_clip=limit)
    step(run, [1.0, 1.0])
    before = [tensor.clone() for tensor in (run.model.seen, run.average.weights["weight"])]
    assert step(run, [1.0, 1.0], [x, 1.0], loss=loss)[1] is False
    assert moved(run) == [1, 1]
    assert torch.equal(torch.stack(before), torch.stack([run.model.seen, run.average.weights["weight"]]))
    assert step(run, [3.0, 4.0])[1] is True
    assert moved(run) == [4, 5]


def test_the_average_takes_in_the_weights_behind_the_step():
    """The step of this number of the run, not of those it was finetuned from: the first one counts 10 in 11."""
    run = make_toy()
    step(run, [11.0, 0.0])
    assert run.average.weights["weight"].tolist() == pytest.approx([-10, 0])
    run.progress.iteration += 1
    step(run, [0.0, 12.0])
    assert run.average.weights["weight"].tolist() == pytest.approx([-10 - 10 / 12, -10])


def validated(run: Run, rank: int) -> list[list[float]]:
    """The statistics with which this rank validates: its own ones, and the averaged ones, are those of its clips."""
    seen = []
    task = SimpleNamespace(validate=lambda: seen.append(run.model.seen.tolist()) or 0.0, show=None)
    run.average.weights["seen"][:] = 2 + rank
    loop.validate(run, task, loop.TensorBoard(""))
    run.average = None
    run.model.seen[:] = 4 + rank
    loop.validate(run, task, loop.TensorBoard(""))
    return seen


def on_a_rank(rank: int, folder: str) -> None:
    """Steps of two processes: a plain one, one with a fault on rank 1, and one in which rank 1 is asked to stop."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(minutes=4)
    )
    run = make_toy()
    run.model.weight.data[:] = 1
    model = distributed.wrap(run.model, CPU)
    found = []
    for gradients, options in (
        ([[4.0, 0.0], [0.0, 8.0 * rank]], {}),
        ([[1.0, 1.0]], {"loss": infinite_loss} if rank == 1 else {}),
        ([[0.0, 0.0]], {"asked": 15 * rank}),
    ):
        outcome = step(run, *gradients, model=model, **options)
        found.append((*outcome, run.model.weight.tolist()))
    torch.save((found, validated(run, rank)), f"{folder}/{rank}")
    dist.destroy_process_group()


def test_processes_do_the_same_step_and_share_what_one_of_them_knows(tmp_path):
    """The mean loss and gradient, that one had no finite loss or was asked to stop, and the first one's statistics."""
    multiprocessing.start_processes(on_a_rank, (str(tmp_path),), nprocs=2, start_method="forkserver")
    (ours, validated_ours), (theirs, validated_theirs) = (torch.load(tmp_path / str(rank)) for rank in range(2))
    plain, fault, asked = ours
    # Rank 0 has the losses 4 and 0, rank 1 those 4 and 8.
    assert plain == (4.0, True, False, [-1.0, -1.0])
    assert fault[1:] == (False, False, plain[3])
    assert asked[1:] == (True, True, plain[3])
    assert theirs[0] == plain and theirs[1][1:] == fault[1:] and theirs[2] == asked
    assert validated_ours == validated_theirs == [[2, 2], [4, 4]]


@pytest.mark.parametrize("more", [0, 1, 7])
def test_on_an_npu_gradients_have_memory_of_their_own_from_the_first_step_on(monkeypatch, more):
    """However little larger what they are a part of is; those that have it already stay where they are."""
    monkeypatch.setattr(torch, "npu", SimpleNamespace(utils=SimpleNamespace(is_support_inf_nan=lambda: True)), False)
    layer = torch.nn.Linear(2, 2)
    precision = Precision("O1", 1.0, replace(CPU, type="npu"), layer)
    whole, own = torch.arange(4.0 + more), torch.ones(2)
    layer.weight.grad, layer.bias.grad = whole[:4].view(2, 2), own
    assert not precision.unscale_gradients()
    assert layer.weight.grad.tolist() == [[0, 1], [2, 3]] and layer.bias.grad is own
    assert layer.weight.grad.untyped_storage().nbytes() == layer.weight.grad.nbytes
    assert (layer.weight.grad.data_ptr() == whole.data_ptr()) == (more == 0)
