"""Matrix products with the same matrix at every step of a recurrence."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from common.products import product_over_rows


def constant_linear(weight: Tensor, bias: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """``x -> F.linear(x, weight, bias)`` for a weight [O, K] that stays as it is; x [R, K] without a gradient.

    A CPU gets the weight in oneDNN's own order once and for all. Otherwise it is put in that order, or
    read in an unfavourable one, at each product: at 16 rows that takes 1.5 times the time in bfloat16, 4
    times in float32 on AMD's processors.
    """
    weight, bias = weight.detach(), None if bias is None else bias.detach()
    if not _can_pack(weight):
        return lambda x: F.linear(x, weight, bias)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


def _can_pack(weight: Tensor) -> bool:
    """Whether oneDNN computes with such a weight here. What is exported has no use for its order."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available() or _is_compiling():
        return False
    if weight.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return weight.dtype == torch.float32


def _is_compiling() -> bool:
    return hasattr(torch.compiler, "is_compiling") and torch.compiler.is_compiling()  # not in torch 2.1


class _ConstantProduct(torch.autograd.Function):
    """``x @ factor`` by the product and the product with the transposed factor, neither with a gradient of its own."""

    @staticmethod
    def forward(ctx, x: Tensor, product: Callable[[Tensor], Tensor], transposed: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.transposed = transposed
        return product(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.transposed(gradient), None, None


class _CollectGradient(torch.autograd.Function):
    """The identity; in the backward pass it is where a factor's gradient is computed (``SharedFactor``)."""

    @staticmethod
    def forward(ctx, known: Tensor, factor: Tensor, inputs: list[Tensor]) -> Tensor:
        ctx.inputs, ctx.dtype = inputs, factor.dtype
        return known.view_as(known)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        if len(ctx.inputs) != len(gradient):
            raise RuntimeError("backward a second time, or not every step was run")
        # [T, ..., R, *] -> [..., T * R, *]
        x, y = (steps.movedim(0, -3).flatten(-3, -2) for steps in (torch.stack(ctx.inputs), gradient))
        ctx.inputs.clear()
        of_factor = product_over_rows(x, y) if x.ndim == 2 else x.transpose(-1, -2) @ y
        return gradient, of_factor.to(ctx.dtype), None


class SharedFactor:
    """``y_t = known_t + x_t @ factor`` with the same factor [..., K, O] at every step of a recurrence.

    Autograd alone would compute the factor's gradient at each step and add them up; for an LSTM's
    matrices that costs more than all the rest. Here the steps know the factor as a constant, and
    its gradient is one product over all steps: of the inputs, which are kept in a list, and the
    gradients that arrive at ``known`` [T, ..., R, O]. Can go backward once.
    """

    def __init__(self, factor: Tensor):
        self.factor = factor
        self.inputs: list[Tensor] = []
        self.multiply: Callable[[Tensor], Tensor] | None = None

    def collect(self, known: Tensor) -> tuple[Tensor, ...]:
        """The known parts of all steps [T, ..., R, O], one by one, for use in training."""
        return _CollectGradient.apply(known, self.factor, self.inputs).unbind(0)

    def __call__(self, known: Tensor, x: Tensor) -> Tensor:
        """One step: known [..., R, O], x [..., R, K] -> [..., R, O]."""
        x = x.to(known.dtype)
        if torch.is_grad_enabled():
            self.inputs.append(x.detach())
        if self.multiply is None:
            # In this precision once; autocast would convert it at every step.
            self.multiply = _multiply_by(self.factor.detach().to(known.dtype))
        return known + self.multiply(x)


def _multiply_by(factor: Tensor) -> Callable[[Tensor], Tensor]:
    """``x -> x @ factor``, for many x with a gradient."""
    if factor.ndim > 2 or not _can_pack(factor):
        return lambda x: x @ factor
    product, transposed = constant_linear(factor.t()), constant_linear(factor)
    return lambda x: _ConstantProduct.apply(x, product, transposed)
