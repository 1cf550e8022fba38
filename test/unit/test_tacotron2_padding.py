"""What a batch of several lengths is judged by: of each clip its own part, as if it were alone."""

import pytest
import torch

from tacotron2.attention import LocationLayer
from tacotron2.loss import off_diagonal_attention

FRAMES, SYMBOLS = torch.tensor([9, 5, 2]), torch.tensor([4, 6, 1])


def alignments():
    """Of three clips, with weights behind their ends, too [3, T, N]."""
    torch.manual_seed(0)
    return torch.softmax(torch.randn(3, 9, 6), dim=2)


def alone(function):
    """The function's outcomes for each clip cut out of the batch."""
    cut = [each[None, :t, :n] for each, t, n in zip(alignments(), FRAMES, SYMBOLS, strict=True)]
    return [function(each, n[None], t[None]) for each, t, n in zip(cut, FRAMES, SYMBOLS, strict=True)]


def test_guided_attention_is_the_mean_over_what_is_no_padding():
    penalties, sizes = torch.stack(alone(off_diagonal_attention)), FRAMES * SYMBOLS
    expected = (penalties * sizes).sum() / sizes.sum()
    assert expected > 0.05
    found = off_diagonal_attention(alignments(), SYMBOLS, FRAMES)
    assert found.item() == pytest.approx(expected.item(), rel=5e-6)


def test_the_location_of_attention_is_that_of_the_clip_alone():
    """Bit for bit, however many clips there are and however long."""
    torch.manual_seed(0)
    layer = LocationLayer(32, 31, 128)
    weights = torch.softmax(3 * torch.randn(4, 2, 50), dim=2)
    weights[1, :, 30:] = 0
    with torch.no_grad():
        together = layer(weights, layer.kernel())
        assert torch.equal(layer(weights[:1], layer.kernel()), together[:1])
        assert torch.equal(layer(weights[1:2, :, :30], layer.kernel()), together[1:2, :, :30])
        plain = torch.nn.functional.conv1d(weights, layer.kernel(), padding=15)
    assert torch.allclose(together, plain, rtol=0, atol=2e-6)
