"""The training loop: what a step does, when it is left out, how a run goes on after an end."""

import json
import math
import os
import signal

import pytest
import torch

from common import checkpoint, training
from common.config import from_dict, load_config
from common.device import make_adam, pick_device
from common.precision import Precision
from common.program import StopSignal, UserError
from common.progress import Run
from conftest import write_config
from waveglow.config import Config, build_model
from waveglow.train import make_task

CPU = pick_device("cpu")


def make_run(config: Config) -> Run:
    train = config.train_config
    torch.manual_seed(train.seed)
    model = build_model(config)
    precision = Precision(train.amp or "O0", train.loss_scale, CPU, model)
    return Run("waveglow", config, CPU, model, precision, make_adam(precision.master_params, train.learning_rate, CPU))


def start(values, corpus, output, resume="auto", **changes):
    """Train with the configuration and changes to its train_config; (run, summary)."""
    train = values["train_config"] | {"output_directory": str(output)} | changes
    config = from_dict(Config, values | {"train_config": train})
    run = make_run(config)
    task = make_task(run, str(corpus))
    run.start(resume)
    return run, training.train(run, task, StopSignal())


def weights(run):
    return torch.cat([p.detach().float().flatten() for p in run.precision.master_params])


def test_training_lowers_the_validation_loss(config, corpus, tmp_path):
    run, summary = start(config[1], corpus, tmp_path / "out", max_steps=30)
    before, after = (loss for _, loss in run.progress.validation_losses)
    assert after < before - 0.2
    assert summary.validation_loss == after
    assert summary.iteration == len(run.progress.losses) == 30
    assert not summary.stopped


@pytest.mark.parametrize("amp", ["O0", "O1", "O2"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_equals_an_undisturbed_one(config, corpus, tmp_path, amp, workers):
    """Bit for bit, from the middle of an epoch (3 steps long) and across its end."""
    changes = {"amp": amp, "workers": workers}
    whole, _ = start(config[1], corpus, tmp_path / "whole", max_steps=7, **changes)
    start(config[1], corpus, tmp_path / "parts", max_steps=4, **changes)
    resumed, summary = start(config[1], corpus, tmp_path / "parts", max_steps=7, **changes)
    assert summary.iteration == 7
    assert resumed.progress.losses == whole.progress.losses
    assert torch.equal(weights(resumed), weights(whole))


def test_a_fresh_optimizer_would_show(config, corpus, tmp_path):
    """The test above can fail: weights alone do not make the same run."""
    whole, _ = start(config[1], corpus, tmp_path / "whole", max_steps=7)
    start(config[1], corpus, tmp_path / "parts", max_steps=4)
    path = tmp_path / "parts/waveglow_4"
    state = checkpoint.load(path)
    state["optimizer"]["state"] = {}
    checkpoint.save(path, state)
    resumed, _ = start(config[1], corpus, tmp_path / "parts", max_steps=7)
    assert not torch.equal(weights(resumed), weights(whole))


def test_a_finished_run_has_nothing_left_to_do(config, corpus, tmp_path):
    first, _ = start(config[1], corpus, tmp_path / "out", epochs=2)
    again, summary = start(config[1], corpus, tmp_path / "out", epochs=2)
    assert first.progress.iteration == again.progress.iteration == 2 * 3
    assert math.isnan(summary.clips_per_second)
    assert torch.equal(weights(first), weights(again))


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
    assert parts.progress.losses == pytest.approx(whole.progress.losses, abs=1e-5)


def test_clipping_limits_the_gradient(config, corpus, tmp_path):
    norms = []
    original = training.nn.utils.clip_grad_norm_

    def spy(params, limit):
        norm = original(params, limit)
        norms.append((norm, torch.cat([p.grad.flatten() for p in params]).norm()))
        return norm

    training.nn.utils.clip_grad_norm_ = spy
    try:
        start(config[1], corpus, tmp_path / "a", max_steps=3, grad_clip=0.01)
    finally:
        training.nn.utils.clip_grad_norm_ = original
    assert all(before > 0.01 and after == pytest.approx(0.01, rel=1e-3) for before, after in norms)


def spoiled(task, steps):
    """A task whose loss is nan in these steps, counted from 0."""
    original, count = task.loss, iter(range(10**6))
    poison = lambda loss: loss * math.nan if next(count) in steps else loss  # noqa: E731
    task.loss = lambda model, batch: poison(original(model, batch)) if model.training else original(model, batch)
    return task


def run_spoiled(values, corpus, output, steps, **changes):
    config = from_dict(
        Config, values | {"train_config": values["train_config"] | {"output_directory": str(output)} | changes}
    )
    run = make_run(config)
    return run, training.train(run, spoiled(make_task(run, str(corpus)), steps), StopSignal())


def test_a_step_that_is_not_finite_moves_nothing(config, corpus, tmp_path, caplog):
    before = weights(make_run(load_config(config[0], Config)))
    run, _ = run_spoiled(config[1], corpus, tmp_path / "a", {0, 1}, max_steps=2)
    assert torch.equal(weights(run), before)
    assert "step skipped (2 in a row)" in caplog.text
    assert "clip" in caplog.text
    run, _ = run_spoiled(config[1], corpus, tmp_path / "b", {0, 1}, max_steps=3)
    assert torch.isfinite(weights(run)).all()
    assert not torch.equal(weights(run), before)


def test_ten_such_steps_in_a_row_end_the_run_naming_the_clips(config, corpus, tmp_path):
    # nine, one good, then ten
    with pytest.raises(UserError, match=r"10 steps in a row, up to iteration 20; clips .*clip\d\d\.wav"):
        run_spoiled(config[1], corpus, tmp_path / "a", {*range(9), *range(10, 30)}, max_steps=30)


def test_sigterm_writes_a_checkpoint_and_ends(config, corpus, tmp_path):
    config_of_run = from_dict(
        Config, config[1] | {"train_config": config[1]["train_config"] | {"output_directory": str(tmp_path / "out")}}
    )
    run = make_run(config_of_run)
    task = make_task(run, str(corpus))
    original = task.loss

    def signalled(model, batch):
        if run.progress.iteration == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(model, batch)

    task.loss = signalled
    summary = training.train(run, task, StopSignal())
    assert summary.stopped
    assert summary.iteration == 3
    assert checkpoint.load(tmp_path / "out/waveglow_3")["iteration"] == 3


def test_finetuning_counts_on_and_keeps_its_origin(config, corpus, tmp_path):
    out = tmp_path / "out"
    start(config[1], corpus, out, max_steps=3)
    origin = (out / "waveglow_3").read_bytes()
    tuning = {"checkpoint_path": str(out / "waveglow_3")}
    tuned, summary = start(config[1], corpus, out, max_steps=2, **tuning)
    assert summary.iteration == 5
    assert (out / "waveglow_3").read_bytes() == origin
    # An interrupted finetuning goes on; the run it began from goes on without it.
    longer, _ = start(config[1], corpus, out, max_steps=4, **tuning)
    assert longer.progress.losses[:5] == tuned.progress.losses
    assert longer.progress.steps == 4
    base, summary = start(config[1], corpus, out, max_steps=5)
    assert summary.iteration == 5
    assert base.progress.finetuned_from == ""


def test_a_checkpoint_of_another_run_keeps_its_content_under_a_dated_name(config, corpus, tmp_path):
    out = tmp_path / "out"
    start(config[1], corpus, out, max_steps=2)
    earlier = (out / "waveglow_2").read_bytes()
    start(config[1], corpus, out, resume="no", max_steps=2, learning_rate=1e-5)
    (dated,) = out.glob("waveglow_2.*")
    assert dated.read_bytes() == earlier
    assert (out / "waveglow_2").read_bytes() != earlier


def test_auto_goes_on_with_the_latest_run_of_its_case(config, corpus, tmp_path):
    out = tmp_path / "out"
    start(config[1], corpus, out, max_steps=4)
    later, _ = start(config[1], corpus, out, resume="no", max_steps=2, learning_rate=1e-4)
    run, _ = start(config[1], corpus, out, max_steps=3, learning_rate=1e-4)
    assert run.progress.losses[:2] == later.progress.losses
    # a measurement of speed is no beginning of a training
    path = out / "waveglow_3"
    state = checkpoint.load(path)
    state["progress"] |= {"case": "perf", "started": state["progress"]["started"] + 100, "iteration": 9}
    checkpoint.save(out / "waveglow_9", state)
    again, _ = start(config[1], corpus, out, max_steps=3, learning_rate=1e-4)
    assert again.progress.iteration == 3


def test_a_save_that_fails_leaves_the_name_to_the_earlier_checkpoint(config, corpus, tmp_path, monkeypatch):
    out = tmp_path / "out"
    start(config[1], corpus, out, max_steps=2)
    earlier = (out / "waveglow_2").read_bytes()

    def fail(*args):
        raise UserError("disk full")

    monkeypatch.setattr(checkpoint, "save", fail)
    with pytest.raises(UserError, match="disk full"):
        start(config[1], corpus, out, resume="no", max_steps=2)
    assert (out / "waveglow_2").read_bytes() == earlier
    assert [p.name for p in out.iterdir()] == ["waveglow_2"]


def test_tensorboard_on_a_full_disk_is_given_up(config, corpus, tmp_path, monkeypatch, caplog):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training.SummaryWriter, "add_scalar", fail)
    _, summary = start(config[1], corpus, tmp_path / "out", max_steps=2, with_tensorboard=True)
    assert summary.iteration == 2
    assert caplog.text.count("no more TensorBoard logs: No space left on device") == 1


def test_auto_passes_over_a_torn_checkpoint(config, corpus, tmp_path, caplog):
    out = tmp_path / "out"
    start(config[1], corpus, out, max_steps=4, iters_per_checkpoint=2)
    torn = out / "waveglow_4"
    torn.write_bytes(torn.read_bytes()[:5000])
    _, summary = start(config[1], corpus, out, max_steps=5)
    assert summary.iteration == 5
    assert "passed over" in caplog.text


def test_another_model_is_refused_by_the_name_of_the_field(config, corpus, tmp_path):
    start(config[1], corpus, tmp_path / "out", max_steps=1)
    other = json.loads(json.dumps(config[1]))
    other["waveglow_config"]["n_flows"] = 3
    with pytest.raises(UserError, match=r"waveglow_config\.n_flows = 2, the config says 3"):
        start(other, corpus, tmp_path / "out")
    other = json.loads(json.dumps(config[1]))
    other["data_config"]["mel_fmax"] = 7000.0
    with pytest.raises(UserError, match=r"data_config\.mel_fmax = 8000\.0, the config says 7000\.0"):
        start(other, corpus, tmp_path / "out")


def test_too_few_clips_for_a_step(config, corpus, tmp_path):
    with pytest.raises(UserError, match="12 training clips do not make one step of 64 clips"):
        start(config[1], corpus, tmp_path / "out", batch_size=64)


def test_throughput_leaves_the_warm_up_out():
    assert training.throughput([9.0] * 5 + [0.5] * 10, clips_per_step=4) == pytest.approx(8.0)
    assert training.throughput([2.0] * 3, clips_per_step=4) == pytest.approx(2.0)
    assert math.isnan(training.throughput([], clips_per_step=4))


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
    saved = checkpoint.load(tmp_path / "out/waveglow_1")["config"]
    path = write_config(tmp_path / "again.json", saved)
    assert load_config(path, Config).waveglow_config.n_flows == 2


def test_a_profile_is_written(config, corpus, tmp_path, caplog):
    caplog.set_level("INFO")
    start(config[1], corpus, tmp_path / "out", max_steps=6, profile=2)
    trace = json.loads((tmp_path / "out/profile/trace_0.json").read_text())
    assert any("conv1d" in event.get("name", "") for event in trace["traceEvents"])
    assert "convolution" in (tmp_path / "out/profile/operators_0.txt").read_text()
    assert caplog.text.count("crossings between device and host: 0,") == 3


def test_a_profiled_run_trains_the_same(config, corpus, tmp_path):
    plain, _ = start(config[1], corpus, tmp_path / "a", max_steps=5, batch_size=2, grad_accumulation=2)
    seen, _ = start(config[1], corpus, tmp_path / "b", max_steps=5, batch_size=2, grad_accumulation=2, profile=2)
    assert seen.progress.losses == plain.progress.losses
