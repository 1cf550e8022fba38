"""Trainings on the emulated NPU with Huawei's own NpuFusedAdam, in one process or in those that torchrun started;
test/unit/test_huawei_optimizer.py runs them."""

import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch_npu
from torch_npu import emulator

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
from common.distributed import first_ranks, ranks
from common.layers import matmul
from conftest import make_corpus, toy_config, toy_tacotron2_config
from runs import CPU, model_of, start
from tacotron2 import decoder, model, prenet

pytest_plugins = ["check_fixtures"]
pytestmark = pytest.mark.usefixtures("device")

CONFIGS = {"waveglow": toy_config, "tacotron2": toy_tacotron2_config}
AS_ON_THE_CARD = {"npu_config": {"conv1d_as_conv2d": "on"}}
"What the patch changes in rounding."


@pytest.fixture(scope="module", autouse=True)
def processes():
    """All of them in a group, in which the trainings of the CPU have gloo."""
    several = ranks().world_size > 1
    if several:
        dist.init_process_group("cpu:gloo,npu:hccl", timeout=timedelta(minutes=1))
    yield ranks().world_size
    if several:
        dist.destroy_process_group()


@pytest.fixture
def folder(tmp_path):
    """Where the first process writes checkpoints, and all find them."""
    return first_ranks(lambda: tmp_path)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("tones") / "corpus", seconds=0.2)


@pytest.fixture(autouse=True)
def torchs_own_numbers(monkeypatch):
    """The CPU with the products and the dropout of the kernels that the card is emulated with, and its random numbers
    there, too."""
    monkeypatch.setattr(matmul, "can_pack", lambda weight: False)
    monkeypatch.setattr(matmul, "_is_for_onednn", lambda x: False)
    for module in (decoder, model, prenet):
        monkeypatch.setattr(module, "dropout", torch.nn.functional.dropout)
    with emulator.random_numbers_of_the_cpu():
        yield


def steps_counted(run) -> set[int]:
    return {int(state["step"]) for state in run.optimizer.state.values()}


def test_it_is_huaweis():
    assert torch_npu.optim.NpuFusedAdam.__module__ == "torch_npu.wheels_optim.npu_fused_adam"


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    ("level", "grad_clip"),
    [
        ("O0", 0.05),
        ("O2", 0.05),
        pytest.param("O0", 0.0, marks=pytest.mark.slow),
        pytest.param("O1", 0.05, marks=pytest.mark.slow),
    ],
)
def test_a_training_is_that_of_the_cpu(device, corpus, folder, name, level, grad_clip):
    """Losses and weights, with gradients accumulated, clipped, and the learning rate changing; the CPU in the half
    precision of the card."""
    values = CONFIGS[name]() | AS_ON_THE_CARD
    options = dict(
        max_steps=6, grad_clip=grad_clip, grad_accumulation=2, batch_size=2, warmup_steps=4, weight_decay=1e-6,
        amp=level, loss_scale=128.0,
    )  # fmt: skip
    there, _ = start(values, corpus, folder / "npu", device=device, **options)
    here, _ = start(values, corpus, folder / "cpu", device=replace(CPU, half=device.half), **options)
    assert type(there.optimizer) is torch_npu.optim.NpuFusedAdam and steps_counted(there) == {6}
    rounding = 1e-6 if level == "O0" else 5e-4
    assert there.progress.losses == pytest.approx(here.progress.losses, rel=rounding, abs=1e-6)
    ours, theirs = model_of(there), model_of(here)
    # In front of batch norm a bias has no gradient but rounding, of which Adam makes whole steps.
    names = [name for name, _ in there.model.named_parameters() if not name.endswith("0.conv.bias")]
    assert max((ours[name] - theirs[name]).abs().max().item() for name in names) < max(rounding, 5e-6)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    ("how", "level"),
    [
        ("resume", "O2"),
        ("keep_optimizer", "O0"),
        *(pytest.param("resume", level, marks=pytest.mark.slow) for level in ("O0", "O1")),
        *(pytest.param("keep_optimizer", level, marks=pytest.mark.slow) for level in ("O1", "O2")),
    ],
)
def test_a_run_goes_on_as_if_nothing_had_been(device, corpus, folder, name, how, level):
    """With Adam's state, each of its steps counted once."""
    values, options = CONFIGS[name](), dict(device=device, amp=level, loss_scale=128.0, grad_clip=0.05)
    whole, _ = start(values, corpus, folder / "whole", max_steps=5, **options)
    start(values, corpus, folder / "parts", max_steps=3, **options)
    if how == "resume":
        run, _ = start(values, corpus, folder / "parts", max_steps=5, **options)
        assert run.progress.losses == whole.progress.losses
    else:
        origin = dict(checkpoint_path=str(folder / f"parts/{name}_3"), keep_optimizer=True)
        run, _ = start(values, corpus, folder / "tuned", max_steps=2, **options, **origin)
        assert len(run.progress.losses) == 5
    assert steps_counted(run) == {5}
    for state in run.optimizer.state.values():
        assert state["exp_avg"].is_npu and bool(state["exp_avg"].any())


@pytest.mark.parametrize("name", CONFIGS)
def test_a_run_goes_on_on_the_cpu(device, corpus, folder, name):
    values = CONFIGS[name]() | AS_ON_THE_CARD
    whole, _ = start(values, corpus, folder / "whole", max_steps=5)
    start(values, corpus, folder / "parts", device=device, max_steps=3)
    run, _ = start(values, corpus, folder / "parts", max_steps=5)
    assert steps_counted(run) == {5}
    if name == "waveglow":  # after dropout on the card, the CPU's random numbers are others
        assert run.progress.losses == pytest.approx(whole.progress.losses, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("level", ["O1", "O2"])
def test_a_skipped_step_is_not_counted(device, corpus, folder, name, level, caplog):
    def too_large(task, run):
        run.precision.load_state_dict({"scale": 2.0**22, "good_steps": 0})

    run, _ = start(CONFIGS[name](), corpus, folder, spoil=too_large, device=device, amp=level, max_steps=12)
    skipped = caplog.text.count("step skipped")
    assert 0 < skipped < 12 and steps_counted(run) == {12 - skipped}
