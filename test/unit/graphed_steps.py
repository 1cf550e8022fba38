"""A recorded training step beside the plain one."""

import pytest
import torch

import waveglow.config
from common.config_reading import from_dict
from common.cuda_graph import Stream
from conftest import toy_config
from runs import make_run
from tools.voice.graphed_step import graphed_step
from waveglow.loss import WaveGlowLoss


def check_graphed_step(folder, device, clip=0.5):
    """Loss and gradients are those of the plain step, of other batches than the first one, too."""
    values = toy_config()
    run = make_run(values, folder, device, grad_clip=clip)
    config = from_dict(waveglow.config.Config, values)
    audio = torch.randn(3, 4, config.data_config.segment_length, device=device.torch_device) / 10
    mel = waveglow.config.build_mel(config).to(device.torch_device)
    batches = [{"audio": each, "mel": mel(each)} for each in audio]
    criterion = WaveGlowLoss()
    step = graphed_step(run, Stream(device, first=True), lambda batch: criterion(run.model(**batch)), batches[0])
    for batch in batches[1:]:
        loss = step(batch)[0].item()
        gradients = [parameter.grad.clone() for parameter in run.precision.model_params]
        run.model.zero_grad(set_to_none=False)
        plain = criterion(run.model(**batch))
        plain.backward()
        torch.nn.utils.clip_grad_norm_(run.precision.model_params, clip)
        assert loss == pytest.approx(plain.item(), rel=1e-5)
        for ours, parameter in zip(gradients, run.precision.model_params, strict=True):
            assert (ours - parameter.grad).abs().max() < 1e-4
