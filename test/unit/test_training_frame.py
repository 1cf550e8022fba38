"""The frame of a training program: what it sets up and in which order, what it says and leaves at the end."""

import argparse
import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import waveglow.config
from common import distributed
from common.checkpoints import TITLES
from common.checkpoints.progress import Progress
from common.layers.npu import Crossings
from common.training import main
from common.training.loop import Summary
from conftest import toy_config
from runs import CPU, make_run, model_of, same, weights
from waveglow.config import Config
from waveglow.train import read_arguments

ALONE = distributed.Ranks(0, 1, 0)
SUMMARY = Summary(7, 0.25, 4.0, 800.0, 0.125, stopped=False)


@pytest.fixture
def framed(monkeypatch, tmp_path):
    """Runs the frame with stand-ins for its parts; their calls in order, and the options with which it was run."""
    calls = []

    def run(*options, ranks=ALONE, summary=SUMMARY):
        def note(name, result=None):
            return lambda *args: calls.append((name, *args)) or result

        made = SimpleNamespace(
            progress=Progress(iteration=5), model="model", precision="precision", start=note("resume"),
        )  # fmt: skip
        monkeypatch.setattr(distributed, "ranks", lambda: ranks)
        parts = {
            "start_log": None, "pick_device": replace(CPU, why="because"), "make_run": made, "train": summary,
            "agree_on_start": None, "facts_of_start": {"a": 1}, "hold_folder": None,
            "results_of": SimpleNamespace(write=note("write")),
        }  # fmt: skip
        for name, result in parts.items():
            monkeypatch.setattr(main, name, note(name, result))
        for name in ("start", "stop"):
            monkeypatch.setattr(distributed, name, note(f"{name} the group"))
        monkeypatch.setattr(distributed, "first_ranks", lambda look: look())
        monkeypatch.setattr(main.program, "StopSignal", note("listen", "stop"))
        args = read_arguments([f"--output_directory={tmp_path / 'a/out'}", "--data_path=corpus", *options])
        main.train_program(
            "waveglow", Config, "build", lambda run, path: calls.append(("task", run, path)) or "task", args
        )
        return args, made

    run.calls = calls
    return run


def test_a_single_process_does_one_thing_after_the_other(framed, tmp_path, caplog):
    """It listens to a request to stop before it looks at anything that takes long."""
    caplog.set_level(logging.INFO)
    args, run = framed("--device=cpu", "--device_id=3", "--case=perf", "--hang_limit=77", "--resume=no")
    device = replace(CPU, why="because")
    config = framed.calls[5][2]
    assert isinstance(config, Config) and config.train_config.hang_limit == 77
    assert framed.calls == [
        ("start_log", args), ("listen", main.signal.SIGTERM), ("pick_device", "cpu", 3),
        ("start the group", device, 77, {}), ("hold_folder", str(tmp_path / "a/out"), "--output_directory"),
        ("make_run", "waveglow", config, "build", device, "perf"), ("task", run, "corpus"), ("resume", "no"),
        ("agree_on_start", "model", "precision", 5), ("train", run, "task", "stop"), ("stop the group",),
        ("results_of", run, SUMMARY, "WaveGlow_for_PyTorch", "perf"), ("write", args),
    ]  # fmt: skip
    assert (tmp_path / "a/out").is_dir()
    assert "device: cpu (because), 1 process(es)" in caplog.text and "final validation loss:0.250000" in caplog.text
    assert "stopped" not in caplog.text


@pytest.mark.parametrize("ranks", [distributed.Ranks(0, 4, 0), distributed.Ranks(3, 4, 1)])
def test_of_several_each_has_the_card_of_its_number_and_the_first_writes_the_results(framed, ranks):
    """And all tell what they start with."""
    framed("--device=cpu", ranks=ranks)
    calls = {name: rest for name, *rest in framed.calls}
    assert calls["pick_device"] == ["cpu", ranks.local_rank]
    assert calls["facts_of_start"][0] == "waveglow" and calls["facts_of_start"][2:] == ["auto", "acc"]
    assert calls["start the group"][2] == {"a": 1}
    assert ("write" in calls) == ("results_of" in calls) == (ranks.rank == 0)


def test_a_run_that_was_stopped_says_how_it_goes_on(framed, caplog):
    framed(summary=replace(SUMMARY, stopped=True))
    assert "stopped at iteration 7; the same command goes on from there" in caplog.text


# ---- the run ----


def test_first_weights_follow_from_the_seed_alone(tmp_path, monkeypatch):
    """Not from the process; the random numbers of its training are each process's own, and follow from the seed."""
    drawn = {}
    for seed in (1, 2):
        for rank in (0, 1):
            monkeypatch.setattr(main.distributed, "ranks", lambda rank=rank: distributed.Ranks(rank, 2, rank))
            run = make_run(toy_config(), tmp_path, seed=seed)
            drawn[seed, rank] = weights(run), torch.rand(3)
    for seed in (1, 2):
        assert torch.equal(drawn[seed, 0][0], drawn[seed, 1][0])
        expected = [torch.rand(3, generator=torch.Generator().manual_seed(seed + 1 + rank)) for rank in (0, 1)]
        assert all(torch.equal(drawn[seed, rank][1], expected[rank]) for rank in (0, 1))
    assert not torch.equal(drawn[1, 0][0], drawn[2, 0][0])


def test_a_run_is_made_of_what_the_configuration_says(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(main, "keep_freed_memory", lambda device: asked.append(("memory", device)))
    monkeypatch.setattr(main, "use_channels_last", lambda model, device: asked.append(("layout", device)))
    crossings = Crossings(count=3)
    monkeypatch.setattr(main, "patch_for_npu", lambda model, config, device: asked.append(("npu", config)) or crossings)
    run = make_run(toy_config(), tmp_path, learning_rate=0.25, weight_decay=0.5, ema_decay=0.75)
    assert asked == [("memory", CPU), ("npu", run.config.npu_config), ("layout", CPU)]
    (group,) = run.optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.25, 0.5)
    assert (run.name, run.device, run.precision.level, run.crossings) == ("waveglow", CPU, "O0", crossings)
    assert run.average.decay == 0.75 and same(run.average.weights, model_of(run))
    assert (run.progress.case, run.progress.iteration) == ("acc", 0)
    plain = make_run(toy_config(), tmp_path, amp="O2", loss_scale=64.0)
    assert plain.average is None and plain.precision.level == "O2"
    measured = main.make_run("waveglow", run.config, waveglow.config.build_model, CPU, "perf")
    assert measured.progress.case == "perf" and measured.average.decay == 0.75


@pytest.mark.parametrize(("fp16_run", "amp", "level"), [(True, "", "O1"), (False, "", "O0"), (True, "O0", "O0")])
def test_the_precision_is_the_one_asked_for_or_the_devices(tmp_path, fp16_run, amp, level):
    device = replace(CPU, amp="O1", half=torch.float16)
    run = make_run(toy_config(), tmp_path, device=device, fp16_run=fp16_run, amp=amp, loss_scale=64.0)
    assert run.precision.level == level and run.precision.scale == (1.0 if level == "O0" else 64.0)


@pytest.mark.parametrize(("first_iteration", "losses"), [(3, [2.0, 1.0]), (5, [])])
def test_the_results_are_of_all_processes_and_of_this_run(monkeypatch, first_iteration, losses):
    """Without the losses of the run that it was finetuned from."""
    monkeypatch.setattr(distributed, "ranks", lambda: distributed.Ranks(0, 4, 0))
    config = SimpleNamespace(train_config=SimpleNamespace(batch_size=24))
    run = SimpleNamespace(config=config, progress=Progress(5, first_iteration, losses=[9.0, 8.0, 7.0, 2.0, 1.0]))
    found = main.results_of(run, SUMMARY, "WaveGlow_for_PyTorch", "perf")
    assert vars(found) == {
        "network": "WaveGlow_for_PyTorch", "rank_size": 4, "batch_size": 24, "case": "perf", "fps": 4.0,
        "samples_per_second": 800.0, "iteration_seconds": 0.125, "losses": losses,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["waveglow", "tacotron2"])
def test_a_programs_options_begin_with_its_own_configuration(name):
    parser = main.training_parser(name, Config, "an example")
    args = parser.parse_args([])
    assert isinstance(args, argparse.Namespace) and args.config == f"configs/{name}.json"
    assert (args.resume, args.device, args.device_id, args.case) == ("auto", "auto", 0, "acc")
    help = parser.format_help()
    places = [help.index(text) for text in (f"Train {TITLES[name]} on a folder", "corpus with wavs", "an example")]
    assert places == sorted(places)
