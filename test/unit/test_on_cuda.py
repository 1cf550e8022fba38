"""On a CUDA card the models compute what they compute on the CPU. Skipped without a card."""

from dataclasses import replace

import card_checks
import pytest
import torch
from graphed_steps import check_graphed_step
from recurrences import gradients_and_result, lstm_inputs, recurrence
from tacotron2_reference import OUTPUTS, inputs, reference_model
from tacotron2_reference import reference as tacotron2_reference
from tacotron2_toys import toy, toy_batch
from vocoder_toys import make_checkpoint, mel

from common.device import pick_device
from conftest import toy_config, toy_tacotron2_config
from reference_curve import REFERENCE, TOLERANCE, Training, distance
from runs import CPU, CURVE, model_of, start
from runs import distance as distance_of_runs
from tacotron2.attention_recurrence import attend_over_time
from tacotron2.lstm import lstm_over_time
from tacotron2.recorded_steps import RecordedSteps
from waveglow.model import WaveGlow
from waveglow.vocoder import Vocoder

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card is here")


@pytest.fixture
def card():
    return pick_device("cuda")


@pytest.fixture(params=[torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def half_card(card, request):
    """The card with its own half precision, and with that of older ones."""
    return replace(card, half=request.param)


def relative_error(actual, expected):
    return ((actual.cpu() - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture(autouse=True)
def nothing_is_refused(caplog):
    """Without a graph all would be as right, and slower."""
    yield
    assert "no CUDA graph" not in caplog.text


@pytest.fixture(autouse=True)
def exact_float32():
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def test_waveglow_equals_the_reference():
    model = WaveGlow(**REFERENCE["config"])
    model.load_state_dict(REFERENCE["state_dict"])
    model.cuda()
    z, log_s, _ = model(REFERENCE["mel"].cuda(), REFERENCE["audio"].cuda())
    assert relative_error(z, REFERENCE["z"]) < 1e-5
    assert all(relative_error(ours, theirs) < 1e-5 for ours, theirs in zip(log_s, REFERENCE["log_s"], strict=True))
    infer = REFERENCE["infer"]
    audio = model.infer(REFERENCE["mel"].cuda(), infer["sigma"], [noise.cuda() for noise in infer["noise"]])
    assert relative_error(audio, infer["audio"]) < 1e-5


def test_waveglows_curve_equals_the_reference(card):
    assert distance(Training("O0", 1.0, card).steps(20).losses) < 1e-5


@pytest.mark.parametrize("level", ["O1", "O2"])
@pytest.mark.parametrize("loss_scale", [128.0, "dynamic"])
def test_waveglows_curve_in_half_precision(half_card, level, loss_scale):
    assert distance(Training(level, loss_scale, half_card).steps(20).losses) < TOLERANCE[half_card.half]


def test_tacotron2_equals_the_reference():
    model = reference_model().cuda()
    output = model(*(tensor.cuda() for tensor in inputs().values()))
    for name, ours in zip(OUTPUTS, output, strict=True):
        assert (ours.cpu() - tacotron2_reference()["teacher_forced"][name]).abs().max() < 2e-5, name


def test_tacotron2_speaks_the_same_as_on_the_cpu():
    model = reference_model()
    text, lengths = inputs()["text"], inputs()["text_lengths"]
    expected = model.infer(text, lengths, seeds=[1] * len(text))
    spoken = model.cuda().infer(text.cuda(), lengths.cuda(), seeds=[1] * len(text))
    for ours, theirs in zip(spoken, expected, strict=True):
        assert ours.length == theirs.length
        assert relative_error(ours.mel, theirs.mel) < 1e-4


@pytest.mark.parametrize("precision", ["O0", "O1"])
def test_a_recorded_vocoder_makes_the_audio_of_the_cpu(tmp_path, card, precision):
    """Plain at first, then recorded, then replayed; other lengths in between, and a last time for all of them."""
    path = make_checkpoint(tmp_path / "waveglow_3", {}, {})
    here, there = Vocoder(path, CPU, "O0"), Vocoder(path, card, precision)
    for frames in (10, 20, 30, 33, 70, 33, 40, 50, 10, 100, 33):
        expected = here.synthesize(mel(frames), 0.7, denoiser_strength=0.1)
        limit = 1e-4 if precision == "O0" else 3e-2
        assert (there.synthesize(mel(frames), 0.7, denoiser_strength=0.1) - expected).norm() < limit * expected.norm()


@pytest.mark.parametrize("texts", [1, 3])
@pytest.mark.parametrize("steps", [16, 32, 33, 80])
def test_steps_of_a_graph_are_those_of_the_cpu(texts, steps):
    """Recorded from the second 16 steps on; the last ones may be fewer. Twice: the second time with graphs from
    the first step on."""
    model = toy(max_decoder_steps=steps)
    model.decoder.gate_threshold = 2.0
    text, lengths, _, _ = toy_batch()
    given = text[:texts], lengths[:texts]
    expected = model.infer(*given, seeds=[1] * texts)
    make_steps = RecordedSteps(model.cuda().decoder)
    for _ in range(2):
        spoken = model.infer(*(each.cuda() for each in given), [1] * texts, make_steps)
        for ours, theirs in zip(spoken, expected, strict=True):
            assert ours.length == theirs.length == steps
            assert relative_error(ours.mel, theirs.mel) < 1e-4
            assert relative_error(ours.alignment, theirs.alignment) < 1e-4


def test_a_recorded_decoding_is_the_plain_one(card, monkeypatch):
    card_checks.check_recorded_decoding_is_the_plain_one(card, monkeypatch)


def test_no_frame_that_is_decoded_is_waited_for(card):
    """Only whether 16 of them were the last ones is, and a copy of the masks of 64."""
    short, long = (card_checks.waits_of_decoding(frames, card) for frames in (128, 256))
    assert long - short <= 128 // 16 + 128 // 64


@card_checks.each_model
@pytest.mark.parametrize("level", ["O0", "O1"])
def test_a_training_step_waits_once(name, level, corpus, tmp_path, card, monkeypatch):
    """For whether the loss and its gradients are finite. The first steps set things up."""
    waits = card_checks.waits_of_steps(name, level, card, corpus, tmp_path, monkeypatch)
    assert waits[2:] == [1] * 4, waits


@pytest.mark.parametrize("level", ["O1", "O2"])
def test_a_loss_scale_comes_down(level, corpus, tmp_path, card):
    card_checks.check_a_loss_scale_comes_down(level, replace(card, half=torch.float16), corpus, tmp_path)


@card_checks.each_model
def test_a_process_alone_in_its_group_learns_the_same(name, corpus, tmp_path, card):
    """By NCCL and DistributedDataParallel."""
    card_checks.check_a_process_alone_in_its_group_learns_the_same(name, card, corpus, tmp_path)


@pytest.mark.parametrize("level", ["O0", "O1", "O2"])
def test_waveglow_trains_as_on_the_cpu(corpus, tmp_path, half_card, level):
    exact, _ = start(toy_config(), corpus, tmp_path / "cpu", max_steps=20)
    ours, _ = start(toy_config(), corpus, tmp_path / "card", device=half_card, max_steps=20, amp=level)
    limit = 1e-4 if level == "O0" else {torch.float16: 3e-3, torch.bfloat16: 2e-2}[half_card.half]
    assert distance_of_runs(ours.progress.losses, exact.progress.losses) < limit


def test_compiled_couplings_learn_the_same(corpus, tmp_path, card):
    plain, _ = start(toy_config(), corpus, tmp_path / "plain", device=card, max_steps=20)
    compiled, _ = start(toy_config(), corpus, tmp_path / "compiled", device=card, max_steps=20, compile=True)
    assert distance_of_runs(compiled.progress.losses, plain.progress.losses) < 1e-4


@pytest.mark.parametrize("steps", [70, 130])
@pytest.mark.parametrize("with_masks", [True, False])
def test_the_recurrences_have_the_gradients_of_the_cpu(steps, with_masks):
    """In blocks that are recorded, each time anew."""
    attention, padding, dropout = recurrence(steps)
    known, weight, masks = lstm_inputs(steps)
    loops = [
        (attend_over_time, attention, [padding, dropout if with_masks else None]),
        (lstm_over_time, [known, weight], [masks if with_masks else None]),
    ]
    for function, tensors, constant in loops:
        expected = gradients_and_result(function, tensors, constant)
        there = [each.detach().cuda().requires_grad_() for each in tensors]
        others = [each if each is None else each.cuda() for each in constant]
        for _ in range(3):
            found = gradients_and_result(function, there, others)
            assert all(relative_error(*each) < 1e-9 for each in zip(found, expected, strict=True))


@pytest.mark.parametrize("level", ["O0", "O1", "O2"])
def test_tacotron2_learns(corpus, tmp_path, half_card, level):
    """Dropout draws other numbers there, so that the curve is another one. A dynamic loss scale would leave out the
    first steps."""
    values = toy_tacotron2_config()
    run, summary = start(values, corpus, tmp_path, device=half_card, amp=level, loss_scale=128.0, **CURVE)
    before = run.progress.validation_losses[0][1]
    assert summary.validation_loss < before / 2


def test_a_run_goes_on_exactly_and_on_the_cpu(corpus, tmp_path, card):
    values = toy_tacotron2_config()
    whole, _ = start(values, corpus, tmp_path / "whole", device=card, max_steps=6)
    start(values, corpus, tmp_path / "parts", device=card, max_steps=3)
    resumed, _ = start(values, corpus, tmp_path / "parts", device=card, max_steps=6)
    assert resumed.progress.losses == pytest.approx(whole.progress.losses, rel=1e-4)
    there, _ = start(values, corpus, tmp_path / "parts", device=CPU, max_steps=7)
    assert there.progress.losses[:6] == resumed.progress.losses
    assert model_of(there).keys() == model_of(resumed).keys()


def test_a_recorded_step_is_the_plain_one(tmp_path, card):
    check_graphed_step(tmp_path, card)
