"""``torch_npu.optim``: the fused Adam, with all that is peculiar about the real one."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_npu import _C, npu

DTYPES = (torch.float32, torch.float16)
ALIGNMENT = 64
"Bytes, as PyTorch aligns its tensors."


@dataclass
class _Combined:
    """The parameters of one group and dtype, their values lying in one flat tensor; so their gradients."""

    params: list[Tensor]
    param_views: list[Tensor]
    grads: Tensor
    grad_views: list[Tensor]
    states: dict[str, list[Tensor]] | None = None
    step: int | Tensor = 0


def foreach_kernels_supported_devices() -> list[str]:
    """What the real one puts in the place of torch.optim's function of this name: no first-generation card is there."""
    name = npu.get_device_name()
    is_newer = "Ascend910B" < name < "Ascend910PremiumA" or name > "Ascend910_9"
    return ["cuda", "xpu", *["npu"] * is_newer]


class NpuFusedAdam(torch.optim.Optimizer):
    """Adam over flat tensors, bit for bit ``torch.optim.Adam(fused=True)`` on the CPU.

    The contract of the real one:

    - Parameters must be on an NPU, contiguous, float32 or float16.
    - Parameters and gradients are combined at the first ``step``, ``clip_grad_norm_fused_`` or ``zero_grad`` that
      finds gradients. A parameter that has none then is never updated. A gradient that is replaced afterwards is not
      seen: the memory of the first one is used, stale.
    - ``zero_grad`` zeroes in place and cannot set to None.
    - The state is combined at the first step: a state loaded after it has no effect. Steps are counted in place, the
      first parameter's once for itself and once for all: as a tensor it grows by 2.
    - Whole storages of gradients are combined: none may be a view of a larger one.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
    ):
        if lr < 0 or eps < 0 or weight_decay < 0 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"Invalid lr {lr}, betas {betas}, eps {eps} or weight_decay {weight_decay}")
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad))
        self._combined: list[list[_Combined]] | None = None
        "Of each group."
        for param in self._all_params():
            _check(param)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._combine()
        for group, combined in zip(self.param_groups, self._combined or []):
            for one in combined:
                self._combine_states(one, group["amsgrad"])
                one.step += 1
                for param in one.params:
                    self.state[param]["step"] += 1
                beta1, beta2 = group["betas"]
                # Over the device's memory: torch_npu has no kernel for the operator of this name.
                _C.count_or_refuse("npu_apply_adam")
                torch._fused_adam_(
                    *(
                        [_C.host_view(view) for view in views]
                        for views in (
                            one.param_views, one.grad_views, one.states["exp_avg"], one.states["exp_avg_sq"],
                            one.states.get("max_exp_avg_sq", []),
                        )
                    ),
                    [torch.tensor(float(one.step))] * len(one.params),
                    lr=group["lr"], beta1=beta1, beta2=beta2, weight_decay=group["weight_decay"], eps=group["eps"],
                    amsgrad=group["amsgrad"], maximize=False,
                )  # fmt: skip
        return loss

    @torch.no_grad()
    def zero_grad(self, set_to_none: bool = False) -> None:
        if set_to_none:
            raise ValueError("set_to_none is not supported in fused optimizers")
        self._combine()
        for combined in self._combined or []:
            for one in combined:
                one.grads.zero_()

    @torch.no_grad()
    def clip_grad_norm_fused_(self, max_norm: float, norm_type: float = 2) -> Tensor:
        """Scale all gradients so that their common norm is at most ``max_norm``; returns the norm before."""
        self._combine()
        flat = [one.grads for combined in self._combined or [] for one in combined]
        if not flat:
            return torch.tensor(0.0)
        norms = torch.stack([torch.linalg.vector_norm(grads.float(), norm_type) for grads in flat])
        norm = torch.linalg.vector_norm(norms, norm_type)
        scale = max_norm / (norm + 1e-6)
        if scale < 1:
            for grads in flat:
                grads.mul_(scale)
        return norm

    def _all_params(self) -> list[Tensor]:
        return [param for group in self.param_groups for param in group["params"]]

    def _combine(self) -> None:
        """Move the parameters and gradients into flat tensors, once there are gradients."""
        if self._combined is not None or all(param.grad is None for param in self._all_params()):
            return
        self._combined = []
        for group in self.param_groups:
            with_grad = [param for param in group["params"] if param.grad is not None]
            by_dtype = [[param for param in with_grad if param.dtype == dtype] for dtype in DTYPES]
            self._combined.append([_combine_params(params) for params in by_dtype if params])

    def _combine_states(self, one: _Combined, amsgrad: bool) -> None:
        """Move the state into flat tensors, at the first step."""
        if one.states is not None:
            return
        one.states = {}
        for param in one.params:
            self.state[param].setdefault("step", 0)
        one.step = self.state[one.params[0]]["step"]  # a tensor is the same object from here on
        for name in ("exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if amsgrad else [])):
            tensors = [self.state[param].get(name, torch.zeros_like(param)) for param in one.params]
            one.states[name] = _flatten(tensors)[1]
            for param, view in zip(one.params, one.states[name]):
                self.state[param][name] = view


def _check(param: Tensor) -> None:
    if param.device.type != "npu":
        raise RuntimeError(f"NpuFusedAdam: parameters must be on an npu, one is on {param.device}")
    if not param.is_contiguous():
        raise RuntimeError(f"NpuFusedAdam: parameters must be contiguous, one of shape {tuple(param.shape)} is not")
    if param.dtype not in DTYPES:
        raise TypeError(f"Fused optimizer's parameters must be either float32 or float16, but received {param.dtype}")


def _combine_params(params: list[Tensor]) -> _Combined:
    for param in params:
        if param.grad.is_sparse:
            raise RuntimeError("NpuFusedAdam does not support sparse gradients")
        if not param.grad.is_contiguous():
            raise RuntimeError("NpuFusedAdam: gradients must be contiguous")
        storage = param.grad.untyped_storage().nbytes()
        if storage != param.grad.nbytes:
            raise RuntimeError(f"The size of tensor a ({storage} bytes) must match that of b ({param.grad.nbytes})")
    param_views = _flatten(params)[1]
    grads, grad_views = _flatten([param.grad for param in params])
    for param, param_view, grad_view in zip(params, param_views, grad_views):
        # The objects stay, their memory becomes part of the flat tensor.
        param.data = param_view
        param.grad.data = grad_view
    return _Combined(params, param_views, grads, grad_views)


def _flatten(tensors: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Copied into one flat tensor; the views into it have the tensors' shapes.

    Each begins where memory of its own could: elsewhere the CPU's kernels round differently.
    """
    sizes = [math.ceil(tensor.nbytes / ALIGNMENT) * ALIGNMENT // tensor.element_size() for tensor in tensors]
    flat = tensors[0].new_zeros(sum(sizes))
    views = [part[: tensor.numel()].view_as(tensor) for part, tensor in zip(flat.split(sizes), tensors)]
    for view, tensor in zip(views, tensors):
        view.copy_(tensor.detach())
    return flat, views
