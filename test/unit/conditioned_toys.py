"""WaveGlow of toy size, in which the conditions count."""

import torch

from waveglow.conditioning import interpolation
from waveglow.model import WaveGlow


def toy(reach=2, n_group=8):
    torch.manual_seed(0)
    WN_config = dict(n_layers=2, n_channels=8, kernel_size=3)
    model = WaveGlow(5, 4, n_group, 2, 2, WN_config, hop_length=32, upsample_kernel=32 * reach)
    for wn in model.WN:  # zeros at first, which would hide the conditions
        torch.nn.init.normal_(wn.end.weight, std=0.05)
    return model


def fix_upsampling(model):
    """As an interpolation, of which each band has its own scale."""
    upsample = model.upsample
    mean, std = torch.linspace(-1, 1, 5), torch.linspace(0.5, 2, 5)
    weight, bias = interpolation(mean, std, upsample.kernel_size[0], upsample.stride[0])
    upsample.load_state_dict({"weight": weight, "bias": bias})
    upsample.requires_grad_(False)
    assert upsample.interpolates()
