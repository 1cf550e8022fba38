"""Names of weights: whatever a checkpoint calls them, they are NVIDIA's; weights of old releases are joined."""

import pytest
import torch

from common.checkpoints.interchange import read
from common.checkpoints.nvidia_names import nvidia_name, nvidia_weights
from common.program import UserError


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("WN.0.start.weight_g", "WN.0.start.weight_g"),
        ("module.1._orig_mod.WN.0.start.parametrizations.weight.original0", "WN.0.start.weight_g"),
        ("WN.0.start.parametrizations.weight.original1", "WN.0.start.weight_v"),
        ("generator.upsample.bias", "upsample.bias"),
        ("a.b.convinv.0.conv.weight", "convinv.0.conv.weight"),
        ("x.embedding.weight", "embedding.weight"),
        ("x.encoder.lstm.bias", "encoder.lstm.bias"),
        ("x.postnet.0.bias", "postnet.0.bias"),
        ("x.decoder.prenet.encoder.bias", "decoder.prenet.encoder.bias"),  # the first of them begins
        ("WN._orig_mod.0.module.start.bias", "WN.0.start.bias"),
        ("something.else", "something.else"),
        ("module.something", "something"),
        (7, "7"),
    ],
)
def test_a_weight_has_nvidias_name(name, found):
    assert nvidia_name(name) == found


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool])
def test_weights_are_float32_in_memory_of_their_own(dtype):
    whole = torch.arange(12).to(dtype).view(3, 4)
    (found,) = nvidia_weights("a", {"module.WN.0.a": whole.t()}).values()
    assert found.dtype == (torch.float32 if dtype.is_floating_point else dtype)
    assert torch.equal(found, whole.t().to(found.dtype)) and found.is_contiguous()
    assert found.untyped_storage().data_ptr() != whole.untyped_storage().data_ptr()
    exact = torch.ones(2)
    (found,) = nvidia_weights("a", {"WN.0.a": exact}).values()
    exact += 1
    assert found.tolist() == [1, 1]


@pytest.mark.parametrize("suffix", ["weight_g", "weight_v", "weight", "bias"])
def test_layers_of_old_releases_are_joined_by_their_numbers(suffix):
    def numbered(part, count):
        return {f"WN.3.{part}_layers.{i}.{suffix}": torch.full((2, 1), 10.0 * i + len(part)) for i in range(count)}

    old = numbered("cond", 11) | numbered("res", 10) | numbered("skip", 11)
    found = nvidia_weights("a", dict(reversed(old.items())) | {"WN.3.end.bias": torch.zeros(1)})
    joined = {"WN.3.cond_layer." + suffix, "WN.3.end.bias", *(f"WN.3.res_skip_layers.{i}.{suffix}" for i in range(11))}
    assert found.keys() == joined
    assert found[f"WN.3.cond_layer.{suffix}"][::2, 0].tolist() == [10.0 * i + 4 for i in range(11)]
    for i in range(11):
        res, skip = [10.0 * i + 3] * 2, [10.0 * i + 4] * 2
        assert found[f"WN.3.res_skip_layers.{i}.{suffix}"][:, 0].tolist() == (res + skip if i < 10 else skip)


def test_layers_that_do_not_fit_together_are_refused():
    parts = {"WN.0.cond_layers.0.weight": torch.zeros(2, 3), "WN.0.cond_layers.1.weight": torch.zeros(2, 4)}
    with pytest.raises(UserError, match=r"^a: the cond_layers, res_layers and skip_layers do not fit together$"):
        nvidia_weights("a", parts)
    with pytest.raises(UserError, match=r"^a holds WN\.0\.x more than once, the second time as b\.WN\.0\.x$"):
        nvidia_weights("a", {"a.WN.0.x": torch.zeros(1), "b.WN.0.x": torch.zeros(1)})


def test_a_file_of_another_model_is_named_by_what_it_is(tmp_path):
    for name, kind in (("WN.0.a", "WaveGlow"), ("convinv.0.a", "WaveGlow"), ("decoder.attention_rnn.a", "Tacotron2")):
        torch.save({"m": {f"module.{name}": torch.zeros(1)}}, tmp_path / "a")
        with pytest.raises(UserError, match=f"a is not a complete {kind}: .* is missing"):
            read(tmp_path / "a")
        other = {"WaveGlow": "tacotron2", "Tacotron2": "waveglow"}[kind]
        with pytest.raises(UserError, match=f"a is a checkpoint of {kind}, and one of .* is needed here"):
            read(tmp_path / "a", other)


@pytest.mark.parametrize(("number", "is_taken"), [(8, True), (9, False)])
def test_names_of_one_tensor_are_limited(number, is_taken):
    """To four times the tensors' memory and 4 MB: of 1 MB there may be eight."""
    tensor = torch.zeros(2**18)
    tensors = {f"WN.{i}.start.bias": tensor for i in range(number)}
    if is_taken:
        weights = nvidia_weights("a.pt", tensors)
        assert weights.keys() == tensors.keys()
        assert len({weight.data_ptr() for weight in weights.values()}) == number
    else:
        with pytest.raises(UserError, match="so many names for one tensor"):
            nvidia_weights("a.pt", tensors)


@pytest.mark.parametrize("shape", [(3, 2, 5, 1), (3, 2, 1, 5), (3, 2, 1, 1)])
def test_the_ascend_ports_convolutions_lose_the_axis_that_they_gained(shape):
    weight = torch.randn(shape)
    (found,) = nvidia_weights("a.pt", {"WN.0.start.weight": weight}).values()
    assert torch.equal(found, weight.reshape(3, 2, -1)) and found.shape[2] == max(shape[2:])
