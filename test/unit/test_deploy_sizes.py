"""The engines of a measurement: which folder, which sizes, and what is refused before anything is loaded or moved."""

import json

import pytest
from deploy_toys import engines, models_dir, to_infer
from iterations import iteration

from common.program import UserError
from tools.deploy.gen_model.settings import Sizes
from tools.deploy.infer_python import infer
from tools.deploy.infer_python import measure as measuring
from tools.deploy.infer_python.latency import DeviceResult, Run


@pytest.fixture
def asked(monkeypatch):
    """What would be measured: the arguments of each measurement."""
    asked = []

    def measure(args, folder, contents, batch, text=None):
        asked.append((folder, batch, text, sorted(path.name for path in args.output.iterdir() if path.name[0] != ".")))
        return Run("onnxruntime", "int8", batch, args.il, {}, {}, {0: DeviceResult("a card", [iteration()])})

    monkeypatch.setattr(measuring, "measure", measure)
    return asked


def test_engines_are_found_in_the_folder_named_or_in_that_of_their_mode(run_here, tmp_path, asked):
    for given in (models_dir(), engines()):
        done = run_here(infer.main, f"--models_dir={given}", "-o", "out", "--bs=1,4")
        assert done.returncode == 0, done.stderr
        assert [each[:3] for each in asked] == [(engines(), 1, None), (engines(), 4, None)]
        asked.clear()


def test_what_an_earlier_run_left_is_gone_before_anything_is_spoken(run_here, tmp_path, asked):
    """And the report is there afterwards, under the name of the mode, the batch and the length."""
    (tmp_path / "dev0_0.wav").write_text("earlier")
    (tmp_path / "logs").mkdir()
    done = run_here(infer.main, *to_infer("force_float32", "2", "20", "-o", tmp_path, "--log_file=logs"))
    assert done.returncode == 0, done.stderr
    assert "dev0_0.wav" not in asked[0][3]
    assert (tmp_path / "logs/force_float32_2_20_log_perf").read_text().startswith("onnxruntime, int8, batch 2, 20 ch")
    assert len(json.loads((tmp_path / "logs/force_float32_2_20_log_perf.json").read_text())["runs"]) == 1


def test_a_text_may_be_of_any_length_whatever_the_length_of_the_sentence(run_here, tmp_path, asked):
    (tmp_path / "a.txt").write_text("Hello.\nBye.\n")
    done = run_here(infer.main, *to_infer("force_float32", "1", "9999", "-o", "out", "--text=a.txt"))
    assert done.returncode == 0, done.stderr
    assert asked[0][2][:2] == ["Hello.", "Bye."]


def test_engines_without_the_batch_say_how_to_build_it(run_here, asked):
    done = run_here(infer.main, f"--models_dir={engines()}", "--bs=1,32", "-o", "out")
    assert done.returncode == 1
    assert "--bs is 32, and these engines are built for 1 to 4: choose another, or build others: bash" in done.stderr
    assert "force_float32 1 4 32 " in done.stderr
    assert asked == []


@pytest.mark.parametrize("name", ["batch", "text", "mel"])
@pytest.mark.parametrize("sizes", [[0, 1, 2], [1, 2], [1, 3, 2], [1, 2, 3, 4], [1.0, 2, 3], [True, 2, 3], [-1, 1, 2]])
def test_sizes_are_three_whole_numbers_from_1_on_in_their_order(name, sizes):
    assert vars(Sizes(**{name: [1, 1, 1]}))[name] == [1, 1, 1]
    with pytest.raises(UserError, match=rf"{name} is \[.*: must be the smallest, usual and largest size"):
        Sizes(**{name: sizes})
