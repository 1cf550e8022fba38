"""The negative log-likelihood that WaveGlow is trained on."""

import torch
from torch import Tensor, nn


class WaveGlowLoss(nn.Module):
    """Negative log-likelihood per sample, up to a constant (WaveGlow, arXiv:1811.00002, eq. 3).

    ``sigma`` is the standard deviation assumed of z. Everything is summed in float32 whatever the
    model's precision: a clip's summed log-determinant overflows float16.
    """

    def __init__(self, sigma: float = 1.0):
        super().__init__()
        self.sigma = sigma

    def forward(self, output: tuple[Tensor, list[Tensor], list[Tensor]]) -> Tensor:
        """The z [B, n_group, L] of ``WaveGlow.forward``, log_s [B, c, L] and scalar log_det of each flow -> scalar."""
        z, log_s_list, log_det_list = output
        prior = z.float().square().sum() / (2 * self.sigma**2)
        log_s = sum(torch.sum(log_s, dtype=torch.float32) for log_s in log_s_list)
        return (prior - log_s - sum(log_det_list)) / z.numel()
