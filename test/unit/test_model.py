"""WaveGlow computes what the public reference computes, and inverts."""

import pytest
import torch
from torch.nn import functional as F

from common.layers.conv import Conv1d, composed
from waveglow.loss import WaveGlowLoss
from waveglow.model import Invertible1x1Conv, WaveGlow


def relative_error(actual, expected):
    return ((actual - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture
def model(reference):
    model = WaveGlow(**reference["config"])
    model.load_state_dict(reference["state_dict"])
    return model


def toy(**changes):
    torch.manual_seed(0)
    config = dict(
        n_mel_channels=4, n_flows=4, n_group=8, n_early_every=2, n_early_size=2,
        WN_config=dict(n_layers=2, n_channels=8, kernel_size=3), hop_length=16, upsample_kernel=64,
    )  # fmt: skip
    model = WaveGlow(**(config | changes))
    for wn in model.WN:  # zeros at first, which would hide mistakes in the couplings
        torch.nn.init.normal_(wn.end.weight, std=0.05)
        torch.nn.init.normal_(wn.end.bias, std=0.05)
    return model


def test_outputs_equal_the_reference(model, reference):
    z, log_s, log_det = model(reference["mel"], reference["audio"])
    assert relative_error(z, reference["z"]) < 1e-5
    for actual, expected in zip(log_s, reference["log_s"], strict=True):
        assert relative_error(actual, expected) < 1e-5
    # |det| is 1 up to rounding here, so what stands in the reference is rounding, times B * L = 512.
    for actual, expected in zip(log_det, reference["log_det"], strict=True):
        assert abs(actual.item() - expected) < 1e-5 * 512


@pytest.mark.parametrize("sigma", [1.0, 0.7])
def test_loss_equals_the_reference(model, reference, sigma):
    loss = WaveGlowLoss(sigma)(model(reference["mel"], reference["audio"])).item()
    assert loss == pytest.approx(reference["loss"][sigma], rel=1e-5)


def test_gradients_equal_the_reference(model, reference):
    WaveGlowLoss(1.0)(model(reference["mel"], reference["audio"])).backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert gradients.keys() == reference["grads"].keys()
    for name, expected in reference["grads"].items():
        assert relative_error(gradients[name], expected) < 2e-5, name


def test_inference_equals_the_reference(model, reference):
    expected = reference["infer"]
    shapes = [tuple(noise.shape) for noise in expected["noise"]]
    assert model.noise_shapes(2, reference["mel"].shape[2]) == shapes
    audio = model.infer(reference["mel"], expected["sigma"], expected["noise"])
    assert relative_error(audio, expected["audio"]) < 1e-5


def test_training_curve_equals_the_reference(model, reference):
    training = reference["training"]
    optimizer = torch.optim.Adam(model.parameters(), lr=training["learning_rate"])
    for i, expected in enumerate(training["losses"]):
        loss = WaveGlowLoss()(model(*training["batches"][i % 4]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_fused_layers_give_the_same_audio(model, reference, monkeypatch):
    """And no kernel is inverted any more, nor a weight put together."""
    expected = reference["infer"]
    model.fuse()
    model.fuse()  # twice is once
    monkeypatch.setattr(torch.linalg, "inv", lambda matrix: pytest.fail("inverted again"))
    monkeypatch.setattr(torch, "_weight_norm", lambda *weight: pytest.fail("normalized again"))
    assert not any(name.endswith(("_g", "known_inverse")) for name in model.state_dict())
    audio = model.infer(reference["mel"], expected["sigma"], expected["noise"])
    assert relative_error(audio, expected["audio"]) < 1e-5


def noise_of(model, z):
    """z of ``forward`` in the order in which ``infer`` wants it."""
    exits = (model.n_group - model.n_remaining_channels) // model.n_early_size
    *early, remaining = z.split([model.n_early_size] * exits + [model.n_remaining_channels], dim=1)
    return [remaining, *reversed(early)]


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("early", [(2, 2), (3, 4), (9, 2)])
def test_inference_undoes_forward(negative, early):
    model = toy(n_early_every=early[0], n_early_size=early[1])
    if negative:
        for convinv in model.convinv:
            convinv.conv.weight.data[:, 0] *= -1
    mel, audio = torch.randn(2, 4, 12), torch.rand(2, 12 * 16) - 0.5
    z, _, log_det = model(mel, audio)
    assert all(torch.isfinite(d) for d in log_det)
    assert relative_error(model.infer(mel, 1.0, noise_of(model, z)), audio) < 1e-5


@pytest.mark.parametrize("negative", [False, True])
def test_convolution_undoes_itself(negative):
    layer = Invertible1x1Conv(6)
    with torch.no_grad():
        layer.conv.weight *= torch.tensor([-0.7 if negative else 0.7] + [1.0] * 5)[:, None, None]
    x = torch.randn(3, 6, 10)
    y, log_det = layer(x)
    assert relative_error(layer.inverse(y), x) < 1e-6
    assert log_det.item() == pytest.approx(3 * 10 * torch.tensor(0.7).log().item(), rel=3e-6)


@pytest.mark.parametrize("fused", [False, True])
def test_an_inverse_is_exact_to_the_last_bit_of_float32(fused):
    """Of a matrix with a condition of 1e4, where float32 would lose the last digits."""
    layer = Invertible1x1Conv(6)
    with torch.no_grad():
        layer.conv.weight[0] = layer.conv.weight[1] + 1e-4 * layer.conv.weight[0]
    exact = torch.linalg.inv(layer.conv.weight.detach()[..., 0].double())
    if fused:
        layer.fuse()
    assert relative_error(layer.inverse(torch.eye(6)[None])[0], exact.float()) < 1e-6


def test_log_determinant_is_that_of_the_jacobian():
    model = toy(n_group=4, n_flows=2, n_early_every=1, n_early_size=2, hop_length=8, upsample_kernel=16).double()
    for convinv in model.convinv:
        convinv.conv.weight.data *= 1.3
    mel = torch.randn(1, 4, 3, dtype=torch.double)
    audio = torch.rand(1, 24, dtype=torch.double)
    jacobian = torch.autograd.functional.jacobian(lambda x: model(mel, x)[0].flatten(), audio)[:, 0]
    _, log_s, log_det = model(mel, audio)
    ours = sum(s.sum() for s in log_s) + sum(log_det)
    assert ours.item() == pytest.approx(torch.linalg.slogdet(jacobian)[1].item(), rel=5e-6)


def test_a_composed_convolution_does_what_both_do():
    """At the edges, too, where the inner bias must not reach into the padding; and so do the gradients."""
    torch.manual_seed(0)
    inner, outer = Conv1d(3, 5), Conv1d(5, 7, 3, dilation=2, weight_norm=True)
    x = torch.randn(2, 3, 9, requires_grad=True)
    kernel = composed(outer.effective_weight(), inner.weight, inner.bias)
    assert kernel.shape == (7, 4, 3)
    at_once = outer.convolve(F.pad(x, (0, 0, 0, 1), value=1), kernel, outer.bias)
    in_turn = outer(inner(x))
    assert torch.allclose(at_once, in_turn, atol=1e-6)
    weight = torch.randn_like(in_turn)
    wanted = (x, *inner.parameters(), *outer.parameters())
    gradients = (torch.autograd.grad((y * weight).sum(), wanted) for y in (at_once, in_turn))
    for found, expected in zip(*gradients, strict=True):
        assert torch.allclose(found, expected, atol=1e-5)


def test_gradients_have_the_strides_of_the_parameters():
    """Else DDP copies them, and warns of it."""
    model = toy()
    z, log_s, log_det = model(torch.randn(2, 4, 12), torch.rand(2, 12 * 16) - 0.5)
    WaveGlowLoss()((z, log_s, log_det)).backward()
    assert all(p.grad.stride() == p.stride() for p in model.parameters())


def test_the_loss_survives_float16():
    """|logdet| of a clip is far beyond what float16 can sum."""
    z = torch.zeros(1, 8, 2000, dtype=torch.float16)
    log_s = torch.full((1, 4, 2000), 20.0, dtype=torch.float16)
    loss = WaveGlowLoss()((z, [log_s], [torch.tensor(0.0)]))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(-10.0)


def test_noise_that_is_not_given_is_drawn_with_unit_variance():
    model, mel = toy(), torch.randn(2, 4, 5)
    torch.manual_seed(0)
    noise = [torch.randn(shape) for shape in model.noise_shapes(2, 5)]
    torch.manual_seed(0)
    assert torch.equal(model.infer(mel, 0.5), model.infer(mel, 0.5, noise))


def test_context_is_all_a_place_depends_on():
    """A change of the mel reaches as far as context_frames, less the frame where it is, and no further."""
    model = toy().double()
    mel = torch.randn(1, 4, 80, dtype=torch.double)
    noise = [torch.randn(shape, dtype=torch.double) for shape in model.noise_shapes(1, 80)]
    changed = mel.clone()
    changed[:, :, 40] += 1
    difference = (model.infer(mel, 1.0, noise) - model.infer(changed, 1.0, noise)).abs().view(80, 16).amax(1)
    reached = difference.nonzero()[:, 0]
    assert 40 - model.context_frames <= reached.min() < 40
    assert reached.max() == 40 + model.context_frames - 1


@pytest.mark.parametrize("channels", [2, 4, 8])
def test_fresh_kernels_are_rotations(channels):
    """Orthogonal, and no mirror images: the determinant is 1, not -1, as in NVIDIA's."""
    for seed in range(8):
        torch.manual_seed(seed)
        kernel = Invertible1x1Conv(channels).conv.weight[..., 0]
        assert torch.allclose(kernel @ kernel.t(), torch.eye(channels), atol=1e-5)
        assert torch.det(kernel).item() == pytest.approx(1, abs=1e-5)
        assert kernel.is_contiguous()  # without which NpuFusedAdam takes no parameter


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(n_group=7), "must be even"),
        (dict(n_early_size=3), "must be even"),
        (dict(hop_length=60), "must be at least 67 with hop_length 60"),
        (dict(n_early_every=1, n_flows=9), "leaves flow 4 no channels"),
        (dict(upsample_kernel=8), "upsample_kernel 8 must be at least"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        toy(**changes)


def test_audio_longer_than_its_mel_is_refused():
    """The upsampling of 2 frames reaches over a hop and a kernel, 10 groups of samples."""
    mel, reaches = torch.randn(1, 4, 2), 16 + 64
    assert toy()(mel, torch.randn(1, reaches))[0].shape == (1, 8, 10)
    with pytest.raises(ValueError, match="covers 10 groups of samples, not 11"):
        toy()(mel, torch.randn(1, reaches + 8))


@pytest.mark.parametrize("every", [1, 2, 3, 5])
def test_channels_leave_in_front_of_each_so_manyth_flow_but_the_first(every):
    model = toy(n_group=12, n_early_every=every)
    remaining, *early = model.noise_shapes(3, 5)
    exits = len(range(every, 4, every))
    assert early == [(3, 2, model.groups(5))] * exits
    assert [convinv.conv.in_channels for convinv in model.convinv] == [12 - 2 * (k // every) for k in range(4)]
    assert remaining == (3, 12 - 2 * exits, model.groups(5))


def test_a_model_may_be_as_small_as_its_sizes_say():
    """Two channels left in the last flow, an upsampling kernel of one hop."""
    model = toy(n_early_every=1, n_flows=4, upsample_kernel=16)
    mel, audio = torch.randn(1, 4, 5), torch.rand(1, 5 * 16) - 0.5
    assert relative_error(model.infer(mel, 1.0, noise_of(model, model(mel, audio)[0])), audio) < 1e-5
