"""apex's opt levels O0, O1 and O2, and the loss scale that float16 needs.

O0 is float32. O1 runs each operator in the precision autocast chooses. O2 keeps the model in half
precision and lets the optimizer work on float32 master copies of its weights. Half precision is
the device's: float16 on NPU and CUDA, bfloat16 on the CPU.
"""

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from common.device import Device

INITIAL_DYNAMIC_SCALE = 2.0**16
GROWTH_INTERVAL = 2000


class Precision:
    """What stands between a float32 training step and one in half precision.

    A step is: ``autocast`` around the forward pass, ``backward``, ``unscale_gradients``, the
    optimizer on ``master_params`` if the gradients are finite, ``finish_step``.
    """

    def __init__(self, level: str, loss_scale: str | float, device: Device, model: nn.Module):
        self.level = level
        self.device = device
        # bfloat16 has float32's range and needs no scale.
        scaled = level != "O0" and device.half == torch.float16
        self.dynamic = scaled and loss_scale == "dynamic"
        self.scale = 1.0 if not scaled else INITIAL_DYNAMIC_SCALE if self.dynamic else float(loss_scale)
        self.good_steps = 0
        self.model_params = [p for p in model.parameters() if p.requires_grad]
        self.master_params = self.model_params
        if level == "O2":
            self.master_params = [nn.Parameter(p.detach().float().clone()) for p in self.model_params]
            model.to(device.half)

    @property
    def input_dtype(self) -> torch.dtype:
        """What the model takes."""
        return self.device.half if self.level == "O2" else torch.float32

    def autocast(self) -> AbstractContextManager:
        """Around the forward pass and the loss."""
        return torch.autocast(self.device.type, dtype=self.device.half, enabled=self.level == "O1")

    def backward(self, loss: Tensor) -> None:
        (loss * self.scale).backward()

    def unscale_gradients(self) -> None:
        """Hand the gradients to the master weights, undoing the loss scale."""
        for model_param, master in zip(self.model_params, self.master_params):
            if model_param.grad is None:
                continue
            if master is not model_param:
                # In place from the second step on: NpuFusedAdam keeps hold of the gradients it saw first.
                if master.grad is None:
                    master.grad = model_param.grad.float()
                else:
                    master.grad.copy_(model_param.grad)
                model_param.grad = None
            if self.scale != 1.0:
                master.grad.div_(self.scale)

    @torch.no_grad()
    def finish_step(self, finite: bool) -> None:
        """After the optimizer's step, or after one left out because the gradients overflowed."""
        if finite and self.master_params is not self.model_params:
            for model_param, master in zip(self.model_params, self.master_params):
                model_param.copy_(master)
        if self.dynamic:
            self._adapt_scale(finite)

    def _adapt_scale(self, finite: bool) -> None:
        self.good_steps = self.good_steps + 1 if finite else 0
        if not finite:
            self.scale = max(1.0, self.scale / 2)
        elif self.good_steps % GROWTH_INTERVAL == 0:
            self.scale *= 2

    def model_state(self, model: nn.Module) -> dict[str, Tensor]:
        """The model's state dict with its weights in float32."""
        state = dict(model.state_dict())
        masters = iter(self.master_params)
        for name, param in model.named_parameters():
            if param.requires_grad:
                state[name] = next(masters).detach()
        return state

    @torch.no_grad()
    def load_model_state(self, model: nn.Module, state: dict[str, Tensor]) -> None:
        """Set weights, the master copies included, from float32."""
        model.load_state_dict(state)
        masters = iter(self.master_params)
        for name, param in model.named_parameters():
            if param.requires_grad:
                next(masters).copy_(state[name])

    def state_dict(self) -> dict:
        return {"scale": self.scale, "good_steps": self.good_steps}

    def load_state_dict(self, state: dict) -> None:
        if self.dynamic:
            self.scale, self.good_steps = state["scale"], state["good_steps"]
