"""The state of Adam in a checkpoint: it belongs to its weights by their order, or it is refused."""

import pytest
import torch

from common.checkpoints.interchange import load_adam, steps_of_adam
from common.program import UserError
from common.training.run import checked_adam

LEARNED = {"WN.0.start.bias": (3,), "WN.0.start.weight": (3, 2, 1), "convinv.0.conv.weight": (2, 2, 1)}
FIXED = {"upsample.weight": (2, 2, 4), "upsample.bias": (2,)}
COUNTED = {"bn.running_mean": (2,), "bn.running_var": (2,)}


def weights_of(shapes):
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def state_of(shapes, step=5):
    """By the numbers that an optimizer gives; the averages are told from one another by their values."""
    return {
        number: {"step": step + number, "exp_avg": torch.full(shape, 1.0 + number),
                 "exp_avg_sq": torch.full(shape, 101.0 + number), "more": None}
        for number, shape in enumerate(shapes.values())
    }  # fmt: skip


def saved(path, shapes, learned, **changes):
    optimizer = {"state": state_of(learned), "param_groups": [{"params": list(range(len(learned))), "lr": 1.0}]}
    torch.save({"model": weights_of(shapes), "optimizer": optimizer | changes}, path)
    return path


def assert_are_of(moments, numbers):
    """By the names of the weights, those of the optimizer's parameter with the number."""
    for first, averages in zip((1, 101), moments, strict=True):
        values = {name: tensor.unique().item() for name, tensor in averages.items()}
        assert values == {name: first + number for name, number in numbers.items()}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("fixed_is_in", [False, True])
def test_it_is_read_by_the_order_of_the_weights(tmp_path, prefix, fixed_is_in):
    """Not of the buffers among them; a fixed upsampling may be among an optimizer's parameters or not."""
    shapes = {f"{prefix}{name}": shape for name, shape in (FIXED | LEARNED | COUNTED).items()}
    learned = FIXED | LEARNED if fixed_is_in else LEARNED
    steps, *moments = load_adam(saved(tmp_path / "a", shapes, learned))
    assert steps == 5.0 and type(steps) is float
    assert_are_of(moments, {name: number for number, name in enumerate(learned)})


def test_several_groups_are_one_after_the_other(tmp_path):
    """Each names its parameters by their numbers in the state; the steps are those of the first one."""
    first, second, third = LEARNED
    groups = [{"params": [2]}, {"params": [0, 1]}]
    shapes = {name: LEARNED[name] for name in (third, first, second)}
    steps, *moments = load_adam(saved(tmp_path / "a", shapes, LEARNED, param_groups=groups))
    assert steps == 7.0
    assert_are_of(moments, {third: 2, first: 0, second: 1})


def test_the_weights_of_a_pickled_module_are_in_the_order_of_its_layers(tmp_path):
    """Layer by layer, each one's own before those of the layers in it."""
    layers = torch.nn.ModuleDict({"b": torch.nn.Linear(2, 2), "a": torch.nn.BatchNorm1d(2), "c": torch.nn.Linear(2, 2)})
    layers.register_parameter("scale", torch.nn.Parameter(torch.ones(2)))
    model = torch.nn.ModuleDict({"WN": torch.nn.ModuleDict({"0": layers})})
    learned = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    optimizer = {"state": state_of(learned), "param_groups": [{"params": list(range(len(learned)))}]}
    torch.save({"model": model, "optimizer": optimizer}, tmp_path / "a")
    _, *moments = load_adam(tmp_path / "a")
    assert_are_of(moments, {name: number for number, name in enumerate(learned)})


def test_one_weight_is_enough(tmp_path):
    name = "WN.0.start.bias"
    _, *moments = load_adam(saved(tmp_path / "a", {name: (3,)}, {name: (3,)}))
    assert_are_of(moments, {name: 0})


def spoiled(change):
    state = state_of(LEARNED)
    change(state)
    return state


@pytest.mark.parametrize(
    "changes",
    [
        {"state": {}},
        {"state": None},
        {"param_groups": None},
        {"param_groups": []},
        {"param_groups": [None, {"params": 3}]},
        {"param_groups": [{"params": [0, 1]}]},
        {"param_groups": [{"params": [0, 1, 2, 2]}]},
        {"param_groups": [{"params": [0, 1, 3]}]},
        {"param_groups": [{"params": ["0", "1", "2"]}]},
        {"param_groups": [{"params": [1, 0, 2]}]},  # of other shapes
        {"state": spoiled(lambda state: state[1].pop("exp_avg"))},
        {"state": spoiled(lambda state: state[1].update(exp_avg_sq=torch.zeros(3, 2)))},
        {"state": spoiled(lambda state: state[2].update(exp_avg=[0.0] * 4))},
        {"state": spoiled(lambda state: state[0].update(step=-1))},
        {"state": spoiled(lambda state: state[0].pop("step"))},
    ],
)  # fmt: skip
def test_what_does_not_belong_to_the_weights_is_refused(tmp_path, changes):
    with pytest.raises(UserError, match="a holds no state of an Adam that belongs to its weights: leave --keep_optim"):
        load_adam(saved(tmp_path / "a", LEARNED, LEARNED, **changes))


@pytest.mark.parametrize("contents", [{"a": 1}, [1], {"model": weights_of(LEARNED)}, {"optimizer": {"state": {}}}])
def test_a_file_without_one_is_refused(tmp_path, contents):
    torch.save(contents, tmp_path / "a")
    with pytest.raises(UserError, match="holds no state of an Adam"):
        load_adam(tmp_path / "a")


@pytest.mark.parametrize("value", [0, 1, 0.0, 2**53 - 1, torch.tensor(5.0), torch.tensor([5])])
def test_steps_of_adam_are_a_count(value):
    assert steps_of_adam(value) == float(value)


@pytest.mark.parametrize(
    "value", [-1, 2**53, float("nan"), float("inf"), True, None, "5", torch.tensor([5, 5]), torch.tensor(-1.0)]
)
def test_other_steps_of_adam_are_none(value):
    assert steps_of_adam(value) is None


# ---- resuming ----


@pytest.fixture
def optimizer():
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in LEARNED.values()]
    return torch.optim.Adam([{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.5}], lr=0.25)


def test_the_averages_are_the_files_and_the_settings_this_runs(optimizer):
    saved = {"state": state_of(LEARNED), "param_groups": [{"lr": 9.0, "params": [7]}], "more": 1}
    found = checked_adam("a", saved, optimizer)
    assert found["param_groups"] == optimizer.state_dict()["param_groups"]
    assert found["state"].keys() == saved["state"].keys() and "more" not in found
    for number, each in found["state"].items():
        assert each == {name: saved["state"][number][name] for name in ("step", "exp_avg", "exp_avg_sq")}
    assert checked_adam("a", {"state": {}}, optimizer)["state"] == {}  # before the first step


FAULTS = {
    "exp_avg of its parameter 1 is missing": {"exp_avg": None},
    "exp_avg of its parameter 1 is [3, 2], not [3, 2, 1]": {"exp_avg": torch.zeros(3, 2)},
    "exp_avg_sq of its parameter 1 is [], not [3, 2, 1]": {"exp_avg_sq": 1.0},
    "exp_avg_sq of its parameter 1 has values that are no finite numbers": {"exp_avg_sq": torch.ones(3, 2, 1).int()},
    "exp_avg of its parameter 1 has values that are no": {"exp_avg": torch.tensor([1.0] * 5 + [float("inf")])},
    "exp_avg_sq of its parameter 1 has squares below 0": {"exp_avg_sq": torch.tensor([-1e-30] + [1.0] * 5)},
    "the steps of its parameter 1 are None": {"step": None},
    "the steps of its parameter 1 are -1": {"step": -1},
}


@pytest.mark.parametrize("said", FAULTS)
def test_a_fault_is_named_with_its_parameter(optimizer, said):
    state = state_of(LEARNED)
    for name, value in FAULTS[said].items():
        state[1][name] = value.view(3, 2, 1) if isinstance(value, torch.Tensor) and value.ndim == 1 else value
    with pytest.raises(UserError) as error:
        checked_adam("a", {"state": state}, optimizer)
    assert str(error.value).startswith(f"a: {said}")


@pytest.mark.parametrize("saved", [None, [], {}, {"state": None}, {"state": {0: {}}}, {"state": {0: {}, 1: {}, 3: {}}}])
def test_a_state_of_other_parameters_is_refused(optimizer, saved):
    with pytest.raises(UserError, match=r"^a: its optimizer's state is not that of 3 parameters$"):
        checked_adam("a", saved, optimizer)
    with pytest.raises(UserError, match="exp_avg of its parameter 0 is missing"):
        checked_adam("a", {"state": dict.fromkeys(range(3))}, optimizer)
