"""tools/speed/switches.py: every change is one of speed alone, and the table tells what was measured or why not."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import waveglow.wn
from common.config_reading import from_dict
from common.device import pick_device
from common.layers import matmul
from common.layers.conv import Conv1d
from common.layers.matmul import dtype_of_products
from common.program import UserError
from conftest import toy_config
from tacotron2.recorded_steps import RecordedSteps
from tools.speed import jobs, switches
from tools.speed.jobs import Job
from tools.speed.switches import SWITCHES, Switch
from waveglow.config import Config, build_model
from waveglow.loss import WaveGlowLoss

CPU = pick_device("cpu")
TRIED_HERE = [
    switches.earlier_gate, switches.single_row, switches.unrecorded_inference, switches.channels_last,
    switches.whole_tiles, switches.tried_algorithms, switches.at_group_rate, switches.whole_loops,
]  # fmt: skip
"Changes that need no card."


def outcome(model):
    """Loss and gradients of a batch, and audio."""
    generator = torch.Generator().manual_seed(1)
    mel, audio = torch.randn(2, 6, 9, generator=generator), 0.1 * torch.randn(2, 2048, generator=generator)
    model.zero_grad()
    loss = WaveGlowLoss(1.0)(model(mel, audio))
    loss.backward()
    noise = [torch.randn(shape, generator=generator) for shape in model.noise_shapes(2, 9)]
    return [loss.detach(), *(weight.grad.clone() for weight in model.parameters()), model.infer(mel, 0.6, noise)]


@pytest.mark.parametrize("change", TRIED_HERE)
def test_a_change_leaves_the_numbers_as_they_are(monkeypatch, change):
    monkeypatch.setattr(waveglow.wn, "_Gate", waveglow.wn._GateOnCard)  # what a card takes
    torch.manual_seed(1)
    model = build_model(from_dict(Config, toy_config()))
    for wn in model.WN:
        torch.nn.init.normal_(wn.end.weight, std=0.1)
    expected = outcome(model)
    before = Conv1d.convolve, waveglow.wn._GateOnCard, matmul.ROWS_ON_CARD, jobs.recorded_inference
    with change(CPU):
        for ours, plain in zip(outcome(model), expected, strict=True):
            assert torch.allclose(ours, plain, rtol=1e-4, atol=1e-5)
    assert before == (Conv1d.convolve, waveglow.wn._GateOnCard, matmul.ROWS_ON_CARD, jobs.recorded_inference)


def test_with_the_channels_last_nothing_is_copied_between_the_convolutions_of_a_coupling(monkeypatch):
    monkeypatch.setattr(waveglow.wn, "_Gate", waveglow.wn._GateOnCard)
    contiguous, copied = torch.Tensor.contiguous, []

    def noting(tensor, **options):
        result = contiguous(tensor, **options)
        if options and tensor.shape[:3] == (2, 16, 1):
            copied.append(result.data_ptr() != tensor.data_ptr())
        return result

    monkeypatch.setattr(torch.Tensor, "contiguous", noting)
    values = toy_config()
    values["waveglow_config"]["WN_config"] = {"n_layers": 3, "n_channels": 16}
    with switches.channels_last(CPU):
        outcome(build_model(from_dict(Config, values)))
    assert len(copied) == 2 * 2 * 5 and not any(copied)  # layers but the first, and all gates; two flows there and back


def test_a_switch_is_on_while_its_job_is_made_and_called(monkeypatch):
    did = []

    class Change:
        def __init__(self, device):
            assert device is CPU

        def __enter__(self):
            did.append("on")

        def __exit__(self, *_):
            did.append("off")

    def make(device, precision, batch):
        did.append(("made", precision, batch))
        return Job(lambda: did.append("called"), 1)

    monkeypatch.setitem(jobs.JOBS, "waveglow-infer", make)
    switch = Switch("it is changed", "waveglow-infer", "half", Change)
    line = switches.measured(switch, CPU)
    made, call = ("made", "half", 1), ["on", "called", "off"]
    calls = switches.WARM_UPS + switches.TURNS * switches.CALLS
    assert did[:5] == [made, "on", made, "off", "called"]
    assert did.count("called") == 2 * calls and did.count("on") == did.count("off") == calls + 1
    assert [place for place, what in enumerate(did) if what == "called" and did[place - 1] == "on"] == [
        place + 1 for place, what in enumerate(did) if did[place : place + 3] == call
    ]
    assert line.startswith("| it is changed | waveglow-infer | half | ") and line.count(" ms (") == 2


def test_what_fails_is_a_row_and_the_others_are_measured(monkeypatch, tmp_path, capsys):
    def fail(device, precision, batch):
        raise UserError("this card is too small\nfor it")

    monkeypatch.setitem(jobs.JOBS, "waveglow-infer", fail)
    monkeypatch.setitem(jobs.JOBS, "waveglow-train", lambda *_: Job(lambda: None, 1))
    some = [replace_job(each) for each in SWITCHES[1:3]] + [
        Switch("last", "waveglow-train", "tf32", SWITCHES[0].change)
    ]
    monkeypatch.setattr(switches, "SWITCHES", some)
    monkeypatch.setattr("sys.argv", ["switches", str(tmp_path / "out"), "--device=cpu"])
    switches.main()
    lines = (tmp_path / "out/switches.md").read_text().splitlines()
    assert lines[2].startswith("| change | job |") and len(lines) == 7
    assert all("| failed: this card is too small |" in line for line in lines[4:6])
    assert lines[6].startswith("| last | waveglow-train | tf32 | 0.0 ms")
    monkeypatch.setattr("sys.argv", ["switches", str(tmp_path / "late"), "--device=cpu", "--limit=0"])
    switches.main()
    assert (tmp_path / "late/switches.md").read_text().count("| no time left |") == 3


def replace_job(switch):
    return switch._replace(job="waveglow-infer")


def test_the_slower_way_shows_as_a_ratio_below_one(monkeypatch):
    times = {True: [0.1] * 6, False: [0.2] * 6}
    monkeypatch.setattr(switches, "work", lambda switch, device, plainly: plainly)
    monkeypatch.setattr(switches, "in_turns", lambda works: [times[each] for each in works])
    line = switches.measured(SWITCHES[0], replace(CPU))
    assert line.endswith("| 100.0 ms (100.0-100.0) | 200.0 ms (200.0-200.0) | 0.50 |")


@pytest.mark.parametrize(("precision", "half"), [("half", True), ("tf32", False)])
def test_a_training_is_recorded_with_the_batch_and_in_the_precision_of_the_job(monkeypatch, precision, half):
    seen = []

    def record(model, sample):
        assert model.training
        is_half = dtype_of_products(sample[0]) == torch.bfloat16
        seen.append(([tuple(each.shape) for each in sample], is_half, torch.is_autocast_cache_enabled()))

    run = SimpleNamespace(model=torch.nn.Linear(1, 1).eval(), precision=SimpleNamespace(level=jobs.LEVELS[precision]))
    monkeypatch.setattr(jobs, "make_run", lambda *given: given == ("name", "device") and run)
    monkeypatch.setattr(switches, "torch_module", lambda kind: SimpleNamespace(make_graphed_callables=record))
    with switches.recorded_training(CPU):
        assert jobs.make_run("name", "device") is run
    assert seen == [([(2, 80, 32), (2, 8000)], half, False)]


def test_changes_together_are_all_on(monkeypatch):
    before = Conv1d.convolve
    with switches.together(CPU, [switches.channels_last, switches.single_row]):
        assert Conv1d.convolve is not before and matmul.ROWS_ON_CARD == 1
    assert Conv1d.convolve is before and matmul.ROWS_ON_CARD > 1


def test_decoding_that_keeps_no_graphs_decodes_the_same(monkeypatch):
    made = []
    monkeypatch.setattr(
        switches, "RecordedSteps", lambda decoder: made.append(decoder) or (lambda text: (decoder, text))
    )
    with switches.own_graphs(CPU):
        make_steps = jobs.RecordedSteps("decoder")
        assert [make_steps("text"), make_steps("other")] == [("decoder", "text"), ("decoder", "other")]
    assert made == ["decoder"] * 2
    with switches.unrecorded_decoding(CPU):
        assert jobs.RecordedSteps("decoder") is None  # the steps as they are
    assert jobs.RecordedSteps is RecordedSteps
