"""Tacotron2 with teacher forcing computes what the public reference computes."""

import pytest
import torch
from tacotron2_reference import OUTPUTS, inputs, reference, reference_model
from tacotron2_toys import encoded, toy, toy_batch
from torch import nn

from tacotron2.loss import Tacotron2Loss
from tacotron2.model import BiLSTM, padding_mask


def test_outputs_and_loss_equal_the_reference():
    expected = reference()["teacher_forced"]
    output = reference_model()(**inputs())
    for name, actual in zip(OUTPUTS, output, strict=True):
        assert (actual - expected[name]).abs().max() < 2e-5, name
    given = inputs()
    loss = Tacotron2Loss()(output, given["text_lengths"], given["mel"], given["mel_lengths"])
    assert loss.item() == pytest.approx(expected["loss"], abs=2e-5)


def test_the_state_dict_is_the_references():
    expected = reference()["state_dict"]
    state = reference_model().state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)


@pytest.mark.parametrize("mask_padding", [True, False])
def test_what_stands_behind_the_end(mask_padding):
    _, text_lengths, mel, mel_lengths = batch = toy_batch()
    mel_out, mel_postnet, gate, alignments = toy(mask_padding=mask_padding)(*batch)
    padding = padding_mask(mel_lengths, 25)
    for each in (mel_out, mel_postnet):
        assert each.shape == mel.shape
        assert (each.transpose(1, 2)[padding] == 0).all() == mask_padding
    assert (gate[padding] == 1000).all() == mask_padding
    assert alignments.shape == (4, 25, 12)
    assert torch.allclose(alignments.sum(2), torch.ones(4, 25), atol=1e-6)
    assert (alignments.transpose(1, 2)[padding_mask(text_lengths, 12)] == 0).all()


def test_frames_depend_on_earlier_ones_alone():
    mel, model = toy_batch()[2], toy(p_prenet_dropout=0.0)
    changed = mel.clone()
    changed[:, :, 7:] += 1
    before, after = (model.decoder(*encoded(model), frames) for frames in (mel, changed))
    for a, b in zip((before.mel.transpose(1, 2), *before[1:]), (after.mel.transpose(1, 2), *after[1:]), strict=True):
        difference = (a - b).abs().view(4, 25, -1).amax((0, 2))
        assert difference[:8].max() < 1e-6
        assert difference[8:].min() > 1e-4


def test_the_encoders_lstm_is_torchs_over_packed_sequences():
    torch.manual_seed(0)
    ours = BiLSTM(6, 4)
    torchs = nn.LSTM(6, 4, batch_first=True, bidirectional=True)
    torchs.load_state_dict(ours.state_dict())
    x, lengths = torch.randn(3, 8, 6), torch.tensor([5, 8, 2])
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(torchs(packed)[0], batch_first=True)
    padding = padding_mask(lengths, 8)
    actual = ours(x, padding)
    with torch.no_grad():  # what a card runs
        assert (ours.by_cudnn(x, padding) - expected).abs().max() < 1e-6
        assert ours.by_cudnn(x[[0, 2]], padding[[0, 2]]).shape == (2, 8, 8)  # the padding of all
    assert (actual - expected).abs().max() < 1e-6
    weights = torch.randn_like(expected)
    (actual * weights).sum().backward()
    (expected * weights).sum().backward()
    for (name, parameter), other in zip(ours.named_parameters(), torchs.parameters(), strict=True):
        assert (parameter.grad - other.grad).abs().max() < 1e-5, name


def test_the_prenets_dropout_is_on_in_evaluation_too():
    batch, model = toy_batch(), toy()
    torch.manual_seed(5)
    once = model(*batch)[0]
    assert not torch.equal(model(*batch)[0], once)
    torch.manual_seed(5)
    assert torch.equal(model(*batch)[0], once)
    model = toy(p_prenet_dropout=0.0)
    assert torch.equal(model(*batch)[0], model(*batch)[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(symbols_embedding_dim=8), "must be the same even number"),
        (dict(symbols_embedding_dim=15, encoder_embedding_dim=15), "must be the same even number"),
        (dict(postnet_n_convolutions=1), "postnet_n_convolutions is 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        toy(**changes)
