"""Each dropout of Tacotron2 is where NVIDIA's is, with its own share."""

import pytest
import torch
from tacotron2_toys import encoded, toy, toy_batch

from conftest import toy_tacotron2_config
from runs import make_run, weights
from tacotron2 import decoder, model, prenet

SHARES = {"p_prenet_dropout": 0.4, "p_attention_dropout": 0.3, "p_decoder_dropout": 0.2}
FRAMES, CLIPS = 25, 4
PRENET = [(0.4, (FRAMES, CLIPS, 12))] * 2


@pytest.fixture
def dropped(monkeypatch):
    """Shares and shapes of what is dropped out, in order."""
    calls = []

    def record(x, p, training=True):
        if training:
            calls.append((p, tuple(x.shape)))
        return x

    for module in (model, decoder, prenet):
        monkeypatch.setattr(module, "dropout", record)
    return calls


def test_training_drops_out_in_each_of_the_layers(dropped):
    toy(**SHARES).train()(*toy_batch())
    encoder, inner, outer = (0.5, (CLIPS, 16, 12)), (0.5, (CLIPS, 14, FRAMES)), (0.5, (CLIPS, 6, FRAMES))
    lstms = [(0.3, (FRAMES, CLIPS, 18)), (0.2, (FRAMES, CLIPS, 20))]
    assert dropped == [*[encoder] * 3, *PRENET, *lstms, *[inner] * 4, outer]


def test_evaluation_drops_out_in_the_prenet_alone(dropped):
    toy(**SHARES)(*toy_batch())
    assert dropped == PRENET


@torch.no_grad()
def test_dropout_of_one_lstm_is_none_of_the_others():
    """The attention works from its own LSTM's hidden state; that of the decoder goes into the frames alone."""
    mel = toy_batch()[2]
    outcomes = {}
    for name in ("p_attention_dropout", "p_decoder_dropout", "none"):
        network = toy(**dict.fromkeys(SHARES, 0.0) | ({name: 0.5} if name in SHARES else {}))
        values = encoded(network)
        network.decoder.train()
        outcomes[name] = network.decoder(*values, mel)
    plain = outcomes["none"]
    assert torch.equal(outcomes["p_decoder_dropout"].alignments, plain.alignments)
    assert not torch.equal(outcomes["p_decoder_dropout"].mel, plain.mel)
    assert not torch.equal(outcomes["p_attention_dropout"].alignments[:, 0], plain.alignments[:, 0])


@torch.no_grad()
def test_frame_dropout_hides_whole_steps_from_the_prenet(monkeypatch):
    """In training a share of the steps, each with all of its frames; in evaluation none."""
    seen = []
    network = toy(**SHARES, p_frame_dropout=0.5)
    forward = lambda frames, *_: seen.append(frames) or torch.zeros(25, 4, 12)  # noqa: E731
    monkeypatch.setattr(network.decoder.prenet, "forward", forward)
    values = encoded(network)
    mel = toy_batch()[2]
    network.decoder(*values, mel)
    network.decoder.train()
    torch.manual_seed(0)
    network.decoder(*values, mel)
    whole, partly = seen
    hidden = (partly == decoder.MEAN_LOG_MEL).all(-1)
    assert 0.3 < hidden.float().mean() < 0.7
    assert torch.equal(partly[~hidden], whole[~hidden])
    assert not (whole == decoder.MEAN_LOG_MEL).any()


def test_each_process_draws_its_own_masks(tmp_path, monkeypatch):
    """All begin with the same weights."""
    monkeypatch.setenv("WORLD_SIZE", "3")
    begun, drawn = [], []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        begun.append(weights(make_run(toy_tacotron2_config(), tmp_path)))
        drawn.append(torch.rand(()).item())
    assert torch.equal(begun[0], begun[1]) and torch.equal(begun[0], begun[2])
    assert len(set(drawn)) == 3


@pytest.mark.parametrize("steps", [(), (3,)])
def test_the_prenet_computes_by_the_layers_and_masks_that_it_is_given(steps):
    net, frames = prenet.Prenet(4, 3, 0.5), torch.randn(*steps, 2, 4)
    masks = torch.tensor([2.0, 0.0, 2.0]) * torch.ones(2, *steps, 2, 3)
    masks[1] *= torch.tensor([1.0, 1.0, 0.5])
    layers = [lambda x: x[..., 1:] - 0.1, lambda x: 3 * x - 0.5]
    first = (frames[..., 1:] - 0.1).clamp(min=0) * masks[0]
    assert torch.equal(net(frames, masks, layers), (3 * first - 0.5).clamp(min=0) * masks[1])
    first = (frames @ net.layers[0].linear_layer.weight.t()).clamp(min=0) * masks[0]
    own = (first @ net.layers[1].linear_layer.weight.t()).clamp(min=0) * masks[1]
    assert torch.allclose(net(frames, masks), own)
