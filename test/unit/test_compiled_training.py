"""Training with compiled couplings, which is for CUDA cards: the same numbers. The compiler can be tried on a CPU."""

import shutil
from dataclasses import replace

import pytest
import torch

from common.config_reading import from_dict
from common.program import UserError
from conftest import toy_config
from runs import CPU, start
from waveglow.config import Config, build_model
from waveglow.loss import WaveGlowLoss
from waveglow.train import compile_couplings

CARD = replace(CPU, type="cuda")


@pytest.fixture
def model():
    """Three flows, the last of them with fewer channels."""
    torch.manual_seed(1)
    values = toy_config()
    values["waveglow_config"] |= {"n_flows": 3, "n_early_every": 2}
    model = build_model(from_dict(Config, values))
    for wn in model.WN:
        torch.nn.init.normal_(wn.end.weight, std=0.1)
    return model


def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 6, 9, generator=generator), 0.1 * torch.randn(2, 2048, generator=generator)


def loss_and_gradients(model, autocast):
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = WaveGlowLoss(1.0)(model(*batch()))
    loss.backward()
    return loss.detach(), torch.cat([weight.grad.flatten() for weight in model.parameters()])


@pytest.fixture
def fresh_compiler():
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="on a CPU PyTorch's compiler wants g++")
@pytest.mark.parametrize("half", [False, True])
def test_compiled_couplings_learn_the_same(model, fresh_compiler, half):
    """The compiler keeps in float32 what autocast rounds. Measured: 2e-7, and 0.002 in bfloat16."""
    plain = loss_and_gradients(model, half)
    compile_couplings(model, CARD)
    for ours, theirs in zip(loss_and_gradients(model, half), plain, strict=True):
        assert (ours - theirs).norm() < (0.01 if half else 2e-6) * theirs.norm()
    graphs = torch._dynamo.utils.counters
    assert not graphs["graph_break"] and graphs["stats"]["unique_graphs"] == 2  # flows of equal sizes share one


def test_only_the_couplings_are_compiled_and_only_for_gradients(model, monkeypatch):
    compiled, used = [], []

    def compile(forward, dynamic):
        assert not dynamic  # compiled for any shape it is slower
        compiled.append(forward)
        return lambda *inputs: used.append(forward) or forward(*inputs)

    forwards = [wn.forward for wn in model.WN]
    monkeypatch.setattr(torch, "compile", compile)
    compile_couplings(model, CARD)
    assert compiled == forwards
    with torch.no_grad():
        without, *_ = model(*batch())
    assert not used
    with_gradients, *_ = model(*batch())
    assert used == forwards
    assert torch.allclose(without, with_gradients, atol=1e-6)


@pytest.mark.parametrize("wanted", [False, True])
def test_couplings_are_compiled_when_asked_for(corpus, tmp_path, monkeypatch, wanted):
    asked = []
    monkeypatch.setattr("waveglow.train.compile_couplings", lambda *given: asked.append(given))
    run, _ = start(toy_config(), corpus, tmp_path, max_steps=1, compile=wanted)
    assert asked == [(run.model, run.device)] * wanted


@pytest.mark.parametrize("kind", ["npu", "cpu"])
def test_other_devices_have_no_compiler(model, kind):
    with pytest.raises(UserError, match=f"compile is for CUDA cards: leave it out on the {kind}"):
        compile_couplings(model, replace(CPU, type=kind))
