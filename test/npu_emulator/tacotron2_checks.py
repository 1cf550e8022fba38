"""Tacotron2 on the emulated NPU, in one process; test/unit/test_tacotron2_on_npu.py runs it."""

import re
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
import torch_npu
from torch_npu import emulator

from common.device import pick_device
from common.layers import matmul
from common.precision import ApexPrecision, Precision
from conftest import make_corpus, toy_tacotron2_config
from runs import CPU, CURVE, TOLERANCE, distance, make_run, model_of, same, start
from tacotron2 import decoder, model, prenet
from tacotron2.train import make_task

pytest_plugins = ["check_fixtures"]
pytestmark = pytest.mark.usefixtures("device")

PARTS = ("conv1d_as_conv2d", "conv_transpose_on_cpu", "conv_transpose_as_product", "logdet_on_cpu")
OFF = {"npu_config": dict.fromkeys(PARTS, "off")}
ALONE = {"npu_config": OFF["npu_config"] | {"conv1d_as_conv2d": "on"}}
"The one part of the patch that Tacotron2 needs."


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("tones") / "corpus", seconds=0.2)


# ---- the patch ----


@pytest.mark.parametrize("part", ["forward", "backward"])
def test_an_unpatched_model_is_refused(device, corpus, tmp_path, part):
    refused = {"forward": emulator.REFUSED, "backward": emulator.REFUSED - {"conv1d"}}[part]
    name = {"forward": "conv1d", "backward": "conv1d_backward"}[part]
    with emulator.refusing(refused), pytest.raises(NotImplementedError, match=f"no operator 'aten::{name}'"):
        start(toy_tacotron2_config() | OFF, corpus, tmp_path, device=device, max_steps=1)


def test_what_runs_on_the_device(device, corpus, tmp_path):
    """Refusing nothing: an unpatched model would run its convolutions there, and nothing else that is refused."""
    met = {}
    with emulator.refusing(()):
        for name, switches in {"unpatched": OFF, "patched": ALONE}.items():
            emulator.reset()
            start(toy_tacotron2_config() | switches, corpus, tmp_path / name, device=device, max_steps=1)
            counts = emulator.operator_counts()
            met[name] = counts.keys() & emulator.REFUSED
            # Its LSTMs are matrix products.
            assert not [operator for operator in counts if re.search("lstm|rnn|gru", operator)]
        assert met == {"unpatched": {"conv1d", "conv1d_backward"}, "patched": set()}
        assert counts["conv2d"] and counts["conv2d_backward"]


def test_nothing_crosses_in_a_step(device, corpus, tmp_path):
    """The patch moves nothing to the host. What a step does copy: text, its lengths, mel and its lengths to the
    device; and from there the loss with what else all processes must know."""
    seen = []

    def watch(task, run):
        original = task.loss

        def loss(model, batch):
            if model.training:
                seen.append(emulator.copies())
            return original(model, batch)

        task.loss = loss

    run, _ = start(toy_tacotron2_config(), corpus, tmp_path, spoil=watch, device=device, max_steps=3)
    assert run.crossings.count == 0
    for before, after in pairwise(seen):
        assert after.host_to_device - before.host_to_device == 4
        assert after.device_to_host - before.device_to_host == 1
        assert after.scalars_read == before.scalars_read


# ---- numbers ----


@pytest.fixture
def plain_cpu(monkeypatch):
    """The CPU without oneDNN's products, which sum up in another order than the kernels the card is emulated with,
    and with torch's dropout, whose random numbers the card has for once, too."""
    monkeypatch.setattr(matmul, "can_pack", lambda weight: False)
    monkeypatch.setattr(matmul, "_is_for_onednn", lambda x: False)
    for module in (decoder, model, prenet):
        monkeypatch.setattr(module, "dropout", torch.nn.functional.dropout)
    with emulator.random_numbers_of_the_cpu():
        yield


@pytest.fixture(scope="module")
def exact(corpus, tmp_path_factory):
    """A run in float32."""
    return start(toy_tacotron2_config(), corpus, tmp_path_factory.mktemp("O0"), device=pick_device("npu"), **CURVE)[0]


def test_the_curve_is_the_cpus_bit_for_bit(device, corpus, tmp_path, plain_cpu):
    """All dropout on."""
    there, _ = start(toy_tacotron2_config(), corpus, tmp_path / "npu", device=device, **CURVE)
    here, _ = start(toy_tacotron2_config() | ALONE, corpus, tmp_path / "cpu", **CURVE)
    assert there.progress.losses == here.progress.losses
    assert there.progress.validation_losses == here.progress.validation_losses
    assert here.progress.losses[-1] < here.progress.losses[0] / 1.5
    assert same(model_of(there), model_of(here))
    assert type(there.optimizer) is torch_npu.optim.NpuFusedAdam


def test_a_curve_with_random_numbers_of_the_cards_own(corpus, tmp_path, exact):
    """As on a real card: it is another one, and learns as well."""
    here, _ = start(toy_tacotron2_config() | ALONE, corpus, tmp_path, **CURVE)
    assert exact.progress.losses != here.progress.losses
    assert exact.progress.losses[-1] < exact.progress.losses[0] / 1.5
    assert distance(exact.progress.losses, here.progress.losses) < 1


@pytest.mark.parametrize("level", ["O1", "O2", "O2 by apex"])
def test_half_precision_follows_float32(device, corpus, tmp_path, exact, level, request):
    by_apex = level == "O2 by apex"
    if by_apex:
        request.getfixturevalue("apex")
    level = level[:2]
    run, _ = start(
        toy_tacotron2_config(), corpus, tmp_path, device=device, amp=level, loss_scale=128.0, with_tensorboard=True,
        **CURVE,
    )  # fmt: skip
    assert type(run.precision) is (ApexPrecision if by_apex else Precision)
    assert 0 < distance(run.progress.losses, exact.progress.losses) < TOLERANCE[torch.float16]
    dtypes = {name: parameter.dtype for name, parameter in run.model.named_parameters()}
    # batch norm of the 3 convolutions of the encoder and the 5 of the postnet
    normed = [dtypes.pop(name) for name in list(dtypes) if re.search(r"convolutions\.\d\.1\.", name)]
    assert normed == [torch.float32] * 2 * 8
    assert set(dtypes.values()) == {torch.float16 if level == "O2" else torch.float32}


@pytest.mark.parametrize("saturates", [False, True])
def test_an_overflow_is_skipped_and_the_scale_lowered(device, corpus, tmp_path, caplog, saturates):
    """Whether it shows as inf or only in the card's flag."""
    with emulator.saturating(saturates):
        check_overflow(device, corpus, tmp_path, caplog)


def check_overflow(device, corpus, tmp_path, caplog):
    values = toy_tacotron2_config()
    before = model_of(make_run(values, tmp_path, device, amp="O2"))
    after = {}

    def too_large(task, run):
        run.precision.load_state_dict({"scale": 2.0**20, "good_steps": 0})
        original = run.precision.finish_step

        def finish_step(finite):
            original(finite)
            after.setdefault(finite, (run.precision.scale, model_of(run)))

        run.precision.finish_step = finish_step

    run, _ = start(values, corpus, tmp_path, spoil=too_large, device=device, amp="O2", max_steps=16)
    assert "step skipped (1 in a row)" in caplog.text and "loss scale 524288" in caplog.text
    scale, model = after[False]
    # batch norm's statistics included
    assert scale == 2.0**19 and same(model, before)
    assert not same(after[True][1], before)
    assert run.precision.good_steps > 3


@pytest.mark.parametrize("level", ["O0", "O2"])
def test_a_resumed_run_equals_an_undisturbed_one_bit_for_bit(device, corpus, tmp_path, level):
    options = {"device": device, "amp": level, "iters_per_checkpoint": 4}
    whole, _ = start(toy_tacotron2_config(), corpus, tmp_path / "whole", max_steps=7, **options)
    start(toy_tacotron2_config(), corpus, tmp_path / "parts", max_steps=4, **options)
    resumed, _ = start(toy_tacotron2_config(), corpus, tmp_path / "parts", max_steps=7, **options)
    assert resumed.progress.losses == whole.progress.losses
    assert same(model_of(resumed), model_of(whole))


def test_inference_is_the_cpus_bit_for_bit(device, tmp_path, plain_cpu):
    text = torch.randint(1, 148, (3, 9), generator=torch.Generator().manual_seed(0))
    text_lengths = torch.tensor([9, 4, 7])
    spoken = []
    for where in (device, CPU):
        model = make_run(toy_tacotron2_config() | ALONE, tmp_path, where).model.eval()
        spoken.append(model.infer(text.to(where.torch_device), text_lengths.to(where.torch_device), seeds=[1, 2, 3]))
    for there, here in zip(*spoken):
        assert there.length == here.length > 30
        assert torch.equal(there.mel.cpu(), here.mel) and torch.equal(there.alignment.cpu(), here.alignment)


@pytest.mark.parametrize("bias", [-100.0, 0.0, 100.0])
def test_the_gate_is_looked_at_now_and_then_and_the_speech_is_the_same(device, tmp_path, plain_cpu, bias):
    """Whether it never fires, somewhere, or at once; the frames behind the end leave no trace."""
    text, text_lengths = torch.randint(1, 148, (3, 9), generator=torch.Generator().manual_seed(0)), [9, 4, 7]
    spoken = []
    for where in (device, CPU):
        model = make_run(toy_tacotron2_config() | ALONE, tmp_path, where).model.eval()
        gate = model.decoder.gate_layer.linear_layer
        gate.weight.data.mul_(30)  # to fire at different frames
        gate.bias.data.fill_(bias)
        lengths = torch.tensor(text_lengths, device=where.torch_device)
        symbols = text.to(where.torch_device)
        emulator.reset()
        spoken.append(model.infer(symbols, lengths, seeds=[1, 2, 3]))
        if where is device:
            crossed = emulator.copies()
    for there, here in zip(*spoken):
        assert (there.length, there.stopped) == (here.length, here.stopped)
        assert torch.equal(there.mel.cpu(), here.mel) and torch.equal(there.alignment.cpu(), here.alignment)
        assert (there.diagonality, there.coverage) == pytest.approx((here.diagonality, here.coverage), nan_ok=True)
    # 40 steps at most: two looks, the length of the longest and that of the shortest text; no more for each frame.
    assert crossed.scalars_read <= 4
    # Masks of 64 steps at a time.
    assert crossed.host_to_device == 1
    # For the batch lengths and ends, for each clip its alignment.
    assert crossed.device_to_host <= 3 + 3 * 1


def test_validation_is_repeatable(device, corpus, tmp_path):
    run = make_run(toy_tacotron2_config(), tmp_path, device)
    task = make_task(run, str(corpus))
    run.model.eval()
    with torch.no_grad():
        assert task.validate() == task.validate()


@pytest.mark.parametrize("how", ["resume", "keep_optimizer"])
def test_a_run_of_the_cpu_goes_on_and_adam_counts_each_step_once(device, corpus, tmp_path, how):
    values = toy_tacotron2_config()
    start(values, corpus, tmp_path / "cpu", max_steps=2)
    if how == "resume":
        run, _ = start(values, corpus, tmp_path / "cpu", device=device, max_steps=5)
    else:
        origin = {"checkpoint_path": str(tmp_path / "cpu/tacotron2_2"), "keep_optimizer": True}
        run, _ = start(values, corpus, tmp_path / "npu", device=device, max_steps=3, **origin)
    assert {state["step"] for state in run.optimizer.state.values()} == {5}
