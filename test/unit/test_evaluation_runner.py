"""The common part of both evaluations: who does which clip, what all processes must have the same, what is written."""

import json
import math
from argparse import Namespace
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from common.evaluation import runner
from common.program import UserError


@pytest.fixture
def second_of_three(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 7])
def test_each_process_does_its_share_and_gets_all_results(second_of_three, monkeypatch, rank, count):
    """Of three processes each does every third."""
    monkeypatch.setenv("RANK", str(rank))
    done = []
    others = {number: number for number in range(count)}
    monkeypatch.setattr(runner.distributed, "gather_objects", lambda own: [others, own])
    results = runner.shared_out(range(10, 10 + count), lambda clip: done.append(clip) or -clip)
    assert done == list(range(10 + rank, 10 + count, 3))
    assert results == [-10 - number if number % 3 == rank else number for number in range(count)]


def test_a_process_that_does_not_come_to_the_end_is_named(second_of_three, monkeypatch):
    """Around the wait for the others, and not around the work."""
    order = []

    @contextmanager
    def naming():
        order.append("begin")
        yield
        order.append("end")

    monkeypatch.setattr(runner.distributed, "naming_the_absent", naming)
    monkeypatch.setattr(runner.distributed, "gather_objects", lambda own: order.append("gather") or [own, {0: 0, 2: 2}])
    assert runner.shared_out([5, 6, 7], lambda clip: order.append(clip) or 1) == [0, 1, 2]
    assert order == [6, "begin", "gather", "end"]


def test_one_process_does_all():
    assert runner.shared_out("abc", str.upper) == ["A", "B", "C"]


def facts(model, clips=("a/one.wav", "b/two.wav"), **options):
    return runner.facts_of_evaluation(Namespace(**options), model, map(Path, clips))


def test_what_all_processes_must_have_the_same(second_of_three):
    """Options that change the figures, the weights, the clips' names and order; not where a machine has its files."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    folders = "inputs data_path pth_path output_directory log_directory earlier mels_path training_files"
    paths = dict.fromkeys(folders.split())
    same = facts(model, seed=1, sigma=0.6, amp=None, **paths, started=1.0, debug=True)
    assert same.keys() == {"--seed", "--sigma", "--amp", "the sum of the weights", "the names of the clips"}
    assert (same["--seed"], same["--sigma"]) == (1, 0.6)
    again = facts(model, ("elsewhere/one.wav", "two.wav"), seed=1, sigma=0.6, amp=None, **dict.fromkeys(paths, "x"))
    assert again == same
    for clips in (("b/two.wav", "a/one.wav"), ("a/one.wav",), ("a/one.wav", "b/three.wav")):
        other = facts(model, clips, seed=1, sigma=0.6, amp=None)
        assert {name for name in same if other[name] != same[name]} == {"the names of the clips"}
    for tensor in (model[0].bias.data, model[1].running_mean):
        tensor[0] += 1
        other = facts(model, seed=1, sigma=0.6, amp=None)
        assert {name for name in same if other[name] != same[name]} == {"the sum of the weights"}
        same = other


def test_a_process_alone_has_nothing_to_compare():
    assert facts(torch.nn.Linear(2, 2), seed=1) == {}


def test_no_two_clips_may_become_one_file():
    runner.check_outputs_differ(map(Path, ["a/x.wav", "a/y.wav", "x.wav.wav"]))
    with pytest.raises(UserError, match=r"^a/x.wav and b/x.npy would both become x_synthesis.wav: rename one$"):
        runner.check_outputs_differ(map(Path, ["a/x.wav", "a/y.wav", "b/x.npy"]))
    with pytest.raises(UserError, match=r"would both become x.npy"):
        runner.check_outputs_differ(map(Path, ["a/x.wav", "b/x.wav"]), lambda path: f"{path.stem}.npy")


@dataclass
class Figures:
    name: str
    loss: float
    count: int = 3


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ([1.0, 2.0, 6.0], 3),
        ([math.nan, 1.0, math.nan, 4.0], 2.5),
        ([0.0, 0.0], 0),
        ([math.nan, math.nan], math.nan),
        ([], math.nan),
    ],
)
def test_a_mean_is_of_those_that_are_numbers(values, mean):
    assert runner.mean(iter(values)) == pytest.approx(mean, nan_ok=True)


def test_json_has_null_where_there_is_no_number(tmp_path):
    runner.write_json(tmp_path / "a.json", {"seed": 1}, Figures("overall", 2.5), [Figures("ä", math.nan)])
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert '"ä"' in text and '\n  "seed": 1,\n' in text and text.endswith("}\n")  # for people to read
    assert json.loads(text, parse_constant=pytest.fail) == {
        "seed": 1,
        "overall": {"name": "overall", "loss": 2.5, "count": 3},
        "clips": [{"name": "ä", "loss": None, "count": 3}],
    }


def test_results_are_in_the_order_of_the_inputs(monkeypatch):
    """Whichever process they come from."""
    monkeypatch.setattr(runner.distributed, "gather_objects", lambda own: [{1: "b", 3: "d"}, {2: "c", 0: "a"}])
    assert runner.shared_out("abcd", str) == list("abcd")


@pytest.mark.parametrize(("clips", "said"), [(0, ""), (20, ""), (21, " The first 20 clips are below.")])
def test_clips_that_are_not_on_the_page_are_said(clips, said):
    assert runner.clips_below(clips) == said
