"""The numbers that judge an alignment."""

import pytest
import torch

from tacotron2.alignment import STEPS_AT_THE_END, alignment_quality, end_of_text


def staircase(frames, symbols):
    """Each frame attends to the symbol whose turn it is."""
    alignment = torch.zeros(frames, symbols)
    turn = ((torch.arange(frames) + 0.5) / frames * symbols).long()
    alignment[torch.arange(frames), turn] = 1
    return alignment


@pytest.mark.parametrize(("frames", "symbols"), [(400, 70), (70, 70), (5, 1)])
def test_the_ideal(frames, symbols):
    quality = alignment_quality(staircase(frames, symbols))
    assert quality.diagonality == pytest.approx(1, abs=1e-5)
    assert quality.coverage == pytest.approx(1)


def test_attention_spread_over_neighbours_is_nearly_ideal():
    sharp = staircase(400, 70)
    soft = sum(torch.roll(sharp, shift, 1) for shift in (-1, 0, 1)) / 3
    assert alignment_quality(soft).diagonality > 0.95
    assert alignment_quality(soft).coverage > 0.99


@pytest.mark.parametrize("symbol", [0, 35, 69])
def test_stuck(symbol):
    alignment = torch.zeros(400, 70)
    alignment[:, symbol] = 1
    quality = alignment_quality(alignment)
    assert quality.diagonality < 0.3
    assert quality.coverage == pytest.approx(1 / 70)


def test_strewn():
    torch.manual_seed(0)
    quality = alignment_quality(torch.softmax(torch.randn(400, 70), dim=1))
    assert quality.diagonality < 0.05
    assert quality.coverage > 0.99


def test_backwards():
    assert alignment_quality(staircase(400, 70).flip(0)).diagonality == 0


def test_cut_off_in_the_middle():
    """The half that was never read counts as not covered."""
    quality = alignment_quality(torch.cat([staircase(200, 35), torch.zeros(200, 35)], dim=1))
    assert quality.coverage == pytest.approx(0.5)
    assert 0.2 < quality.diagonality < 0.5


def test_a_skipped_word():
    alignment = staircase(400, 70)
    alignment[:, 29] += alignment[:, 30:37].sum(1)
    alignment[:, 30:37] = 0
    quality = alignment_quality(alignment)
    assert quality.coverage == pytest.approx(0.9)
    assert 0.95 < quality.diagonality < 1


def test_it_is_the_formula():
    """Term by term: the distance of each step's point from each symbol's interval, the sum of a symbol's weights."""
    torch.manual_seed(0)
    for steps, symbols in ((7, 3), (3, 7), (4, 4)):
        alignment = torch.softmax(3 * torch.randn(steps, symbols), dim=1)
        distance, covered = 0.0, 0.0
        for s in range(steps):
            point = (s + 0.5) / steps
            for n in range(symbols):
                outside = max(n / symbols - point, point - (n + 1) / symbols, 0)
                distance += alignment[s, n].item() * outside / steps
        for n in range(symbols):
            covered += min(1, sum(alignment[s, n].item() for s in range(steps))) / symbols
        quality = alignment_quality(alignment)
        assert quality.diagonality == pytest.approx(max(0, 1 - 3 * distance), abs=1e-6)
        assert quality.coverage == pytest.approx(covered)


def test_both_stay_between_0_and_1():
    torch.manual_seed(0)
    for frames, symbols in ((1, 1), (1, 50), (50, 1), (3, 8)):
        for quality in alignment_quality(torch.softmax(5 * torch.randn(frames, symbols), dim=1)):
            assert 0 <= quality <= 1


def test_the_end_of_a_text_is_where_the_attention_stays_at_its_last_symbol():
    there = torch.nn.functional.one_hot
    spoken = there(torch.arange(60) // 6, 10)  # 6 steps for each symbol, the last ones for the last
    assert end_of_text(spoken) is None
    beyond = there(torch.full((STEPS_AT_THE_END,), 9), 10)
    assert end_of_text(torch.cat([spoken, beyond])) == 54 + STEPS_AT_THE_END
    assert end_of_text(torch.cat([spoken, beyond, spoken])) == 54 + STEPS_AT_THE_END
    # A glance at it is no end, nor are many.
    glances = torch.cat([beyond[1:], spoken[:1]])
    assert end_of_text(torch.cat([glances, glances])) is None
    assert end_of_text(beyond[1:]) is None
    assert end_of_text(beyond) == STEPS_AT_THE_END
