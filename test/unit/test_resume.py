"""A run goes on where it was: exactly, from the right checkpoint, or says why it does not."""

import json
import math

import pytest
import torch

from common.checkpoints import native
from common.checkpoints.interchange import read
from common.program import UserError
from common.training.run import checked_rng_state
from conftest import ROOT
from runs import make_run, start, weights, with_noise
from tools.convert_checkpoint import FORMS, to_native, write


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
    state = native.load(path)
    state["optimizer"]["state"] = {}
    native.save(path, state)
    resumed, _ = start(config[1], corpus, tmp_path / "parts", max_steps=7)
    assert not torch.equal(weights(resumed), weights(whole))


def test_a_finished_run_has_nothing_left_to_do(config, corpus, tmp_path):
    first, _ = start(config[1], corpus, tmp_path / "out", epochs=2)
    again, summary = start(config[1], corpus, tmp_path / "out", epochs=2)
    assert first.progress.iteration == again.progress.iteration == 2 * 3
    assert math.isnan(summary.clips_per_second)
    assert torch.equal(weights(first), weights(again))


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


@pytest.mark.parametrize(
    ("section", "field", "value", "saved"),
    [
        ("waveglow_config", "n_flows", 3, 2),
        ("data_config", "mel_fmax", 7000.0, 8000.0),
        ("train_config", "sigma", 0.7, 1.0),
    ],
)
def test_another_model_or_training_is_refused_by_the_name_of_the_field(
    config, corpus, tmp_path, section, field, value, saved
):
    start(config[1], corpus, tmp_path / "out", max_steps=1)
    other = json.loads(json.dumps(config[1]))
    other[section][field] = value
    with pytest.raises(UserError, match=rf"{section}\.{field} = {saved}, the config says {value}"):
        start(other, corpus, tmp_path / "out", max_steps=2)


def test_without_the_random_states_it_would_differ(config, corpus, tmp_path):
    def parts(output, change):
        start(config[1], corpus, output, spoil=with_noise, max_steps=4)
        state = native.load(output / "waveglow_4")
        native.save(output / "waveglow_4", state | change)
        return start(config[1], corpus, output, spoil=with_noise, max_steps=7)[0]

    whole, _ = start(config[1], corpus, tmp_path / "whole", spoil=with_noise, max_steps=7)
    assert torch.equal(weights(parts(tmp_path / "a", {})), weights(whole))
    other = [{"cpu": torch.Generator().manual_seed(5).get_state()}]
    assert not torch.equal(weights(parts(tmp_path / "b", {"rng_states": other})), weights(whole))


def test_what_may_change_is_said(config, corpus, tmp_path, caplog):
    caplog.set_level("INFO")
    start(config[1], corpus, tmp_path / "out", max_steps=1)
    run, _ = start(config[1], corpus, tmp_path / "out", max_steps=3, learning_rate=1e-5, iters_per_checkpoint=1)
    assert run.progress.iteration == 3
    assert run.optimizer.param_groups[0]["lr"] == 1e-5
    for change in ("max_steps 3, was 1", "learning_rate 1e-05, was 0.001", "iters_per_checkpoint 1, was 100"):
        assert f"changed since the checkpoint: {change}" in caplog.text


@pytest.mark.usefixtures("disk_that_keeps_up")
def test_a_run_from_a_chosen_checkpoint_is_what_auto_goes_on_with(config, corpus, tmp_path):
    """The later checkpoints of the run that was left are neither taken nor removed nor lost."""
    out = tmp_path / "out"
    start(config[1], corpus, out, max_steps=6, iters_per_checkpoint=2)
    later = (out / "waveglow_4").read_bytes()
    start(config[1], corpus, out, resume=str(out / "waveglow_2"), max_steps=4, learning_rate=1e-5)
    run, _ = start(config[1], corpus, out, max_steps=5, learning_rate=1e-5)
    assert run.progress.losses[:4] == native.load(out / "waveglow_4")["progress"]["losses"]
    (dated,) = out.glob("waveglow_4.*")
    assert dated.read_bytes() == later
    assert {"waveglow_2", "waveglow_4", "waveglow_5", "waveglow_6"} <= {path.name for path in out.iterdir()}


@pytest.mark.parametrize(("saved", "is_taken"), [(1, False), (2, True), (3, False)])
def test_random_states_are_taken_for_as_many_processes_alone(monkeypatch, caplog, saved, is_taken):
    """Two are running."""
    caplog.set_level("INFO")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    states = [{"cpu": torch.Generator().manual_seed(rank).get_state()} for rank in range(saved)]
    taken = checked_rng_state("a", states)
    assert taken is (states[1] if is_taken else None)
    assert (f"resumed with 2 process(es) instead of {saved}" in caplog.text) != is_taken


def adam_of(run):
    return [value for state in run.optimizer.state_dict()["state"].values() for value in state.values()]


@pytest.mark.parametrize("form", ["native", "nvidia", "dle", "ascend", "safetensors"])
def test_finetuning_takes_every_form(config, corpus, tmp_path, form):
    trained, _ = start(config[1], corpus, tmp_path / "out", max_steps=3)
    source = tmp_path / "out/waveglow_3"
    origin = read(source)
    write(str(tmp_path / form), to_native(origin, str(source)) if form == "native" else FORMS[form](origin))
    tuned = make_run(config[1], tmp_path / "tuned", checkpoint_path=str(tmp_path / form))
    tuned.start("auto")
    assert torch.equal(weights(tuned), weights(trained))
    assert tuned.progress.iteration == (0 if form == "dle" else 3)
    assert adam_of(tuned) == []
    with pytest.raises(UserError, match=r"holds weights alone|no checkpoint of this repository"):
        make_run(config[1], tmp_path / "other").start(str(tmp_path / form))


def test_finetuning_with_the_optimizer_is_the_same_run(config, corpus, tmp_path):
    whole, _ = start(config[1], corpus, tmp_path / "whole", max_steps=3)
    tuning = {"checkpoint_path": str(tmp_path / "whole/waveglow_3"), "keep_optimizer": True}
    tuned = make_run(config[1], tmp_path / "tuned", **tuning)
    tuned.start("auto")
    assert all(torch.equal(a, b) for a, b in zip(adam_of(tuned), adam_of(whole), strict=True))


def test_the_optimizer_of_a_foreign_file_is_taken_by_the_names_of_the_weights(config, tmp_path, reference):
    """NVIDIA's layers number bias, weight_g, weight_v; ours weight_g, weight_v, bias."""
    names = list(reference["state_dict"])
    moments = {name: torch.full_like(tensor, i) for i, (name, tensor) in enumerate(reference["state_dict"].items())}
    state = {i: {"step": 9, "exp_avg": moments[n], "exp_avg_sq": moments[n] + 1} for i, n in enumerate(names)}
    optimizer = {"state": state, "param_groups": [{"lr": 1e-4, "params": list(range(len(names)))}]}
    torch.save({"model": reference["state_dict"], "optimizer": optimizer, "iteration": 9}, tmp_path / "foreign")
    values = config[1] | {"waveglow_config": reference["config"]}
    tuning = {"checkpoint_path": str(tmp_path / "foreign"), "keep_optimizer": True}
    run = make_run(values, tmp_path / "out", **tuning)
    run.start("auto")
    for i, (name, _) in enumerate(run.model.named_parameters()):
        state = run.optimizer.state_dict()["state"][i]
        assert state["step"] == 9
        assert torch.equal(state["exp_avg"], moments[name])
        assert torch.equal(state["exp_avg_sq"], moments[name] + 1)


def test_an_optimizer_to_keep_must_be_in_the_file(config, tmp_path, reference):
    tuning = {"checkpoint_path": str(ROOT / "test/data/reference/waveglow_ascend.pt"), "keep_optimizer": True}
    run = make_run(config[1] | {"waveglow_config": reference["config"]}, tmp_path, **tuning)
    with pytest.raises(UserError, match=r"waveglow_ascend\.pt holds no state of an Adam"):
        run.start("auto")
