"""The public reference's training run of 20 steps, done by the product's precision and optimizer."""

from pathlib import Path

import torch

from common.config import NpuConfig
from common.device import Device
from common.layers.channels_last import use_channels_last
from common.layers.npu import patch_for_npu
from common.precision import Precision, make_precision
from waveglow.loss import WaveGlowLoss
from waveglow.model import WaveGlow

REFERENCE = torch.load(Path(__file__).parents[1] / "data/reference/waveglow.pt", weights_only=True)
AUTO = NpuConfig()
TOLERANCE = {torch.float16: 5e-4, torch.bfloat16: 3e-3}
"""How far a loss of O1 or O2 may be from float32's, losses going from 0.069 to -0.360. Measured: float16 7e-5 (O1)
and 1.2e-4 (O2), on the CPU and on the emulated NPU; bfloat16 5e-4 (O1) and 9e-4 (O2), on the CPU."""


class Training:
    """A model with its precision and optimizer; ``make`` is the precision's constructor."""

    def __init__(
        self, level: str, loss_scale: str | float, device: Device, make=make_precision, switches: NpuConfig = AUTO
    ):
        self.device = device
        self.model = WaveGlow(**REFERENCE["config"])
        self.model.load_state_dict(REFERENCE["state_dict"])
        self.model.to(device.torch_device)
        patch_for_npu(self.model, switches, device)
        use_channels_last(self.model, device)
        self.precision: Precision = make(level, loss_scale, device, self.model)
        self.optimizer = self.precision.make_optimizer(REFERENCE["training"]["learning_rate"])
        self.losses: list[float] = []
        "Of the steps made."

    def loss(self) -> torch.Tensor:
        """Of the step to come."""
        batch = REFERENCE["training"]["batches"][len(self.losses) % 4]
        mel, audio = (tensor.to(self.device.torch_device, self.precision.input_dtype) for tensor in batch)
        with self.precision.autocast():
            return WaveGlowLoss()(self.model(mel, audio))

    def step(self, parts: int = 1) -> bool:
        """As common.training.loop makes it, from equal parts; whether nothing overflowed."""
        precision = self.precision
        precision.start_step(self.optimizer)
        for part in range(parts):
            loss = self.loss()
            precision.backward(loss / parts, last=part == parts - 1)
        overflowed = precision.unscale_gradients()
        finite = all(bool(torch.isfinite(p.grad).all()) for p in precision.master_params) and not overflowed
        if finite:
            self.optimizer.step()
            self.losses.append(loss.item())
        precision.finish_step(finite)
        return finite

    def steps(self, number: int) -> "Training":
        while len(self.losses) < number:
            self.step()
        return self


def distance(losses: list[float]) -> float:
    """The largest from the reference's losses."""
    return max(abs(ours - theirs) for ours, theirs in zip(losses, REFERENCE["training"]["losses"], strict=True))
