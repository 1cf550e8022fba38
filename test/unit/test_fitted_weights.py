"""Weights of a file brought into a model: completed, given weight norm, or refused with a table."""

import pytest
import torch
from torch import nn

from common.checkpoints.interchange import fitted
from common.program import UserError


def normed() -> nn.Module:
    """Two convolutions with weight norm in the notation of the checkpoints, and batch norm."""
    model = nn.Module()
    for name, outputs in (("a", 3), ("b", 2)):
        layer = nn.Module()
        layer.weight_g, layer.weight_v = (
            nn.Parameter(torch.zeros(outputs, 1, 1)),
            nn.Parameter(torch.zeros(outputs, 2, 5)),
        )
        setattr(model, name, layer)
    model.norm = nn.BatchNorm1d(2)
    return model


def weights_of(model) -> dict:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(tensor.shape, generator=generator) + 1 if tensor.is_floating_point() else torch.tensor(7)
        for name, tensor in model.state_dict().items()
    }


def test_weights_that_fit_are_given_as_they_are():
    model = normed()
    weights = weights_of(model)
    given = dict(weights)
    found = fitted("x", weights, model)
    assert found.keys() == weights.keys() and all(found[name] is weights[name] for name in weights)
    assert weights == given  # not changed in place


def test_each_layer_may_have_either_notation():
    model = normed()
    weights = weights_of(model)
    weight = weights["a.weight_v"] * 2
    mixed = {name: tensor for name, tensor in weights.items() if not name.startswith("a.")} | {"a.weight": weight}
    found = fitted("x", mixed, model)
    assert found.keys() == weights.keys() and found["a.weight_v"] is weight
    for channel in range(3):
        assert found["a.weight_g"][channel].item() == pytest.approx(weight[channel].square().sum().sqrt().item())
    assert found["a.weight_g"].shape == (3, 1, 1) and found["b.weight_g"] is weights["b.weight_g"]
    assert "a.weight" in mixed
    model.load_state_dict(found)


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4])
def test_a_fused_weight_becomes_one_with_weight_norm(dimensions):
    """Only a convolution's does: its g is the norm of each output channel."""
    model = nn.Module()
    shape = [3, 2, 5, 4][:dimensions]
    weight = torch.randn(shape)
    g_shape = [3] + [1] * (dimensions - 1)
    for name, size in (("weight_g", g_shape), ("weight_v", shape)):
        model.register_parameter(name, nn.Parameter(torch.zeros(size)))
    if dimensions != 3:
        with pytest.raises(UserError, match="3 weights differ"):
            fitted("a.pt", {"weight": weight}, model)
        return
    found = fitted("a.pt", {"weight": weight}, model)
    again = found["weight_v"] * found["weight_g"] / found["weight_v"].flatten(1).norm(dim=1)[:, None, None]
    assert found.keys() == {"weight_g", "weight_v"} and torch.allclose(again, weight)


def test_a_model_without_memory_tells_the_shapes_as_well():
    """What old files lack is made on the CPU all the same."""
    weights = weights_of(normed())
    del weights["norm.num_batches_tracked"]
    with torch.device("meta"):
        model = normed()
    found = fitted("x", weights, model)
    assert found.keys() == model.state_dict().keys()
    assert found["norm.num_batches_tracked"].device.type == "cpu" and found["norm.num_batches_tracked"].item() == 0
    assert found["norm.num_batches_tracked"].dtype == torch.int64


@pytest.mark.parametrize("weights", [None, [], 5, {"a": 1}, {"a": torch.zeros(1), "b": None}])
def test_what_are_no_weights_is_refused(weights):
    with pytest.raises(UserError, match=r"^x holds something other than tensors among its weights$"):
        fitted("x", weights, normed())


def test_every_kind_of_difference_has_its_rows_in_an_order():
    model = normed()
    weights = weights_of(model)
    del weights["a.weight_g"], weights["norm.bias"]
    weights["b.weight_v"] = torch.zeros(2, 5, 2)
    weights["b.weight_g"] = torch.ones(2, 1, 1, dtype=torch.int64)
    weights["norm.num_batches_tracked"] = torch.tensor(7.0)
    weights["more"], weights["x" * 101] = torch.zeros(1, 2), torch.zeros(1)
    with pytest.raises(UserError) as error:
        fitted("x", weights, model)
    assert str(error.value).splitlines() == [
        "x does not fit the model, 7 weights differ:",
        "  missing: a.weight_g [3, 1, 1]",
        "  missing: norm.bias [2]",
        "  unexpected: more [1, 2]",
        f"  unexpected: {'x' * 100} [1]",
        "  shape: b.weight_v [2, 5, 2], the model's is [2, 2, 5]",
        "  dtype: b.weight_g torch.int64, the model's is torch.float32",
        "  dtype: norm.num_batches_tracked torch.float32, the model's is torch.int64",
    ]


@pytest.mark.parametrize(("number", "more"), [(8, []), (9, ["  ... and 1 more"])])
def test_the_table_has_eight_rows_and_counts_the_others(number, more):
    model = nn.ParameterList(nn.Parameter(torch.zeros(i + 1)) for i in range(number))
    with pytest.raises(UserError) as error:
        fitted("a.pt", {}, model)
    rows = [f"  missing: {i} [{i + 1}]" for i in range(8)]
    assert str(error.value).splitlines() == [f"a.pt does not fit the model, {number} weights differ:", *rows, *more]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused_by_the_first_weight_and_the_number_of_others(value):
    model = normed()
    weights = weights_of(model)
    weights["b.weight_v"][1, 1, 4] = value
    weights["norm.running_var"][0] = value
    with pytest.raises(UserError, match=r"^x holds numbers that are not finite: in b\.weight_v and 1 other weights$"):
        fitted("x", weights, model)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_weights_that_are_no_numbers_are_counted(number):
    model = nn.ParameterList(nn.Parameter(torch.zeros(1)) for _ in range(4))
    weights = {str(i): torch.full((1,), float("inf") if i < number else 0.0) for i in range(4)}
    with pytest.raises(UserError, match=f"not finite: in 0 and {number - 1} other weights"):
        fitted("a.pt", weights, model)
