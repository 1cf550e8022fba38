"""The loss: what padding counts, and guided attention."""

import pytest
import torch
from tacotron2_toys import toy, toy_batch
from torch.nn import functional as F

from tacotron2.loss import Tacotron2Loss, off_diagonal_attention
from tacotron2.model import padding_mask

T, N = 24, 12


def one(frames=T, symbols=N):
    """Lengths of a batch of one clip: text_lengths, mel_lengths."""
    return torch.tensor([symbols]), torch.tensor([frames])


def diagonal(frames=T, symbols=N):
    """An alignment [1, T, N] whose frames attend to where n / N = t / T."""
    return F.one_hot(torch.arange(frames) * symbols // frames, symbols).float()[None]


def test_it_is_the_two_errors_and_the_gates_cross_entropy():
    torch.manual_seed(0)
    mel, predicted, refined = torch.randn(3, 2, 4, 6)
    gate, lengths = torch.randn(2, 6), torch.tensor([6, 6])
    targets = torch.tensor([0.0, 0, 0, 0, 0, 1]).expand(2, -1)
    p = torch.sigmoid(gate)
    cross_entropy = -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()
    expected = (predicted - mel).square().mean() + (refined - mel).square().mean() + cross_entropy
    actual = Tacotron2Loss()((predicted, refined, gate, None), lengths, mel, lengths)
    assert actual.item() == pytest.approx(expected.item(), rel=5e-6)


def test_padding_adds_nothing_and_has_no_gradient():
    text, text_lengths, mel, mel_lengths = toy_batch()
    output = [each.detach().requires_grad_() for each in toy(mask_padding=False)(text, text_lengths, mel, mel_lengths)]
    padding = padding_mask(mel_lengths, mel.shape[2])
    frames = padding[:, None]
    masked = [*(each.masked_fill(frames, 0) for each in output[:2]), output[2].masked_fill(padding, 1e3), output[3]]
    loss = Tacotron2Loss()(masked, text_lengths, mel, mel_lengths)
    # The sum over what is no padding, divided by the size of the whole batch, as in NVIDIA's.
    inside = ~padding
    squares = sum((each - mel).square().transpose(1, 2)[inside].sum() for each in output[:2]) / mel.numel()
    is_over = padding_mask(mel_lengths - 1, mel.shape[2]).float()
    gate = F.binary_cross_entropy_with_logits(output[2], is_over, reduction="none")[inside].sum() / padding.numel()
    assert loss.item() == pytest.approx((squares + gate).item(), rel=5e-6)
    loss.backward()
    for each in output[:2]:
        assert (each.grad.transpose(1, 2)[padding] == 0).all()
        assert (each.grad.transpose(1, 2)[inside] != 0).all()
    assert (output[2].grad[padding] == 0).all()


@torch.no_grad()
def test_frames_far_behind_the_end_do_not_matter():
    """Nearer ones reach into the clip's last frames through the postnet, as in NVIDIA's."""
    text, text_lengths, mel, mel_lengths = toy_batch()
    model = toy(p_prenet_dropout=0.0)
    far = padding_mask(mel_lengths + 10, 25)[:, None]
    noisy = torch.where(far, torch.randn_like(mel), mel)
    assert not torch.equal(noisy, mel)
    losses = [
        Tacotron2Loss()(model(text, text_lengths, given, mel_lengths), text_lengths, mel, mel_lengths).item()
        for given in (mel, noisy)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_guided_attention_is_zero_on_the_diagonal():
    assert off_diagonal_attention(diagonal(N, N), *one(N, N)).item() == 0


def test_guided_attention_is_that_of_the_paper():
    torch.manual_seed(0)
    alignment = torch.softmax(torch.randn(1, 5, 3), dim=2)
    expected = 0.0
    for t in range(5):
        for n in range(3):
            expected += alignment[0, t, n].item() * (1 - torch.tensor(-((n / 3 - t / 5) ** 2) / 0.08).exp().item()) / 15
    assert off_diagonal_attention(alignment, *one(5, 3)).item() == pytest.approx(expected, rel=5e-6)


def test_guided_attention_grows_away_from_the_diagonal():
    near, strewn, far = diagonal().roll(1, 2), torch.full((1, T, N), 1 / N), diagonal().flip(1)
    penalties = [off_diagonal_attention(each, *one()).item() for each in (diagonal(), near, strewn, far)]
    assert penalties == sorted(penalties)


def test_guided_attention_leaves_padding_out():
    clips = torch.zeros(2, T + 8, N + 5)
    clips[0] = 1  # as long as the batch
    clips[1, :T, :N] = diagonal().flip(1)[0]
    noisy = clips.clone()
    noisy[1, T:] = noisy[1, :, N:] = 7
    lengths = (torch.tensor([N + 5, N]), torch.tensor([T + 8, T]))
    assert off_diagonal_attention(noisy, *lengths) == off_diagonal_attention(clips, *lengths)


def test_its_weight():
    text, text_lengths, mel, mel_lengths = toy_batch()
    output = toy()(text, text_lengths, mel, mel_lengths)
    plain, guided = (Tacotron2Loss(weight)(output, text_lengths, mel, mel_lengths).item() for weight in (0, 3))
    penalty = off_diagonal_attention(output[3], text_lengths, mel_lengths).item()
    assert penalty > 1e-3
    assert guided - plain == pytest.approx(3 * penalty, rel=1e-4)
