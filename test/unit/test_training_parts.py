"""Beside the loop: whose batches are loaded how, what is profiled, and TensorBoard's logs."""

import logging
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common import distributed
from common.config import TrainConfig
from common.device import pick_device
from common.layers.npu import Crossings
from common.program import UserError
from common.training import batches, profiling, tensorboard
from common.training.batches import StepSampler, shuffled, to_device, training_batches
from common.training.profiling import profiled
from common.training.tensorboard import SummaryWriter, TensorBoard

CPU = pick_device("cpu")
CARDS = [replace(CPU, type=kind) for kind in ("cuda", "npu")]


# ---- batches ----


def test_the_order_of_an_epoch_is_drawn_from_seed_and_epoch():
    for seed, epoch in ((1, 0), (1, 3), (7, 3)):
        expected = np.random.default_rng([seed, epoch]).permutation(11)
        assert shuffled(11, seed)(epoch).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "world_size"), [(1, 1, 1), (2, 3, 1), (3, 1, 2), (2, 2, 2), (1, 2, 3)]
)
@pytest.mark.parametrize(("epoch", "done"), [(0, 0), (2, 1), (1, 2)])
def test_processes_take_a_step_each_after_the_other_and_whole_steps_alone(
    batch_size, accumulation, world_size, epoch, done
):
    """Of 13 clips; and go on after the steps of the epoch that are done."""
    share, per_step = batch_size * accumulation, batch_size * accumulation * world_size
    order = lambda epoch: 100 * epoch + np.arange(13)  # noqa: E731
    steps = [
        (each, 100 * each + first)
        for each in range(epoch, epoch + 3)
        for first in range(done * per_step if each == epoch else 0, 13 - per_step + 1, per_step)
    ]
    for rank in range(world_size):
        sampler = StepSampler(order, batch_size, accumulation, rank, world_size)
        assert sampler.clips_per_step == per_step
        if (epoch, done) != (0, 0):  # where it begins
            sampler.start_at(epoch, done * per_step)
        expected = [
            [(each, first + rank * share + part * batch_size + i) for i in range(batch_size)]
            for each, first in steps
            for part in range(accumulation)
        ]
        assert list(islice(sampler, len(expected))) == expected


@pytest.mark.parametrize(("device", "pinned"), [(CPU, False), (CARDS[0], True), (CARDS[1], False)])
@pytest.mark.parametrize(("workers", "timeout"), [(0, 0), (3, 600)])
def test_a_loader_has_the_processes_that_are_configured_and_does_not_wait_forever(
    monkeypatch, workers, timeout, device, pinned
):
    """A time limit goes with processes alone, pinned memory with CUDA cards."""
    asked = []
    monkeypatch.setattr(batches, "load", lambda dataset, **options: asked.append((dataset, options)) or ["a", "b"])
    monkeypatch.setattr(distributed, "ranks", lambda: distributed.Ranks(1, 2, 1))
    config = TrainConfig(batch_size=2, grad_accumulation=3, workers=workers)
    begin = training_batches("set", shuffled(12, 1), config, device, collate=sum)
    assert list(begin(5, 12)) == ["a", "b"]
    ((dataset, options),) = asked
    sampler = options.pop("batch_sampler")
    expected = {"collate_fn": sum, "num_workers": workers, "timeout": timeout, "pin_memory": pinned}
    assert dataset == "set" and options == expected
    assert (sampler.batch_size, sampler.share, sampler.rank, sampler.clips_per_step) == (2, 6, 1, 12)
    assert (sampler.epoch, sampler.first) == (5, 12)


def test_clips_for_one_step_are_enough(monkeypatch):
    monkeypatch.setattr(distributed, "ranks", lambda: distributed.Ranks(0, 2, 0))
    config = TrainConfig(batch_size=2, grad_accumulation=3)
    training_batches("set", shuffled(12, 1), config, CPU)
    with pytest.raises(UserError) as error:
        training_batches("set", shuffled(11, 1), config, CPU)
    assert str(error.value) == (
        "11 training clips do not make one step of 12 clips (2 x 3 x 2 processes): lower --batch_size"
    )


@pytest.mark.parametrize("dtype", [None, torch.float16])
@pytest.mark.parametrize("device", [CPU, *CARDS])
def test_a_batch_comes_to_the_device_in_the_precision_asked_for(device, dtype):
    for given in (torch.tensor([1.5, 70000.0]), torch.tensor([3, 4])):
        there = to_device(given, device, dtype)
        assert there.dtype == (dtype or given.dtype)
        assert torch.equal(there, given.to(there.dtype))


def test_only_a_cuda_card_converts_after_the_copy_which_need_not_be_waited_for():
    class Noted(torch.Tensor):
        calls = []

        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            if function is torch.Tensor.to:
                cls.calls.append((args[1:], kwargs or {}))
            return super().__torch_function__(function, types, args, kwargs)

    for device in (CPU, *CARDS):
        to_device(torch.ones(2).as_subclass(Noted), device, torch.float16)
    cpu = CPU.torch_device
    plain = ((cpu, torch.float16), {})
    assert Noted.calls == [plain, ((cpu,), {"non_blocking": True}), ((torch.float16,), {}), plain]


# ---- profile ----


@pytest.fixture
def profiler(monkeypatch):
    """Stands in for a profiler's module, and notes what is asked of it."""
    asked = []
    profile = SimpleNamespace(step=lambda: asked.append("step"))

    @contextmanager
    def profile_of(**options):
        asked.append(("profile", options.pop("activities"), options.pop("schedule")))
        profile.report = options.pop("on_trace_ready")
        assert not options
        yield profile
        asked.append("end")

    module = SimpleNamespace(
        ProfilerActivity=SimpleNamespace(CPU="cpu", CUDA="cuda"), profile=profile_of,
        schedule=lambda **options: options,
        tensorboard_trace_handler=lambda *args, **options: lambda found: asked.append((args, options, found)),
    )  # fmt: skip
    monkeypatch.setattr(profiling, "profiler_module", lambda device: module)
    return SimpleNamespace(asked=asked, profile=profile, module=module)


def test_a_step_is_all_of_its_batches_and_some_steps_after_the_first_are_profiled(
    profiler, tmp_path, monkeypatch, caplog
):
    """The crossings of each of these, and of the first, are logged: here one for each batch."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(profiling, "ranks", lambda: distributed.Ranks(3, 4, 3))
    config = TrainConfig(output_directory=str(tmp_path / "out"), profile=2, grad_accumulation=3)
    crossings = Crossings()
    found = profiled(iter(range(100)), config, replace(CPU, type="npu"), crossings)
    taken = []
    for batch in islice(found, 16):
        taken.append(batch)
        crossings.count += 1
    found.close()
    assert taken == list(range(16))
    schedule = {"wait": 0, "warmup": 1, "active": 2, "repeat": 1}
    assert profiler.asked == [("profile", ["cpu"], schedule), *["step"] * 5]
    assert [record.message.split(", ")[0] for record in caplog.records] == ["crossings between device and host: 3"] * 3
    folder = tmp_path / "out/profile"
    assert folder.is_dir()
    profiler.profile.report("a profile")
    assert profiler.asked[-1] == ((str(folder),), {"worker_name": "rank_3"}, "a profile")
    assert caplog.messages[-1] == f"profile: {folder}"


def test_a_card_is_profiled_beside_the_processor(profiler, tmp_path):
    config = TrainConfig(output_directory=str(tmp_path), profile=1)
    next(profiled(iter("ab"), config, replace(CPU, type="cuda"), Crossings()))
    assert sorted(profiler.asked[0][1]) == ["cpu", "cuda"]


def test_the_crossings_of_a_step_are_those_since_the_one_before(caplog):
    caplog.set_level("INFO")
    before, now = Crossings(3, 1_000_000, 0.5, 0.25), Crossings(7, 3_500_000, 0.75, 0.375)
    profiling._log_crossings(before, now)
    assert "device and host: 4, 2.5 MB, 250.0 ms; computing on the host: 125.0 ms" in caplog.text


@pytest.mark.parametrize(("kind", "sort_by"), [("cuda", "self_cuda_time_total"), ("cpu", "self_cpu_time_total")])
def test_a_trace_and_a_table_are_written_by_rank(tmp_path, monkeypatch, caplog, kind, sort_by):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(profiling, "ranks", lambda: distributed.Ranks(3, 4, 3))
    averages = SimpleNamespace(table=lambda **options: f"the table by {options}")
    profile = SimpleNamespace(export_chrome_trace=lambda path: open(path, "w").close(), key_averages=lambda: averages)
    profiling._report(profile, tmp_path, replace(CPU, type=kind))
    table = f"the table by {dict(sort_by=sort_by, row_limit=20)}"
    assert {path.name for path in tmp_path.iterdir()} == {"trace_3.json", "operators_3.txt"}
    assert (tmp_path / "operators_3.txt").read_text() == table
    assert f"profile: {tmp_path / 'trace_3.json'} (" in caplog.text and table in caplog.text


# ---- TensorBoard ----


def test_tensorboard_does_what_it_is_asked_with_its_writer(monkeypatch):
    made, done = [], []
    monkeypatch.setattr(tensorboard, "SummaryWriter", lambda folder: made.append(folder) or "writer")
    TensorBoard("a/logs").write(lambda *args: done.append(args), "loss", 0.5, 3)
    TensorBoard("").write(lambda *args: done.append(args))
    assert made == ["a/logs"] and done == [("writer", "loss", 0.5, 3)]


def test_the_first_process_alone_writes_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, is_written in ((1, False), (0, True)):
        monkeypatch.setenv("RANK", str(rank))
        board = TensorBoard(str(tmp_path / "logs"))
        board.write(SummaryWriter.close)
        assert (tmp_path / "logs").exists() == is_written


def test_after_a_failure_tensorboard_writes_no_more_and_says_so_once(monkeypatch, caplog):
    monkeypatch.setattr(tensorboard, "SummaryWriter", lambda folder: "writer")

    def fail(*args):
        called.append(args)
        raise OSError(28, "No space left on device")

    called = []
    board = TensorBoard("logs")
    board.write(fail, 1)
    board.write(fail, 2)
    assert called == [("writer", 1)] and caplog.messages == ["no more TensorBoard logs: No space left on device"]
    monkeypatch.setattr(tensorboard, "SummaryWriter", fail)
    TensorBoard("logs").write(fail, 3)
    assert called[1:] == [("logs",)]


def test_a_mistake_is_not_taken_for_a_full_disk(monkeypatch):
    monkeypatch.setattr(tensorboard, "SummaryWriter", lambda folder: "writer")
    with pytest.raises(ZeroDivisionError):
        TensorBoard("logs").write(lambda writer: 1 / 0)
