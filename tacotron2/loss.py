"""The training objective of Tacotron 2."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tacotron2.decoder import steps_of
from tacotron2.model import padding_mask

GUIDE_WIDTH = 0.2
"How far attention may stray from the diagonal (g in the paper), text and speech scaled to 0..1."


class Tacotron2Loss(nn.Module):
    """Squared error of both mels plus cross entropy of the gate (Shen et al. 2018), each a mean.

    As in NVIDIA's, the mean is over the batch with its padding, where the model's mask_padding
    makes the error zero: it counts for nothing in the sum and makes the mean smaller.

    Args:
        guided_attention: weight of the penalty for attention off the diagonal (Tachibana et al.
            2017, arXiv:1710.08969); 0 = none.
        n_frames_per_step: the model's.
    """

    def __init__(self, guided_attention: float = 0.0, n_frames_per_step: int = 1):
        super().__init__()
        self.guided_attention = guided_attention
        self.n_frames_per_step = n_frames_per_step

    def forward(
        self, output: tuple[Tensor, Tensor, Tensor, Tensor], text_lengths: Tensor, mel: Tensor, mel_lengths: Tensor
    ) -> Tensor:
        """The output of ``Tacotron2.forward`` and three of its inputs, text_lengths [B], mel [B, n_mel, T],
        mel_lengths [B] -> float32 scalar."""
        predicted, refined, gate, alignments = output
        steps = steps_of(mel_lengths, self.n_frames_per_step)
        # The gate is to be open from the step with the last frame on.
        is_over = padding_mask(steps - 1, gate.shape[1]).float()
        loss = F.mse_loss(predicted.float(), mel.float()) + F.mse_loss(refined.float(), mel.float())
        loss = loss + F.binary_cross_entropy_with_logits(gate.float(), is_over)
        if self.guided_attention:
            loss = loss + self.guided_attention * off_diagonal_attention(alignments, text_lengths, steps)
        return loss


def off_diagonal_attention(alignments: Tensor, text_lengths: Tensor, step_counts: Tensor) -> Tensor:
    """Mean of the attention [B, S, N] by how far off the diagonal it is, padding left out -> scalar.

    The weight of step s of a clip's S (``step_counts`` [B]) and symbol n is 1 - exp(-(n / N - s / S)^2 / (2 g^2)): 0
    on the diagonal.
    """
    _, steps, symbols = alignments.shape
    step = torch.arange(steps, device=alignments.device) / step_counts[:, None]
    symbol = torch.arange(symbols, device=alignments.device) / text_lengths[:, None]
    penalty = 1 - torch.exp(-((symbol[:, None] - step[:, :, None]) ** 2) / (2 * GUIDE_WIDTH**2))
    inside = ~(padding_mask(step_counts, steps)[:, :, None] | padding_mask(text_lengths, symbols)[:, None])
    return (alignments.float() * penalty * inside).sum() / inside.sum()
