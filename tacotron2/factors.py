"""Matrix products with the same matrix at every step of a recurrence."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from common.products import can_pack, constant_linear, product_over_rows


class _AddConstantProduct(torch.autograd.Function):
    """``known + x @ factor`` by the product and the product with the transposed factor, neither with a gradient of
    its own."""

    @staticmethod
    def forward(
        ctx, known: Tensor, x: Tensor, product: Callable[[Tensor], Tensor], transposed: Callable[[Tensor], Tensor]
    ) -> Tensor:
        ctx.transposed = transposed
        return product(x).add_(known)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        return gradient, ctx.transposed(gradient), None, None


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
        self.add_product: Callable[[Tensor, Tensor], Tensor] | None = None

    def collect(self, known: Tensor) -> tuple[Tensor, ...]:
        """The known parts of all steps [T, ..., R, O], one by one, for use in training."""
        return _CollectGradient.apply(known, self.factor, self.inputs).unbind(0)

    def __call__(self, known: Tensor, x: Tensor) -> Tensor:
        """One step: known [..., R, O], x [..., R, K] -> [..., R, O]."""
        x = x.to(known.dtype)
        if torch.is_grad_enabled():
            self.inputs.append(x.detach())
        if self.add_product is None:
            # In this precision once; autocast would convert it at every step.
            self.add_product = _add_product_with(self.factor.detach().to(known.dtype))
        return self.add_product(known, x)


def _add_product_with(factor: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """``known, x -> known + x @ factor``, for many x with a gradient."""
    if factor.ndim > 2 or not can_pack(factor):
        return lambda known, x: known + x @ factor
    product, transposed = constant_linear(factor.t()), constant_linear(factor)
    return lambda known, x: _AddConstantProduct.apply(known, x, product, transposed)
