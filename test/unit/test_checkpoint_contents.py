"""What a checkpoint holds is compared with the model before it is used."""

import pytest
import torch
from hostile import ODD, at
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis_settings import FEW

from common import inference
from common.checkpoints import native
from common.checkpoints.interchange import load_adam
from common.checkpoints.progress import Progress, read_progress
from common.program import UserError, shown
from common.training.run import checked_adam
from conftest import toy_config
from runs import make_run, weights
from waveglow.config import Config, build_model

pytest_plugins = ["hostile"]


PLACES = [
    ("config",), ("config", "waveglow_config"), ("config", "waveglow_config", "n_flows"),
    ("config", "train_config", "seed"), ("config", "train_config", "anneal_epochs"), ("config", "data_config"),
    ("iteration",), ("progress",), *(("progress", name) for name in Progress.__dataclass_fields__),
    ("precision",), ("precision", "scale"), ("rng_states",), ("rng_states", 0), ("rng_states", 0, "cpu"),
    ("model",), ("model", "WN.0.start.bias"), ("optimizer",), ("optimizer", "state"), ("optimizer", "param_groups"),
    ("optimizer", "state", 0), ("optimizer", "state", 3, "exp_avg"), ("optimizer", "state", 1, "step"),
]  # fmt: skip


@settings(FEW, max_examples=20)
@given(place=st.sampled_from(PLACES), value=ODD)
@example(place=("iteration",), value=torch.zeros(0))
@example(place=("progress",), value=torch.zeros(0))
def test_whatever_stands_in_a_checkpoint_is_taken_or_refused_in_one_line(trained, place, value):
    """By whoever reads one: to resume, to finetune, to speak; and a run that was refused is as it was."""
    state = native.load(trained / "out/waveglow_2")
    at(state, place, value)
    path = trained / "odd"
    torch.save(state, path)
    run = make_run(toy_config(), trained / "odd out", max_steps=3)
    before = weights(run).clone()
    readers = {
        "resume": lambda: run.start(str(path)),
        "finetune": lambda: make_run(toy_config(), trained / "odd out", checkpoint_path=str(path)).start("no"),
        "with Adam": lambda: load_adam(path),
        "speak": lambda: inference.load(path, "waveglow", Config, build_model),
    }
    for name, reader in readers.items():
        try:
            reader()
        except UserError as error:
            assert str(error).count("\n") <= 9 and len(str(error)) < 2000
            if name == "resume":
                assert torch.equal(weights(run), before)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("exp_avg", torch.zeros(1), r"exp_avg of its parameter 1 is \[1\], not "),
        ("exp_avg_sq", None, "exp_avg_sq of its parameter 1 is missing"),
        ("exp_avg_sq", torch.tensor([1.0] * 5 + [-1.0]), "exp_avg_sq of its parameter 1 has squares below 0"),
        ("step", torch.tensor(float("nan")), "the steps of its parameter 1"),
    ],
)
def test_the_optimizer_is_checked_against_the_model(trained, name, value, said):
    """Adam would write beyond the end of the smaller one: signal 11."""
    state = native.load(trained / "out/waveglow_2")
    state["optimizer"]["state"][1][name] = value
    torch.save(state, trained / "odd")
    with pytest.raises(UserError, match=said):
        make_run(toy_config(), trained / "out").start(str(trained / "odd"))


def test_a_weight_without_a_gradient_so_far_is_no_fault(trained):
    """Its averages are 0, and so may be the steps."""
    state = native.load(trained / "out/waveglow_2")
    kept = {number: {name: torch.zeros_like(each) for name, each in own.items()}
            for number, own in state["optimizer"]["state"].items()}  # fmt: skip
    optimizer = make_run(toy_config(), trained / "out").optimizer
    assert checked_adam("x", {"state": kept}, optimizer)["state"] == kept


@FEW
@given(missing=st.sets(st.integers(0, 43), min_size=1, max_size=43), extra=st.integers(44, 10**6) | st.just("0"))
def test_an_optimizer_of_other_parameters_is_refused(trained, missing, extra):
    for names in (missing, [extra]):
        state = native.load(trained / "out/waveglow_2")
        kept = state["optimizer"]["state"]
        assert kept.keys() == set(range(44))
        changed = {number: kept[number] for number in kept.keys() - missing} if names is missing else kept | {extra: {}}
        with pytest.raises(UserError, match="not that of 44 parameters"):
            checked_adam("x", {"state": changed}, make_run(toy_config(), trained / "out").optimizer)


@pytest.mark.parametrize("place", [("iteration",), ("progress", "iteration")])
@pytest.mark.parametrize("value", [0, 1, 3, 10**9])
def test_two_words_on_how_far_it_is_are_refused(trained, place, value):
    state = native.load(trained / "out/waveglow_2")
    at(state, place, value)
    torch.save(state, trained / "odd")
    with pytest.raises(
        UserError, match=f"its iteration is .*{value}" if len(place) == 1 else f"{value} in its progress"
    ):
        make_run(toy_config(), trained / "out").start(str(trained / "odd"))


def test_a_checkpoint_of_the_other_model_is_said_to_be_one(trained):
    state = native.load(trained / "out/waveglow_2")
    state["config"]["tacotron2_config"] = state["config"].pop("waveglow_config")
    torch.save(state, trained / "odd")
    with pytest.raises(UserError, match="a checkpoint of Tacotron2, and one of WaveGlow is needed"):
        make_run(toy_config(), trained / "out").start(str(trained / "odd"))


def test_weights_that_are_no_numbers_are_refused(trained):
    state = native.load(trained / "out/waveglow_2")
    state["model"]["WN.0.start.bias"][0] = float("nan")
    torch.save(state, trained / "odd")
    with pytest.raises(UserError, match=r"not finite: in WN\.0\.start\.bias and 0 other"):
        inference.load(trained / "odd", "waveglow", Config, build_model)


def test_a_field_of_a_newer_version_is_said_and_ignored(trained, caplog):
    state = native.load(trained / "out/waveglow_2")
    state["progress"]["mood"], state["config"]["waveglow_config"]["n_moods"] = 3, 4
    torch.save(state, trained / "odd")
    run = make_run(toy_config(), trained / "out")
    run.start(str(trained / "odd"))
    assert run.progress.iteration == 2
    assert "progress.'mood' is not known here" in caplog.text
    assert "waveglow_config: 'n_moods' is not known here" in caplog.text


def test_sizes_are_compared_before_they_cost_memory(trained):
    """The configuration says 60 GB, the file holds some KB."""
    state = native.load(trained / "out/waveglow_2")
    state["config"]["waveglow_config"]["WN_config"] |= {"n_channels": 16384, "n_layers": 8}
    torch.save(state, trained / "odd")
    with pytest.raises(UserError, match="does not fit the model"):
        inference.load(trained / "odd", "waveglow", Config, build_model)


@pytest.mark.parametrize("name", ["iteration", "first_iteration", "epoch", "clips", "run"])
def test_counts_are_taken_from_0_to_the_largest_integer(name):
    for value in (0, 2**63 - 1):
        assert getattr(read_progress("x", {"iteration": 2**63 - 1, name: value}), name) == value
    for value in (-1, 2**63, 1.0, True):
        with pytest.raises(UserError, match=f"progress.{name} is"):
            read_progress("x", {"iteration": 2**63 - 1, name: value})


@pytest.mark.parametrize("pair", [(-1, 0.5), (1, 2), (1, 0.5, 0.5), (1,), [True, 0.5], 1])
def test_a_validation_loss_is_an_iteration_and_a_number(pair):
    assert read_progress("x", {"validation_losses": [[0, 0.5], (1, 0.5)]}).validation_losses
    for losses in ([pair], [(0, 0.5), pair]):
        with pytest.raises(UserError, match=r"progress\.validation_losses is"):
            read_progress("x", {"validation_losses": losses})


@pytest.mark.parametrize(
    ("name", "taken", "refused"),
    [
        ("finetuned_from", ["", "a/b"], [None, 1, b"a"]),
        ("case", ["acc", "perf"], [None, 0, ["acc"]]),
        ("started", [0, -1.5, 1.8e9, 2**40], [True, None, "1", float("inf"), float("-inf"), float("nan")]),
        ("losses", [[], [0.5, float("nan"), float("inf")]], [None, 0.5, (0.5,), [1], [0.5, None], [True], ["0.5"]]),
        ("validation_losses", [[], [(3, float("nan"))]], [None, (), {1: 0.5}, [0.5], ["ab"]]),
    ],
)
def test_a_field_of_the_progress_is_of_its_kind(name, taken, refused):
    for value in taken:
        assert shown(getattr(read_progress("x", {name: value}), name)) == shown(value)
    for value in refused:
        with pytest.raises(UserError, match=rf"^x: progress\.{name} is .*, which is not valid$"):
            read_progress("x", {name: value})


def test_what_a_checkpoint_does_not_tell_of_its_progress_is_that_of_a_beginning():
    progress = read_progress("x", {"started": 5.0})
    assert progress == Progress(0, 0, 0, 0, "", "acc", 0, 5.0, [], [])
    for value in (None, [], "text", torch.zeros(1)):
        with pytest.raises(UserError, match=r"^x: its progress is .*, must be an object$"):
            read_progress("x", value)


def test_later_runs_compare_greater_by_their_number_and_then_by_their_beginning():
    """The clock may have been set back between numbered ones; those of an old version have no number."""
    runs = [Progress(run=run, started=started) for run, started in ((2, 1.0), (1, 3.0), (0, 9.0), (0, 7.0))]
    assert sorted(runs, key=lambda run: run.which_run) == runs[::-1]
    assert Progress(iteration=7, first_iteration=5).steps == 2


def test_a_run_begins_at_or_before_its_iteration():
    assert read_progress("x", {"iteration": 3, "first_iteration": 3}).steps == 0
    with pytest.raises(UserError, match="first_iteration 4 is above the iteration"):
        read_progress("x", {"iteration": 3, "first_iteration": 4})


@pytest.mark.parametrize(
    ("scale", "good_steps", "is_valid"),
    [
        (2.0**16, 0, True), (1, 2000, True), (2.0**64, 0, True), (2.0**-10, 1, True),
        (0, 0, False), (-1.0, 0, False), (2.0**65, 0, False), (float("inf"), 0, False), (float("nan"), 0, False),
        (1.0, -1, False), (1.0, 0.5, False), (1.0, None, False), (None, 0, False),
    ],
)  # fmt: skip
def test_a_loss_scale_is_a_number_above_0_and_its_steps_a_count(trained, scale, good_steps, is_valid):
    state = {"scale": scale, "good_steps": good_steps}
    precision = make_run(toy_config(), trained / "out").precision
    if is_valid:
        assert precision.checked_state("x", state) == state
    else:
        with pytest.raises(UserError, match="x: its precision is"):
            precision.checked_state("x", state)


def test_progress_comes_back_as_it_was():
    progress = Progress(5, 2, 1, 3, "a", "perf", 4, 1.5, [1.0, float("nan")], [(2, 0.5)])
    assert shown(vars(read_progress("x", vars(progress)))) == shown(vars(progress))
