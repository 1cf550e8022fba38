"""When the upsampling is composed with the layers behind it: for fewer multiplications, and in little memory."""

import pytest
import torch
from conditioned_toys import fix_upsampling, toy

from common.config import NpuConfig
from common.device import pick_device
from common.layers.conv import Upsampling
from common.layers.npu import patch_for_npu
from waveglow.conditioning import FrameRate, GroupRate, interpolation
from waveglow.model import WaveGlow


def test_weights_that_would_grow_much_are_not_composed():
    """NVIDIA's WaveGlow would take half a billion."""
    model = WaveGlow(2, 2, 8, 4, 2, dict(n_layers=1, n_channels=2, kernel_size=3), hop_length=256, upsample_kernel=1024)
    model.fuse()
    assert not model.is_composed


@pytest.mark.parametrize(
    ("reach", "fixed", "composed"),
    [(1, False, True), (4, False, True), (5, False, False), (8, True, True), (9, True, False), (1.5, False, False)],
)
def test_composed_weights_are_twice_as_many_at_most(reach, fixed, composed):
    """A cond_layer sees 8 samples of a band. Composed, it sees so many frames for each of 4 groups, or on 2 lines."""
    model = toy(reach=1)
    model.upsample = Upsampling(5, int(32 * reach), 32)
    if fixed:
        fix_upsampling(model)
    before = model.WN[0].cond_layer.effective_weight().numel()
    model.fuse()
    assert (model.is_composed, model.on_lines) == (composed, fixed)
    after = model.WN[0].cond_layer.weight.numel()
    assert after == before * (reach * (2 if fixed else 4) / 8 if composed else 1) <= 2 * before


@pytest.mark.parametrize(
    ("kernel", "on_lines", "groups"),
    [
        (1024, False, 20_480),  # composing: 4 * 256 * 80 of each weight; then 4 frames in the place of 8 samples
        (512, False, 6_826),  # 2 * 256 * 80, and 2 frames
        (512, True, 4),  # 2 lines of 2 frames, for each frame of 32 groups
        (1920, False, None),  # no whole number of frames
        (2048, False, None),  # 8 frames, which are no fewer
    ],
)
def test_the_way_with_fewer_multiplications_is_taken(kernel, on_lines, groups):
    """By NVIDIA's sizes: from so many groups of samples on."""
    model = WaveGlow(80, 1, 8, 4, 2, dict(n_layers=1, n_channels=2, kernel_size=3), upsample_kernel=kernel)
    if groups is None:
        assert not model._pays_to_compose(10**9, on_lines)
    else:
        assert not model._pays_to_compose(groups, on_lines)
        assert model._pays_to_compose(groups + 1, on_lines)


def test_with_a_fixed_interpolation_a_few_frames_are_enough():
    model = WaveGlow(80, 1, 8, 4, 2, dict(n_layers=1, n_channels=2, kernel_size=3), upsample_kernel=512)
    start = interpolation(torch.zeros(80), torch.ones(80), 512, 256)
    model.upsample.load_state_dict(dict(zip(("weight", "bias"), start)))
    mel = torch.randn(1, 80, 4)
    assert isinstance(model._conditioning(mel, 4 * 32, False), GroupRate)  # as long as it is trained, it may become any
    model.upsample.requires_grad_(False)
    condition = model._conditioning(mel, 4 * 32, False)
    assert isinstance(condition, FrameRate) and condition.place is not None


def test_the_detour_over_the_host_stays():
    """Where the port runs the upsampling on the host, nothing is composed with it."""
    model = toy()
    assert model._pays_to_compose(10**6, on_lines=False)
    patch_for_npu(model, NpuConfig(conv_transpose_on_cpu="on"), pick_device("cpu"))
    assert not model._pays_to_compose(10**6, on_lines=False)
    model.fuse()
    assert not model.is_composed
