"""Tacotron2 on the emulated NPU: the user's scripts with --device=npu, and checks in one process.

The product's code is unchanged but for the CPU's own way to draw dropout's masks. Dropout is on: where runs are
compared, the emulated device is told to draw the random numbers that torch's would on the CPU, as no real NPU does.
"""

import json
import re

import pytest
from emulator_runs import checks_in, run_checks

from common.checkpoints.interchange import load_weights
from conftest import EMULATOR, NPU, ROOT, copy_repository, make_corpus, toy_tacotron2_config, write_config
from scripted import Place, form

CHECKS = EMULATOR / "tacotron2_checks.py"
NVIDIAS = ROOT / "test/data/reference/tacotron2_nvidia.pt"
PATCH = {"npu_config": {"conv1d_as_conv2d": "on"}}
"What of it Tacotron2 needs."
LIKE_THE_CPU = NPU | {"NPU_EMULATOR_RANDOM": "cpu"}


def use_torchs_dropout(module):
    """On the CPU, too; with its numbers in the order of the elements, not in that of the memory."""
    text = module.read_text()
    for ours, torchs in (('x.device.type != "cpu"', "True"), ("F.dropout(x,", "F.dropout(x.contiguous(),")):
        assert text.count(ours) == 1
        text = text.replace(ours, torchs)
    module.write_text(text)


@pytest.fixture(scope="module")
def place(tmp_path_factory, npu_extension):
    checkout = copy_repository(tmp_path_factory.mktemp("npu") / "a check out")
    use_torchs_dropout(checkout / "common/layers/dropout.py")
    make_corpus(checkout / "a corpus", seconds=0.2)
    values = toy_tacotron2_config()
    write_config(checkout / "a config.json", values)
    write_config(checkout / "patched.json", values | PATCH)
    config, _ = load_weights(NVIDIAS)
    write_config(checkout / "nvidias.json", values | {"tacotron2_config": config["tacotron2_config"]})
    return Place(checkout, "Tacotron2")


@pytest.fixture(scope="module")
def outcomes(npu_extension, tmp_path_factory, pytestconfig):
    return run_checks([CHECKS], tmp_path_factory.mktemp("npu") / "report.xml", pytestconfig.getoption("--slow"))


@pytest.mark.parametrize("name", checks_in(CHECKS))
def test_in_one_process(name, outcomes):
    assert not outcomes[name], "\n".join(outcomes[name])


@pytest.fixture(scope="module")
def plain(place):
    return place.train("cpu", "plain")


@pytest.fixture(scope="module")
def on_npu(place):
    counts = f"{place.checkout}/counts.json"
    return place.train("npu", "npu", NPU_EMULATOR_COUNTS=counts, NPU_EMULATOR_RANDOM="cpu")


def largest_difference(some, others):
    """Between weights. Left out are biases in front of a batch norm, which takes them away, and its means, which
    follow them: their gradients are nothing but rounding, and Adam makes whole steps of it."""
    assert some.keys() == others.keys()
    names = [name for name in some if not name.endswith(("0.conv.bias", "running_mean"))]
    return max((some[name] - others[name]).abs().max().item() for name in names)


def test_training_is_that_on_the_cpu(place, plain, on_npu):
    patched = place.train("cpu", "patched", config="patched")
    assert [plain.code, patched.code, on_npu.code] == [0, 0, 0], on_npu.stderr
    weights = {name: place.load(f"{name}/tacotron2_6")["model"] for name in ("plain", "patched", "npu")}
    # The patch changes rounding, and so does oneDNN, which computes the CPU's products.
    for other, run in (("patched", patched), ("npu", on_npu)):
        assert run.losses == pytest.approx(plain.losses, rel=1e-5) and len(run.losses) == 6
        assert largest_difference(weights["plain"], weights[other]) < 1e-4


def test_log_files_and_result_are_those_of_the_cpu(plain, on_npu):
    assert form(plain.stdout) == form(on_npu.stdout)
    assert form(plain.logs[0]) == form(on_npu.logs[0])
    assert plain.files == on_npu.files
    assert "Tacotron2_for_PyTorch_bs4_1p_perf.log" in on_npu.files
    assert plain.result == on_npu.result and len(plain.result) == 11


def test_no_operator_that_must_not_reaches_the_device(place, on_npu):
    """It would be refused, but for those of LSTMs."""
    operators = json.loads((place.checkout / "counts.json").read_text())["operators"]
    assert operators["conv2d"] and operators["mm"]
    assert not [name for name in operators if re.search("conv1d|unfold|im2col|col2im|det|lstm|rnn|gru", name)]


def test_the_log_says_what_was_chosen(on_npu):
    log = on_npu.logs[0]
    assert "device: npu:0 (as asked)" in log
    assert re.search(r"npu patch: conv1d_as_conv2d.* \(auto: CANN of unknown version on Ascend910A", log)
    assert "optimizer: NpuFusedAdam of torch_npu.optim" in log


@pytest.mark.slow
def test_two_processes_through_hccl_are_two_on_the_cpu(place):
    runs = {}
    for device, config in (("cpu", "patched"), ("npu", "a config")):
        options = [f"--device={device}", "--nproc=2", "--batch_size=2", "--max_steps=3"]
        environment = LIKE_THE_CPU if device == "npu" else {}
        runs[device] = place.run("train_performance_8p.sh", f"two {device}", *options, config=config, **environment)
        assert runs[device].code == 0, runs[device].stderr
    cpu, npu = runs.values()
    assert "device: npu:0" in npu.logs[0] and "device: npu:1" in npu.logs[1]
    assert npu.losses == pytest.approx(cpu.losses, rel=1e-5) and len(cpu.losses) == 3
    there, here = (place.load(f"two {device}/tacotron2_3")["model"] for device in runs)
    assert largest_difference(there, here) < 1e-4


def test_nvidias_weights_are_finetuned(place):
    options = ["--device=npu", f"--checkpoint_path={NVIDIAS}", "--max_steps=2", "--amp=O2", "--loss_scale=128"]
    tuned = place.run("train_finetune_1p.sh", "tuned", *options, config="nvidias", **NPU)
    assert tuned.code == 0, tuned.stderr
    assert "precision: O2" in tuned.logs[0] and "skipped" not in tuned.logs[0]
    before = int(re.search(f"finetuning from {NVIDIAS}: iteration (\\d+), Adam fresh", tuned.logs[0])[1])
    after = place.load(f"tuned/tacotron2_{before + 2}")["model"]["embedding.weight"]
    moved = (after - load_weights(NVIDIAS)[1]["embedding.weight"]).abs().max()
    assert 0 < moved < 2.1e-3  # two steps of Adam at 1e-3


def test_evaluation_finds_the_loss_of_the_training(place, on_npu):
    options = ["--device=npu", "--pth_path=npu/tacotron2_6", "--nproc=1"]
    evaluated = place.run("train_eval_8p.sh", "npu", *options, **LIKE_THE_CPU)
    assert evaluated.code == 0, evaluated.stderr
    folder = place.checkout / "npu/eval_tacotron2_6"
    assert (folder / "clip00_synthesis.wav").is_file()
    overall = json.loads((folder / "evaluation.json").read_text())["overall"]
    told = float(re.search(r"final validation loss:([\d.]+)", on_npu.logs[0])[1])
    assert told == pytest.approx(overall["loss"], rel=5e-6)
