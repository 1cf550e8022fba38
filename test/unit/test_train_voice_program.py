"""tools/train_voice.py: its options, what it trains with, where its weights begin."""

import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from toy_speech import run_synthesize

import tacotron2.config
import waveglow.config
from common import program
from common.checkpoints.interchange import read
from common.program import UserError
from conftest import ROOT, make_corpus, toy_config, toy_tacotron2_config, write_config
from runs import CPU, make_run, needs_fused_adam
from tacotron2.loss import Tacotron2Loss
from tools import train_voice
from tools.voice import timed_training


def read_options(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["train_voice", "corpus", "out", *options])
    return train_voice.read_arguments()


def test_options_have_defaults_and_the_minutes_a_limit(monkeypatch, capsys):
    args = read_options(monkeypatch)
    assert (args.data_path, args.output_directory, args.minutes, args.device) == ("corpus", "out", 8.0, "cuda")
    assert (args.tacotron2, args.waveglow) == (None, None)
    for name in ("tacotron2", "waveglow"):
        assert Path(getattr(args, f"{name}_config")) == train_voice.ROOT / f"configs/{name}_card.json"
    assert read_options(monkeypatch, "--minutes=0.01").minutes == 0.01
    for value in ("0", "-1", "nan", "inf"):
        with pytest.raises(SystemExit) as end:
            read_options(monkeypatch, f"--minutes={value}")
        assert end.value.code == 2
        assert "--minutes" in capsys.readouterr().err


def test_both_are_trained_at_once_for_as_many_minutes(monkeypatch, tmp_path):
    did = []
    runs = {
        name: SimpleNamespace(name=name, config=f"config of {name}", precision=SimpleNamespace(level=level))
        for name, level in (("tacotron2", "TF32"), ("waveglow", "O1"))
    }
    monkeypatch.setattr(train_voice, "open_log", lambda *_, **__: None)
    monkeypatch.setattr(train_voice, "hold_folder", lambda folder: did.append(("hold", folder)))
    monkeypatch.setattr(
        train_voice, "start", lambda args, name, package, device: did.append((name, package, device.half)) or runs[name]
    )
    monkeypatch.setattr(train_voice, "load_corpus", lambda path, config, device: f"{path} by {config}")
    monkeypatch.setattr(train_voice, "Stream", lambda device, first: f"stream {first}")
    monkeypatch.setattr(train_voice, "tacotron2_step", lambda *given: ("step", *given))
    monkeypatch.setattr(train_voice, "waveglow_step", lambda *given: ("step", *given))
    monkeypatch.setattr(train_voice, "StopSignal", lambda *numbers: numbers)
    monkeypatch.setattr(train_voice, "time", SimpleNamespace(time=lambda: 1000.0))
    trained = []
    monkeypatch.setattr(train_voice, "train", lambda *given: trained.append(given))
    monkeypatch.setattr(sys, "argv", ["train_voice", "corpus", str(tmp_path / "out"), "--device=cpu", "--minutes=0.5"])
    train_voice.main()
    t2, wg = runs.values()
    assert did == [
        ("hold", tmp_path / "out"), ("tacotron2", tacotron2.config, torch.bfloat16),
        ("waveglow", waveglow.config, torch.bfloat16),
    ]  # fmt: skip
    corpus, stop = "corpus by config of tacotron2", (signal.SIGINT, signal.SIGTERM)
    assert sorted(trained, key=lambda given: given[0].name) == [
        (t2, ("step", t2, corpus, "stream True"), "stream True", 1030.0, stop),
        (wg, ("step", wg, corpus, "stream False"), "stream False", 1030.0, stop),
    ]

    def fail(*given):
        raise UserError("it is odd")

    monkeypatch.setattr(train_voice, "train", fail)
    with pytest.raises(UserError, match="it is odd"):
        train_voice.main()
    wg.precision.level = "O0"
    with pytest.raises(UserError, match=r"^amp O0 and TF32 do not go together, since a process rounds or does not"):
        train_voice.main()
    t2.precision.level = "O0"
    with pytest.raises(UserError, match="it is odd"):
        train_voice.main()


def test_an_npu_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(train_voice, "open_log", lambda *_, **__: None)
    monkeypatch.setattr(train_voice, "pick_device", lambda name: SimpleNamespace(type="npu"))
    monkeypatch.setattr(sys, "argv", ["train_voice", "corpus", str(tmp_path / "out")])
    with pytest.raises(
        UserError, match=r"this program makes CUDA graphs: on an NPU train with bash test/train_full_8p\.sh"
    ):
        train_voice.main()


@needs_fused_adam
@pytest.mark.parametrize(
    ("train", "refused"),
    [({"ema_decay": 0.9}, False), ({"ema_decay": 0.9, "amp": "O1"}, False), ({"ema_decay": 0.0}, True),
     ({"ema_decay": 0.9, "amp": "O2"}, True)],
)  # fmt: skip
def test_configurations_that_a_graph_can_train(tmp_path, train, refused):
    values = toy_config()
    values["train_config"] |= train
    args = SimpleNamespace(
        waveglow_config=str(write_config(tmp_path / "c.json", values)), output_directory=str(tmp_path), waveglow=None
    )
    if refused:
        with pytest.raises(
            UserError, match=r"^--waveglow_config: train_config needs an ema_decay above 0, and another amp than O2"
        ):
            train_voice.start(args, "waveglow", waveglow.config, CPU)
        return
    run = train_voice.start(args, "waveglow", waveglow.config, CPU)
    assert (run.name, run.progress.finetuned_from) == ("waveglow", "")
    assert run.config.train_config.output_directory == str(tmp_path)


def test_without_a_fused_adam_it_ends_with_what_is_missing(tmp_path, monkeypatch):
    values = toy_config()
    values["train_config"] |= {"ema_decay": 0.9}
    path = write_config(tmp_path / "c.json", values)
    args = SimpleNamespace(waveglow_config=str(path), output_directory=str(tmp_path), waveglow=None)
    foreach = SimpleNamespace(param_groups=[{"fused": None}])
    monkeypatch.setattr(train_voice, "make_run", lambda *_: SimpleNamespace(optimizer=foreach))
    with pytest.raises(
        UserError, match=r"^this program needs PyTorch's fused Adam, which CPUs have from PyTorch 2\.4 on$"
    ):
        train_voice.start(args, "waveglow", waveglow.config, CPU)


@needs_fused_adam
def test_given_weights_are_those_of_the_average_too(tmp_path):
    """And what is written says where they come from; those of another size are refused."""
    origin = make_run(toy_config(), tmp_path, ema_decay=0.9)
    with torch.no_grad():
        for parameter in origin.model.parameters():
            parameter += 0.25
    origin.average.restart()
    path = timed_training.save_weights(origin)
    values = toy_config()
    values["train_config"] |= {"ema_decay": 0.9}
    args = SimpleNamespace(
        waveglow_config=str(write_config(tmp_path / "c.json", values)),
        output_directory=str(tmp_path),
        waveglow=str(path),
    )
    run = train_voice.start(args, "waveglow", waveglow.config, CPU)
    assert run.progress.finetuned_from == str(path)
    for name, weight in origin.average.weights.items():
        assert torch.equal(run.average.weights[name], weight)
        assert torch.equal(run.model.state_dict()[name], weight)
    values["waveglow_config"] |= {"n_flows": 4}
    write_config(tmp_path / "c.json", values)
    with pytest.raises(UserError, match="n_flows"):
        train_voice.start(args, "waveglow", waveglow.config, CPU)


@pytest.fixture
def graphed(monkeypatch):
    """Steps that only tell their batch, and the loss that they were made with."""
    made = []

    def graphed_step(run, stream, loss, like):
        made.append((stream, loss, like))
        number = len(made) - 1
        return lambda batch: (number, batch)

    monkeypatch.setattr(train_voice, "graphed_step", graphed_step)
    return made


def test_each_length_of_tacotron2_s_batches_has_its_graph(monkeypatch, tmp_path, graphed, caplog):
    caplog.set_level("INFO")
    asked = []
    batches = [{"text": torch.ones(2, 3 + i), "mel": torch.zeros(2, 6, 16 + i)} for i in range(2)]

    class FakeUtterances:
        def __init__(self, *given):
            asked.append(given)

        def first_batches(self):
            return batches

        def batches(self):
            return iter([(1, "long"), (0, "short"), (1, "again")])

    class Loss(Tacotron2Loss):
        def __init__(self, *given):
            asked.append(given)
            super().__init__(*given)

    monkeypatch.setattr(train_voice, "Utterances", FakeUtterances)
    monkeypatch.setattr(train_voice, "Tacotron2Loss", Loss)
    values = toy_tacotron2_config()
    values["tacotron2_config"]["n_frames_per_step"] = 2
    run = make_run(values, tmp_path, ema_decay=0.9, guided_attention=0.5)
    step = train_voice.tacotron2_step(run, "corpus", "stream")
    assert asked == [(0.5, 2), ("corpus", run.config, run.device, 8)]
    assert [(stream, like) for stream, _, like in graphed] == [("stream", batch) for batch in batches]
    assert [step() for _ in range(3)] == [(1, "long"), (0, "short"), (1, "again")]
    assert caplog.messages[-2:] == [f"tacotron2: {3 + i} symbols, {16 + i} frames" for i in range(2)]


class FakeSegments:
    """Its spectrograms have a mean and a deviation of their own in each band, of which one never changes."""

    def __init__(self, *given):
        self.count = 0

    def batch(self):
        self.count += 1
        frames = torch.randn(4, 6, 9, generator=torch.Generator().manual_seed(self.count))
        frames[:, 5] = 0
        return {"mel": frames * torch.arange(1.0, 7)[:, None] - 5, "audio": torch.zeros(4, 2048), "number": self.count}


@pytest.mark.parametrize("finetuned", ["", "a checkpoint"])
def test_waveglow_s_upsampling_begins_as_an_interpolation(monkeypatch, tmp_path, graphed, finetuned):
    """Unless its weights are given; each step has a batch of its own."""
    monkeypatch.setattr(train_voice, "Segments", FakeSegments)
    run = make_run(toy_config(), tmp_path, ema_decay=0.9)
    run.progress.finetuned_from = finetuned
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    step = train_voice.waveglow_step(run, "corpus", "stream")
    first, second = step(), step()
    assert second[1]["number"] == first[1]["number"] + 1
    assert run.model.upsample.interpolates() in (True, False)
    state = run.model.state_dict()
    if finetuned:
        assert all(torch.equal(before[name], tensor) for name, tensor in state.items())
        return
    segments = FakeSegments()
    mel = torch.cat([segments.batch()["mel"] for _ in range(8)]).transpose(0, 1).flatten(1)
    std = mel.std(1).clamp_min(0.1)
    torch.testing.assert_close(state["upsample.bias"], -mel.mean(1) / std)
    middle = state["upsample.weight"][:, :, run.model.upsample.stride[0]]
    torch.testing.assert_close(middle, torch.diag(1 / std))
    assert std[5].item() == pytest.approx(0.1)
    for name in ("upsample.weight", "upsample.bias"):
        assert torch.equal(run.average.weights[name], state[name])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("tones") / "corpus", clips=25, seconds=0.3)


class Clock(threading.local):
    """Stands in for the module time: with each look of a thread a second has gone by for it."""

    now = 0.0

    def time(self) -> float:
        self.now += 1
        return self.now


@needs_fused_adam
def test_the_program_trains_both_models_which_then_speak(data, tmp_path, monkeypatch, run_here):
    """As long as it is told; the losses fall."""
    monkeypatch.setattr(train_voice, "time", Clock())
    monkeypatch.setattr(timed_training, "time", Clock())
    monkeypatch.setattr(program, "signal", SimpleNamespace(signal=lambda *_: None))
    options = []
    for name, values in (("tacotron2", toy_tacotron2_config()), ("waveglow", toy_config())):
        train = {"ema_decay": 0.9, "batch_size": 4, "learning_rate": 3e-3, "grad_clip": 1.0}
        path = write_config(tmp_path / f"{name}.json", values | {"train_config": train})
        options.append(f"--{name}_config={path}")
    out = tmp_path / "out"
    done = run_here(train_voice.main, data, out, "--minutes=0.25", "--device=cpu", *options)
    assert done.returncode == 0, done.stderr
    found = {path.name.split("_")[0]: path for path in out.iterdir()}
    assert found.keys() == {"tacotron2", "waveglow"}
    for name, path in found.items():
        losses = read(path, name).progress["losses"]
        assert len(losses) == int(path.name.split("_")[1]) == 14
        assert max(losses[-3:]) < min(losses[:3])
    # A toy that cannot find an end is flawed, and yet it speaks.
    models = [f"--{name}={path}" for name, path in found.items()]
    run_synthesize(monkeypatch, "A tone.", *models, "-o", tmp_path / "speech.wav")
    assert (tmp_path / "speech.wav").stat().st_size > 1000


@needs_fused_adam
def test_the_program_says_what_does_not_fit(data, tmp_path):
    """And the exit code tells that it failed."""
    path = write_config(tmp_path / "waveglow.json", toy_config())
    command = [sys.executable, ROOT / "tools/train_voice.py", data, tmp_path / "out", "--device=cpu"]
    done = subprocess.run([*command, f"--waveglow_config={path}"], capture_output=True, text=True, timeout=500)
    assert done.returncode == 1
    assert "--waveglow_config: train_config needs an ema_decay above 0" in done.stderr
