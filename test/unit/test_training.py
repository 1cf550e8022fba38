"""The training loop: what a step does, when it is left out, how a run goes on after an end."""

import json
import math
import signal
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from common.checkpoints import native
from common.checkpoints.saving import Saver
from common.config_reading import load_config
from common.program import StopSignal, UserError
from common.training import loop, profiling
from conftest import write_config
from runs import in_a_group, make_run, start, weights
from waveglow.config import Config
from waveglow.loss import WaveGlowLoss
from waveglow.model import WaveGlow
from waveglow.wn import WN


def test_training_lowers_the_validation_loss(config, corpus, tmp_path):
    run, summary = start(config[1], corpus, tmp_path / "out", max_steps=30)
    before, after = (loss for _, loss in run.progress.validation_losses)
    assert after < before - 0.2
    assert summary.validation_loss == after
    assert summary.iteration == len(run.progress.losses) == 30
    assert not summary.stopped


@pytest.mark.parametrize("level", ["O1", "O2"])
def test_half_precision_follows_float32(config, corpus, tmp_path, level):
    """20 steps in bfloat16: measured are 0.0003 (O1) and 0.0006 (O2) at most, losses from 0.02 to -0.21."""
    exact, _ = start(config[1], corpus, tmp_path / "O0", max_steps=20)
    half, _ = start(config[1], corpus, tmp_path / level, max_steps=20, amp=level)
    difference = [abs(a - b) for a, b in zip(exact.progress.losses, half.progress.losses, strict=True)]
    assert 0 < max(difference) < 0.003


def test_accumulated_batches_are_one_larger_batch(config, corpus, tmp_path):
    whole, _ = start(config[1], corpus, tmp_path / "a", max_steps=5)
    parts, _ = start(config[1], corpus, tmp_path / "b", max_steps=5, batch_size=2, grad_accumulation=2)
    assert parts.progress.losses == pytest.approx(whole.progress.losses, abs=1e-6)


def test_accumulated_batches_all_count_as_clips_of_their_step(config, corpus, tmp_path):
    """An epoch of 12 clips is 3 steps of 4, and takes each of them once."""
    names = []

    def listen(task, run):
        original = task.loss
        task.loss = lambda model, batch: names.extend(batch["names"]) or original(model, batch)

    parts = {"batch_size": 2, "grad_accumulation": 2}
    _, summary = start(config[1], corpus, tmp_path, epochs=1, spoil=listen, **parts)
    assert summary.iteration == 3
    assert len(names) == len(set(names)) == 12
    assert summary.clips_per_second * summary.step_seconds == pytest.approx(4)
    assert summary.samples_per_second == pytest.approx(summary.clips_per_second * 2048)


def nan_in(steps):
    """Makes the loss nan in these steps, counted from 0."""

    def spoil(task, run):
        original, count = task.loss, iter(range(10**6))
        poison = lambda loss: loss * math.nan if next(count) in steps else loss  # noqa: E731
        task.loss = lambda model, batch: poison(original(model, batch)) if model.training else original(model, batch)

    return spoil


def test_a_step_that_is_not_finite_moves_nothing(config, corpus, tmp_path, caplog):
    before = weights(make_run(config[1], tmp_path))
    run, _ = start(config[1], corpus, tmp_path / "a", spoil=nan_in({0, 1}), max_steps=2)
    assert torch.equal(weights(run), before)
    assert "step skipped (2 in a row)" in caplog.text
    assert "clip" in caplog.text
    run, _ = start(config[1], corpus, tmp_path / "b", spoil=nan_in({0, 1}), max_steps=3)
    assert torch.isfinite(weights(run)).all()
    assert not torch.equal(weights(run), before)


def test_ten_steps_in_a_row_that_are_not_finite_end_the_run_naming_the_clips(config, corpus, tmp_path):
    # nine, one good, then ten
    spoil = nan_in({*range(9), *range(10, 30)})
    with pytest.raises(UserError, match=r"10 steps in a row, up to iteration 20; clips .*clip\d\d\.wav"):
        start(config[1], corpus, tmp_path / "a", spoil=spoil, max_steps=30)
    # The last finite weights are saved.
    assert all(torch.isfinite(tensor).all() for tensor in native.load(tmp_path / "a/waveglow_20")["model"].values())


def test_a_request_to_stop_writes_a_checkpoint_and_ends(config, corpus, tmp_path):
    stop = StopSignal()

    def ask_in_the_third_step(task, run):
        original = task.loss

        def loss(model, batch):
            if run.progress.iteration == 2:
                stop.requested = signal.SIGTERM
            return original(model, batch)

        task.loss = loss

    _, summary = start(config[1], corpus, tmp_path / "out", spoil=ask_in_the_third_step, stop=stop)
    assert summary.stopped
    assert summary.iteration == 3
    assert native.load(tmp_path / "out/waveglow_3")["iteration"] == 3


def test_tensorboard_on_a_full_disk_is_given_up(config, corpus, tmp_path, monkeypatch, caplog):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loop.SummaryWriter, "add_scalar", fail)
    _, summary = start(config[1], corpus, tmp_path / "out", max_steps=2, with_tensorboard=True)
    assert summary.iteration == 2
    assert caplog.text.count("no more TensorBoard logs: No space left on device") == 1


def test_weights_are_compared_now_and_then_and_before_they_are_saved(config, corpus, tmp_path, monkeypatch):
    compared = []
    monkeypatch.setattr(loop, "COMPARE_EVERY", 3)
    monkeypatch.setattr(loop, "agree_on_weights", lambda model, precision, iteration: compared.append(iteration))
    start(config[1], corpus, tmp_path / "out", max_steps=8, iters_per_checkpoint=4)
    assert compared == [3, 4, 6, 8]


def test_validations_and_checkpoints_come_at_their_iterations_and_at_the_end(config, corpus, tmp_path, monkeypatch):
    """What is handed over to be written; a disk that does not keep up may leave some of it out."""
    asked, save = [], Saver.save

    def noted(saver, path, state, loss):
        asked.append((path.name, [iteration for iteration, _ in state["progress"]["validation_losses"]]))
        save(saver, path, state, loss)

    monkeypatch.setattr(Saver, "save", noted)
    often = {"iters_per_validation": 2, "iters_per_checkpoint": 3, "keep_checkpoints": 0}
    run, _ = start(config[1], corpus, tmp_path / "out", max_steps=7, **often)
    assert asked == [("waveglow_3", [0, 2]), ("waveglow_6", [0, 2, 4, 6]), ("waveglow_7", [0, 2, 4, 6, 7])]
    assert len(run.progress.losses) == 7


def test_tensorboard_gets_curves_sound_and_pictures(config, corpus, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    start(config[1], corpus, tmp_path / "out", max_steps=3, with_tensorboard=True)
    events = EventAccumulator(str(tmp_path / "out/logs")).Reload()
    assert len(events.Scalars("loss/training")) == 3
    assert len(events.Scalars("loss/validation")) == 2
    assert {"clip/synthesized", "clip/recorded"} <= set(events.Tags()["audio"])
    assert "clip/mel spectrograms" in events.Tags()["images"]


def test_the_config_of_a_run_is_in_its_checkpoint(config, corpus, tmp_path):
    start(config[1], corpus, tmp_path / "out", max_steps=1)
    saved = native.load(tmp_path / "out/waveglow_1")["config"]
    path = write_config(tmp_path / "again.json", saved)
    assert load_config(path, Config).waveglow_config.n_flows == 2


def test_a_profile_is_written(config, corpus, tmp_path, caplog):
    caplog.set_level("INFO")
    start(config[1], corpus, tmp_path / "out", max_steps=6, profile=2)
    trace = json.loads((tmp_path / "out/profile/trace_0.json").read_text())
    assert any("conv2d" in event.get("name", "") for event in trace["traceEvents"])
    steps = {event["name"] for event in trace["traceEvents"] if event.get("name", "").startswith("ProfilerStep")}
    assert steps == {"ProfilerStep#1", "ProfilerStep#2"}  # after the first one, 0
    assert "convolution" in (tmp_path / "out/profile/operators_0.txt").read_text()
    assert caplog.text.count("crossings between device and host: 0,") == 3


def test_torch_npus_profile_is_written_to_the_folder_and_not_beside_the_repository(
    config, corpus, tmp_path, caplog, monkeypatch
):
    """Its profiler begins the folder when it is made, in the place that its handler has named by then."""
    places, written = [Path.cwd()], []

    def handler(folder, worker_name):
        places.append(Path(folder) / f"{worker_name}_20261127_ascend_pt")
        return lambda profile: written.append(profile.place)

    class Profile(torch.profiler.profile):
        def __init__(self, **options):
            super().__init__(**options)
            self.place = places[-1]

    names = ("ProfilerActivity", "schedule")
    module = SimpleNamespace(
        profile=Profile, tensorboard_trace_handler=handler, **{name: getattr(torch.profiler, name) for name in names}
    )
    monkeypatch.setattr(profiling, "profiler_module", lambda device: module)
    caplog.set_level("INFO")
    start(config[1], corpus, tmp_path / "out", max_steps=4, profile=1)
    assert written == [tmp_path / "out/profile/rank_0_20261127_ascend_pt"]
    assert f"profile: {tmp_path / 'out/profile'}" in caplog.text


@pytest.mark.parametrize("amp", ["O0", "O1"])
def test_recomputed_activations_train_the_same(config, corpus, tmp_path, monkeypatch, amp):
    values = json.loads(json.dumps(config[1]))
    # Recomputed couplings take the plain way to their conditions; the other way rounds otherwise.
    monkeypatch.setattr(WaveGlow, "_pays_to_compose", lambda *_: False)
    kept, _ = start(values, corpus, tmp_path / "kept", max_steps=4, amp=amp)
    calls = []
    forward = WN.forward
    monkeypatch.setattr(WN, "forward", lambda *args: calls.append(1) or forward(*args))
    counts = {}
    for recompute in (False, True):
        values["train_config"]["recompute"] = recompute
        calls.clear()
        run, _ = start(values, corpus, tmp_path / str(recompute), max_steps=4, amp=amp)
        counts[recompute] = len(calls)
        # In bfloat16 the flows' gradients of the mel are added up in another order.
        exact = amp == "O0" or not recompute
        assert run.progress.losses == (kept.progress.losses if exact else pytest.approx(kept.progress.losses, abs=1e-5))
    assert counts[True] - counts[False] == 4 * len(run.model.WN)


def test_recomputed_gradients_are_exchanged(tmp_path):
    """DistributedDataParallel takes each of them, once, with and without an exchange."""

    def gradients_with(recompute: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = WaveGlow(6, 2, 8, 4, 2, dict(n_layers=2, n_channels=8, kernel_size=3))
        for wn in model.WN:
            torch.nn.init.normal_(wn.end.weight, std=0.1)  # zeros let nothing through
        model.recompute = recompute
        parallel = DistributedDataParallel(model)
        for exchange in (parallel.no_sync, nullcontext):
            with exchange():
                WaveGlowLoss(1.0)(parallel(torch.randn(2, 6, 5), torch.randn(2, 512))).backward()
        return [parameter.grad for parameter in model.parameters()]

    gradients = in_a_group(tmp_path, lambda: [gradients_with(recompute) for recompute in (False, True)])
    torch.testing.assert_close(*gradients)
    assert all(gradient.any() for gradient in gradients[0])


def test_recomputed_flows_keep_no_graph():
    model = WaveGlow(6, 2, 8, 4, 2, dict(n_layers=2, n_channels=8, kernel_size=3))
    model.recompute = True
    _, log_s, _ = model(torch.randn(2, 6, 5), torch.randn(2, 512))
    assert "CheckpointFunction" in type(log_s[0].grad_fn).__name__
    assert not any("onvolution" in type(node).__name__ for node, _ in log_s[0].grad_fn.next_functions)


def test_a_profiled_run_trains_the_same(config, corpus, tmp_path):
    plain, _ = start(config[1], corpus, tmp_path / "a", max_steps=5, batch_size=2, grad_accumulation=2)
    seen, _ = start(config[1], corpus, tmp_path / "b", max_steps=5, batch_size=2, grad_accumulation=2, profile=2)
    assert seen.progress.losses == plain.progress.losses
