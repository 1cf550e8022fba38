"""The user's scripts with --device=npu on the emulated NPU; the product's code is unchanged."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch

from common import checkpoint
from conftest import ROOT, make_corpus, run_script, write_config

EMULATOR = ROOT / "test/npu_emulator"
HOST_ONLY = re.compile(r"conv1d|conv_transpose|unfold|im2col|col2im|det|lu")
ON_THE_HOST = {"conv1d_as_conv2d": "on", "conv_transpose_on_cpu": "on", "logdet_on_cpu": "on"}


@pytest.fixture(scope="module")
def npu():
    """The environment in which `import torch_npu` finds the emulated device."""
    environment = {"PYTHONPATH": str(EMULATOR)}
    built = subprocess.run(
        [sys.executable, EMULATOR / "build_extension.py"],
        env=os.environ | environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    if built.returncode == 3:
        pytest.skip(built.stderr.strip())
    assert built.returncode == 0, built.stderr
    return environment


@pytest.fixture
def place(checkout, config):
    corpus = make_corpus(checkout / "a corpus")
    path = write_config(checkout / "a config.json", config[1])
    return checkout, [f"--data_path={corpus}", f"--config={path}", "--max_steps=6"], config[1]


def train(place, device, output, *more, **environment):
    """Run the script of one card; losses and the checkpoint."""
    checkout, options, _ = place
    script_options = [*options, f"--device={device}", f"--output_directory={output}", "--epochs=9", *more]
    done = run_script(checkout, "train_performance_1p.sh", *script_options, timeout=240, **environment)
    assert done.returncode == 0, done.stderr
    log = (checkout / "test/output/0/train_0.log").read_text()
    losses = [float(x) for x in re.findall(r"^\d+:\tloss:(\S+)\t", log, re.MULTILINE)]
    return losses, checkpoint.load(checkout / output / "waveglow_6")["model"]


def patch_everywhere(place, value=None):
    """Write the patch's switches into the configuration, for the CPU's run to compute the same."""
    checkout, _, values = place
    switches = ON_THE_HOST if value is None else dict.fromkeys(ON_THE_HOST, value)
    write_config(checkout / "a config.json", values | {"npu_config": switches})


def test_training_equals_that_on_the_cpu_bit_for_bit(place, npu, tmp_path):
    unpatched, plain_weights = train(place, "cpu", "plain")
    patch_everywhere(place)
    on_cpu, cpu_weights = train(place, "cpu", "cpu")
    counts_file = tmp_path / "counts.json"
    on_npu, npu_weights = train(place, "npu", "npu", "--profile=2", NPU_EMULATOR_COUNTS=str(counts_file), **npu)
    assert on_npu == on_cpu
    assert all(torch.equal(npu_weights[name], cpu_weights[name]) for name in cpu_weights)
    # the patch itself changes rounding alone
    assert on_cpu == pytest.approx(unpatched, abs=1e-5)
    assert all((plain_weights[name] - cpu_weights[name]).abs().max() < 1e-4 for name in cpu_weights)
    # what runs on the device
    operators = json.loads(counts_file.read_text())
    names = json.dumps(operators)
    assert "convolution" in names or "conv2d" in names
    log = (place[0] / "test/output/0/train_0.log").read_text()
    assert "device: npu:0" in log
    # The upsampling: mel, weight, bias and result forward; backward the gradients of the result and of
    # the two parameters. Two flows' log-determinants: to the host and back, forward and backward.
    per_step = set(re.findall(r"crossings between device and host: (\d+),", log))
    assert per_step == {str(4 + 3 + 2 * 4)}


def test_an_unpatched_model_is_refused_by_the_operators_name(place, npu):
    patch_everywhere(place, "off")
    checkout, options, _ = place
    npu_options = ["--device=npu", "--output_directory=out"]
    done = run_script(checkout, "train_performance_1p.sh", *options, *npu_options, timeout=240, **npu)
    assert done.returncode == 1
    assert re.search(r"error: NotImplementedError: .*conv_transpose1d", done.stderr)


def test_two_processes_through_hccl_finetune_and_evaluation(place, npu):
    checkout, options, _ = place
    common = [*options[:2], "--device=npu", "--output_directory=out", "--epochs=9", "--max_steps=6"]
    one, _ = train(place, "npu", "one", **npu)
    done = run_script(checkout, "train_full_8p.sh", *common, "--nproc=2", "--batch_size=2", timeout=240, **npu)
    assert done.returncode == 0, done.stderr
    logs = [(checkout / f"test/output/{rank}/train_{rank}.log").read_text() for rank in (0, 1)]
    losses = [[float(x) for x in re.findall(r"^\d+:\tloss:(\S+)\t", log, re.MULTILINE)] for log in logs]
    assert losses[0] == losses[1]
    assert losses[0] == pytest.approx(one, abs=1e-4)
    assert "device: npu:1" in logs[1]

    tuning = ["--checkpoint_path=out/waveglow_6", "--max_steps=1"]
    done = run_script(checkout, "train_finetune_1p.sh", *common, *tuning, timeout=240, **npu)
    assert done.returncode == 0, done.stderr
    evaluate = [options[0], "--device=npu", "--output_directory=out", "--pth_path=out/waveglow_7", "--nproc=1"]
    done = run_script(checkout, "train_eval_8p.sh", *evaluate, timeout=240, **npu)
    assert done.returncode == 0, done.stderr
    assert (checkout / "out/eval_waveglow_7/clip00_synthesis.wav").is_file()


@pytest.mark.parametrize("level", ["O1", "O2"])
def test_float16_follows_float32(place, npu, level):
    exact, _ = train(place, "npu", "O0", **npu)
    half, _ = train(place, "npu", level, f"--amp={level}", "--loss_scale=128", **npu)
    assert 0 < max(abs(a - b) for a, b in zip(exact, half, strict=True)) < 0.003
