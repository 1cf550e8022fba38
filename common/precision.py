"""apex's opt levels O0, O1 and O2, TF32, and the loss scale that float16 needs.

O0 is float32. TF32 is float32 whose products and convolutions round their factors to 10 bits, which CUDA cards compute
many times as fast; elsewhere it is O0. O1 runs each operator in the precision autocast chooses. O2 keeps the model in
half precision, batch norm in float32, and lets the optimizer work on float32 master copies of its weights. Half
precision is the device's: bfloat16 on the CPU and on CUDA cards that have it, else float16.
"""

import copy
import importlib
import logging
from contextlib import AbstractContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from common.adam import make_adam
from common.device import Device, clear_overflow_flag, overflow_flag, use_exact_float32, use_tf32
from common.program import UserError, first_line, shown

log = logging.getLogger(__name__)

HALF = ("O1", "O2")
"Levels that compute in half precision."
INITIAL_DYNAMIC_SCALE = 2.0**16
LARGEST_DYNAMIC_SCALE = 2.0**24
GROWTH_INTERVAL = 2000


def amp_level(amp: str, fp16_run: bool, device: Device) -> str:
    """The requested amp level, else the one that NVIDIA's ``fp16_run`` stands for on this device."""
    return amp or (device.amp if fp16_run else "O0")


def make_precision(level: str, loss_scale: str | float, device: Device, model: nn.Module) -> "Precision":
    """The precision of a training, which is logged: O2 through apex where it is installed, else our own."""
    amp, by = None, ""
    if level == "O2" and device.type != "cpu":
        try:
            amp, by = importlib.import_module("apex.amp"), " by apex"
        except Exception as error:  # an apex that was built for another torch fails in many ways
            by = f" without apex ({first_line(error)})"
    precision = ApexPrecision(amp, loss_scale, device, model) if amp else Precision(level, loss_scale, device, model)
    dynamic = " (dynamic)" if precision.dynamic else ""
    log.info("precision: %s%s, loss scale %g%s", level, by, precision.scale, dynamic)
    return precision


class Precision:
    """The difference between a training step in float32 and one in half precision.

    A step is: ``start_step``, ``autocast`` around the forward pass, ``backward``,
    ``unscale_gradients``, the optimizer on ``master_params`` if nothing overflowed, ``finish_step``.
    """

    def __init__(self, level: str, loss_scale: str | float, device: Device, model: nn.Module):
        self.level = level
        self.device = device
        # bfloat16 has float32's range and needs no scale.
        scaled = level in HALF and device.half == torch.float16
        self.dynamic = scaled and loss_scale == "dynamic"
        self.scale = 1.0 if not scaled else INITIAL_DYNAMIC_SCALE if self.dynamic else float(loss_scale)
        self.good_steps = 0
        self.model_params = [p for p in model.parameters() if p.requires_grad]
        self.master_params = self.model_params
        self._gradients_are_own = device.type != "npu"
        if level == "TF32" and device.type == "cuda":
            use_tf32(device)
        elif level not in HALF:
            use_exact_float32(device)
        if level == "O2":
            self._keep_masters(model)

    def _keep_masters(self, model: nn.Module) -> None:
        self.master_params = [nn.Parameter(p.detach().float().clone()) for p in self.model_params]
        convert(model, self.device.half)

    def make_optimizer(self, learning_rate: float, weight_decay: float = 0.0) -> Optimizer:
        """Adam on the master weights."""
        return make_adam(self.master_params, learning_rate, self.device, weight_decay)

    @property
    def input_dtype(self) -> torch.dtype:
        """Type of the model's inputs."""
        return self.device.half if self.level == "O2" else torch.float32

    def autocast(self) -> AbstractContextManager:
        """Around the forward pass and the loss."""
        return torch.autocast(self.device.type, dtype=self.device.half, enabled=self.level == "O1")

    def start_step(self, optimizer: Optimizer) -> None:
        """Zero the gradients."""
        optimizer.zero_grad()
        if self.dynamic:
            clear_overflow_flag(self.device)

    def backward(self, loss: Tensor, last: bool = True) -> None:
        """The backward pass of a loss; ``last`` of those that are added up in a step."""
        (loss * self.scale).backward()

    def unscale_gradients(self) -> bool:
        """Hand the gradients to the master weights, undoing the loss scale.

        Returns whether there was an overflow that they do not show as inf or nan. With a static scale none is
        looked for, as in apex: it need not do harm, and the scale could not be lowered.
        """
        self._unscale()
        return self.dynamic and overflow_flag(self.device)

    def _own_gradients(self) -> None:
        """Give each gradient memory of its own, once: NpuFusedAdam joins the storages of those that it sees first, and
        a gradient may be a view of a larger one."""
        for param in self.model_params:
            if param.grad is not None and param.grad.untyped_storage().nbytes() > param.grad.nbytes:
                param.grad = param.grad.clone()
        self._gradients_are_own = True

    def _unscale(self) -> None:
        if not self._gradients_are_own:
            self._own_gradients()
        for model_param, master in zip(self.model_params, self.master_params):
            gradient = model_param.grad
            if gradient is None:
                continue
            if master is not model_param:
                # In place from the second step on: NpuFusedAdam keeps hold of the gradients it saw first.
                if master.grad is None:
                    master.grad = gradient.float()
                else:
                    master.grad.copy_(gradient)
                gradient, model_param.grad = master.grad, None
            if self.scale != 1.0:
                gradient.div_(self.scale)

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
        before = self.scale
        if not finite:
            self.scale = max(1.0, self.scale / 2)
        elif self.good_steps % GROWTH_INTERVAL == 0:
            self.scale = min(LARGEST_DYNAMIC_SCALE, self.scale * 2)
        if self.scale != before:
            log.info("loss scale %g", self.scale)

    def model_state(self, model: nn.Module) -> dict[str, Tensor]:
        """The model's state dict in float32."""
        state = {name: t.float() if t.is_floating_point() else t for name, t in model.state_dict().items()}
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

    def checked_state(self, path: str | Path, state: Any) -> dict:
        """``state`` if it is one of ``state_dict``, else UserError."""
        known = state if isinstance(state, dict) else {}
        scale, good_steps = known.get("scale"), known.get("good_steps")
        is_scale = isinstance(scale, int | float) and 0 < scale <= 2.0**64
        if not (is_scale and isinstance(good_steps, int) and good_steps >= 0):
            raise UserError(f"{path}: its precision is {shown(state)}, must have a scale and good_steps")
        return known

    def load_state_dict(self, state: dict) -> None:
        if self.dynamic:
            self.scale, self.good_steps = state["scale"], state["good_steps"]


class ApexPrecision(Precision):
    """O2 by apex.amp, which holds the master weights and moves gradients and weights between the two.

    Loss scale and skipped steps stay ours: apex is given a static scale, with which it never skips
    a step by itself, as it might on one process and not on another. A dynamic scale is set anew in each step.
    """

    def __init__(self, amp: ModuleType, loss_scale: str | float, device: Device, model: nn.Module):
        self.amp = amp
        self.model = model
        super().__init__("O2", loss_scale, device, model)

    def _keep_masters(self, model: nn.Module) -> None:
        """Nothing: ``amp.initialize`` does this, and needs the optimizer for it."""

    def make_optimizer(self, learning_rate: float, weight_decay: float = 0.0) -> Optimizer:
        weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.optimizer = make_adam(self.model_params, learning_rate, self.device, weight_decay, under_apex=True)
        self.amp.initialize(self.model, self.optimizer, opt_level="O2", loss_scale=self.scale, verbosity=0)
        self.optimizer.zero_grad()  # only now are there master weights
        self.master_params = list(self.amp.master_params(self.optimizer))
        self.load_model_state(self.model, weights)  # apex made them of weights rounded to half precision
        return self.optimizer

    def backward(self, loss: Tensor, last: bool = True) -> None:
        self.amp.load_state_dict({"loss_scaler0": {"loss_scale": self.scale, "unskipped": 0}})
        with self.amp.scale_loss(loss, self.optimizer, delay_unscale=not last) as scaled:
            scaled.backward()

    def _unscale(self) -> None:
        """Nothing: apex has done this at the end of the last backward pass."""


def convert(model: nn.Module, dtype: torch.dtype) -> None:
    """Convert everything but batch norm to ``dtype``: its statistics need float32, and it accepts half-precision input
    as it is."""
    exact = [
        (module, copy.deepcopy(module.state_dict())) for module in model.modules() if isinstance(module, _BatchNorm)
    ]
    model.to(dtype)
    for module, state in exact:
        module.float().load_state_dict(state)
