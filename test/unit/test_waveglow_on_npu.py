"""The user's scripts with --device=npu on the emulated NPU; the product's code is unchanged."""

import json
import os
import re
import shutil

import pytest

from common.checkpoints import native
from conftest import EMULATOR, NPU, ROOT, copy_repository, make_corpus, toy_config, write_config
from runs import same, start
from scripted import Place, form

ON_THE_HOST = {"conv1d_as_conv2d": "on", "conv_transpose_on_cpu": "on", "logdet_on_cpu": "on"}

OFF = [*ON_THE_HOST, "conv_transpose_as_product"]


@pytest.fixture(scope="module")
def place(tmp_path_factory, npu_extension):
    checkout = copy_repository(tmp_path_factory.mktemp("npu") / "a check out")
    make_corpus(checkout / "a corpus")
    values = toy_config()
    values["train_config"]["iters_per_checkpoint"] = 3
    write_config(checkout / "a config.json", values)
    write_config(checkout / "patched.json", values | {"npu_config": ON_THE_HOST})
    write_config(checkout / "unpatched.json", values | {"npu_config": dict.fromkeys(OFF, "off")})
    return Place(checkout)


@pytest.fixture(scope="module")
def plain(place):
    return place.train("cpu", "plain")


@pytest.fixture(scope="module")
def on_npu(place):
    return place.train("npu", "npu", NPU_EMULATOR_COUNTS=f"{place.checkout}/counts-train.json")


def test_training_equals_that_on_the_cpu_bit_for_bit(place, plain, on_npu):
    patched = place.train("cpu", "patched", config="patched")
    assert [plain.code, patched.code, on_npu.code] == [0, 0, 0]
    assert on_npu.losses == patched.losses and len(patched.losses) == 6
    weights = {name: place.load(f"{name}/waveglow_6")["model"] for name in ("plain", "patched", "npu")}
    assert same(weights["npu"], weights["patched"])
    # the patch itself changes rounding alone
    assert patched.losses == pytest.approx(plain.losses, abs=1e-5)
    assert all((weights["plain"][name] - w).abs().max() < 1e-4 for name, w in weights["patched"].items())


def test_log_files_and_result_are_those_of_the_cpu(plain, on_npu):
    assert form(plain.stdout) == form(on_npu.stdout)
    assert form(plain.logs[0]) == form(on_npu.logs[0])
    assert plain.files == on_npu.files and len(plain.files) == 5
    assert plain.result == on_npu.result and len(plain.result) == 11


def test_the_log_says_what_was_chosen(on_npu):
    log = on_npu.logs[0]
    assert "device: npu:0 (as asked)" in log
    assert re.search(r"npu patch: conv1d_as_conv2d, .* \(auto: CANN of unknown version on Ascend910A", log)
    assert "precision: O0," in log
    assert "optimizer: NpuFusedAdam of torch_npu.optim" in log


def test_a_failing_run_ends_as_on_the_cpu(place):
    """Adam's first step takes every weight to 1e18, and no loss is finite after it."""
    options = ["--learning_rate=1e18", "--max_steps=99"]
    cpu, npu = (place.train(device, f"lost {device}", *options) for device in ("cpu", "npu"))
    assert cpu.code == npu.code == 1
    (line,) = [line for line in npu.stderr.splitlines() if line.startswith("error:")]
    assert "was not finite in 10 steps in a row" in line
    assert form(cpu.stderr) == form(npu.stderr)
    assert form(cpu.logs[0]) == form(npu.logs[0])
    assert cpu.files == npu.files


def test_an_unpatched_model_is_refused_by_the_operators_name(place):
    refused = place.train("npu", "refused", config="unpatched")
    assert refused.code == 1
    assert re.search(r"error: NotImplementedError: .*conv_transpose1d", refused.stderr)


def cann(place, version):
    """The environment of a CANN that is there, for the product and the emulated card."""
    home = place.checkout / f"cann {version}"
    home.mkdir(exist_ok=True)
    (home / "version.cfg").write_text(f"runtime_running_version=[1.0:{version}]\n")
    return {"ASCEND_HOME_PATH": str(home), "NPU_EMULATOR_CANN": version}


@pytest.mark.slow
def test_a_newer_card_with_a_newer_cann(place, plain):
    """Its own 1-D convolutions, and the upsampling as a product, with nothing but log-determinants on the host."""
    newer = cann(place, "8.1") | {"NPU_EMULATOR_CARD": "Ascend910B3"}
    run = place.train("npu", "newer", "--profile=1", NPU_EMULATOR_COUNTS=f"{place.checkout}/newer.json", **newer)
    assert run.code == 0, run.stderr
    chosen = "npu patch: conv_transpose_as_product, logdet_on_cpu (auto: CANN 8.1 on Ascend910B3"
    assert chosen in run.logs[0]
    assert run.losses == pytest.approx(plain.losses, abs=1e-5)
    assert set(re.findall(r"crossings between device and host: (\d+),", run.logs[0])) == {str(2 * 4)}
    assert '"upsampling as a product"' in (place.checkout / "newer/profile/trace_0.json").read_text()
    operators = json.loads((place.checkout / "newer.json").read_text())["operators"]
    assert operators["conv1d"] and not {"conv2d", "conv_transpose1d"} & operators.keys()
    refused = place.train("npu", "refused", config="unpatched", **newer)
    assert refused.code == 1
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("error:")]
    assert "a kernel of 1024, to CANN's own operator, which takes at most 255" in line


@pytest.mark.parametrize(
    ("processes", "option", "taken", "message"),
    [
        (1, "--device_id=3", "3", "error: npu card 3 is taken by another process"),
        pytest.param(8, "--nproc=2", "0,2,1", "error: rank ", marks=pytest.mark.slow),
    ],
)
def test_a_card_that_is_taken_is_said_before_the_data_are_read(place, processes, option, taken, message):
    run = place.run(
        f"train_performance_{processes}p.sh", f"taken {processes}", "--device=npu", "--max_steps=1", option,
        f"--data_path={place.checkout}/nothing", config="a config", NPU_EMULATOR_TAKEN=taken, **NPU,
    )  # fmt: skip
    assert run.code == 1
    assert run.stderr.startswith(message) and "is taken by another process (npu-smi info" in run.stderr
    assert len(run.stderr.splitlines()) == 1 and "Traceback" not in run.stderr


def test_a_resumed_run_equals_an_undisturbed_one_bit_for_bit(place, on_npu):
    """Profiled as well, with the number of crossings that the patch is designed for."""
    (place.checkout / "parts").mkdir()
    shutil.copy(place.checkout / "npu/waveglow_3", place.checkout / "parts")
    resumed = place.train("npu", "parts", "--resume=auto", "--profile=2")
    assert resumed.code == 0, resumed.stderr
    assert "resumed from " in resumed.logs[0] and resumed.losses == on_npu.losses[3:]
    whole, parts = place.load("npu/waveglow_6"), place.load("parts/waveglow_6")
    assert same(whole["model"], parts["model"])
    assert parts["progress"]["losses"] == whole["progress"]["losses"]
    # The upsampling: mel, weight, bias and result forward; backward the gradients of the result and of
    # the two parameters. Two flows' log-determinants: to the host and back, forward and backward.
    per_step = set(re.findall(r"crossings between device and host: (\d+),", resumed.logs[0]))
    assert per_step == {str(4 + 3 + 2 * 4)}


@pytest.mark.slow
def test_two_processes_through_hccl_finetune_and_evaluation(place, on_npu):
    common = ["--device=npu", "--epochs=9", "--max_steps=6"]
    two = place.run("train_full_8p.sh", "two", *common, "--nproc=2", "--batch_size=2", config="a config", **NPU)
    assert two.code == 0, two.stderr
    assert "device: npu:0" in two.logs[0] and "device: npu:1" in two.logs[1]
    assert two.losses == pytest.approx(on_npu.losses, abs=1e-4)

    tuning = ["--checkpoint_path=two/waveglow_6", "--max_steps=1", "--amp=O1"]
    tuned = place.run("train_finetune_1p.sh", "two", *common, *tuning, config="a config", **NPU)
    assert tuned.code == 0, tuned.stderr
    evaluation = ["--device=npu", "--pth_path=two/waveglow_7", "--nproc=1", "--denoiser_strength=0.1", "--amp=O2"]
    counts = f"{place.checkout}/counts-evaluate.json"
    evaluated = place.run("train_eval_8p.sh", "two", *evaluation, NPU_EMULATOR_COUNTS=counts, **NPU)
    assert evaluated.code == 0, evaluated.stderr
    assert (place.checkout / "two/eval_waveglow_7/clip00_synthesis.wav").is_file()
    # None that must stay on the host. It would be refused; test_what_runs_on_the_device counts without refusing.
    for program in ("train", "evaluate"):
        operators = json.loads((place.checkout / f"counts-{program}.json").read_text())["operators"]
        assert operators["conv2d"] and not [name for name in operators if re.search("conv1d|unfold|im2col|det", name)]


@pytest.mark.slow
def test_two_processes_share_the_cores_and_compute_the_same(place):
    """Of two cards each has half of them, unless the user says otherwise."""
    all_cores = sorted(os.sched_getaffinity(0))
    if len(all_cores) < 2:
        pytest.skip("one core cannot be shared out")
    runs, cores = {}, {}
    for name, more in {"shared": {}, "whole": {"CPU_AFFINITY_CONF": "0"}}.items():
        environment = NPU | more | {
            "NPU_EMULATOR_DEVICES": "2", "NPU_EMULATOR_COUNTS": f"{place.checkout}/cores-{name}-{{rank}}.json",
        }  # fmt: skip
        options = ["--device=npu", "--nproc=2", "--batch_size=2", "--max_steps=3"]
        runs[name] = place.run("train_performance_8p.sh", f"cores {name}", *options, config="a config", **environment)
        assert runs[name].code == 0, runs[name].stderr
        files = [place.checkout / f"cores-{name}-{rank}.json" for rank in (0, 1)]
        cores[name] = [json.loads(file.read_text())["cores"] for file in files]
    half = len(all_cores) // 2
    assert cores == {"shared": [all_cores[:half], all_cores[half : 2 * half]], "whole": [all_cores, all_cores]}
    assert runs["shared"].losses == runs["whole"].losses and len(runs["whole"].losses) == 3


@pytest.mark.slow
def test_eight_processes_each_on_its_own_card(place):
    options = ["--device=npu", "--batch_size=1", "--max_steps=1"]
    eight = place.run("train_performance_8p.sh", "eight", *options, config="a config", NPU_EMULATOR_DEVICES="8", **NPU)
    assert eight.code == 0, eight.stderr
    for rank, log in enumerate(eight.logs):
        assert f"device: npu:{rank} (as asked), 8 process(es)" in log
        assert re.findall(r"^1:\tloss:(\S+)\t", log, re.MULTILINE) == [f"{eight.losses[0]:.9f}"]
    assert len(eight.logs) == 8
    assert "Final result" in eight.stdout and "WaveGlow_for_PyTorch_bs1_8p_perf.log" in eight.files


@pytest.mark.parametrize(("processes", "apex"), [(1, False), pytest.param(2, True, marks=pytest.mark.slow)])
def test_an_overflow_is_skipped_and_the_scale_lowered(place, processes, apex):
    """On all processes alike: going on from a checkpoint of the CPU in which the scale is too large."""
    output = f"overflow {processes}"
    values = json.loads((place.checkout / "a config.json").read_text())
    values["train_config"] |= {
        "amp": "O2", "loss_scale": "dynamic", "batch_size": 4 // processes, "iters_per_checkpoint": 1,
    }  # fmt: skip
    write_config(place.checkout / f"{output}.json", values)
    start(values, place.checkout / "a corpus", place.checkout / output, max_steps=1)
    state = place.load(f"{output}/waveglow_1")
    state["precision"] = {"scale": 2.0**21, "good_steps": 0}
    native.save(place.checkout / output / "waveglow_1", state)

    path = f"{EMULATOR}:{ROOT / 'test/unit/fake_apex'}" if apex else str(EMULATOR)
    options = ["--device=npu", "--max_steps=6", f"--nproc={processes}"]
    done = place.run("train_full_8p.sh", output, *options, config=output, PYTHONPATH=path)
    assert done.code == 0, done.stderr
    assert f"precision: O2 {'by' if apex else 'without'} apex" in done.logs[0]
    for log in done.logs[:processes]:
        assert re.search(r"iteration 2: .* step skipped \(1 in a row\)", log)
        assert "loss scale 1.04858e+06\n" in log
    after = place.load(f"{output}/waveglow_2")
    assert same(after["model"], state["model"])
    assert after["precision"]["scale"] == 2.0**20
    last = place.load(f"{output}/waveglow_6")
    assert not same(last["model"], state["model"])
    assert last["precision"]["good_steps"] > 0
