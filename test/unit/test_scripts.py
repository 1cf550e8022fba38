"""The user's scripts, run as a user runs them, on the CPU and at toy size."""

import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest
import soundfile
from running_programs import listen_to_signals, wait_for

from common.checkpoints import native
from conftest import make_corpus, run_script, script_environment, toy_config, toy_tacotron2_config, write_config

RESULT_KEYS = [
    "Network", "RankSize", "BatchSize", "DeviceType", "CaseName", "ActualFPS", "TrainingTime", "TrainAccuracy",
    "ActualLoss", "E2ETrainingTime", "ActualSamplesPerSec",
]  # fmt: skip


@pytest.fixture
def place(checkout, config, tmp_path):
    """(checkout, options every training run needs); all paths have blanks."""
    corpus = make_corpus(checkout / "a corpus")
    path = write_config(checkout / "a config.json", config[1])
    return checkout, [f"--data_path={corpus}", f"--config={path}", "--output_directory=my out", "--device=cpu"]


def result(path):
    return dict(line.split(" = ") for line in path.read_text().splitlines())


def losses(log):
    return [float(x) for x in re.findall(r"^\d+:\tloss:(\S+)\ttime:\S+\t$", log.read_text(), re.MULTILINE)]


def test_train_finetune_evaluate(place):
    """The way a user goes, from the root and from test/."""
    checkout, options = place
    output = checkout / "test/output/0"
    done = run_script(checkout, "train_performance_1p.sh", *options)
    assert done.returncode == 0, done.stderr
    log = output / "train_0.log"
    assert len(losses(log)) == 3  # an epoch: 12 clips, 4 at a time
    assert re.search(r"^Epoch 0 FPS:[\d.]+$", log.read_text(), re.MULTILINE)
    perf = result(output / "WaveGlow_for_PyTorch_bs4_1p_perf.log")
    assert list(perf) == RESULT_KEYS and perf["TrainAccuracy"] == perf["ActualLoss"]
    assert float(perf["TrainingTime"]) == pytest.approx(4 * 1000 / float(perf["ActualFPS"]), rel=1e-2)
    assert float(perf["ActualLoss"]) == losses(log)[-1]
    assert [float(x) for x in (output / "train_WaveGlow_for_PyTorch_bs4_1p_perf_loss.txt").open()] == losses(log)
    final = done.stdout.splitlines()[-4:]
    assert final[0] == "------------------ Final result ------------------"
    assert final[1] == f"Final Performance images/sec : {perf['ActualFPS']}"
    assert final[2] == f"Final Train Accuracy : {perf['ActualLoss']}"
    assert re.fullmatch(r"E2E Training Duration sec : \d+", final[3])

    trained = checkout / "my out/waveglow_3"
    done = run_script(checkout, "train_finetune_1p.sh", *options, f"--checkpoint_path={trained}", "--max_steps=2")
    assert done.returncode == 0, done.stderr
    assert list(result(output / "WaveGlow_for_PyTorch_bs4_1p_acc.log")) == RESULT_KEYS
    # the log of the first run is still there
    (earlier,) = checkout.glob("test/output/0_*")
    assert len(losses(earlier / "train_0.log")) == 3

    evaluate = [options[0], "--output_directory=../my out", "--pth_path=../my out/waveglow_5", "--nproc=1"]
    done = run_script(checkout, "train_eval_8p.sh", *evaluate, cwd=checkout / "test")
    assert done.returncode == 0, done.stderr
    folder = checkout / "my out/eval_waveglow_5"
    assert soundfile.info(folder / "clip00_synthesis.wav").frames > 0
    assert json.loads((folder / "evaluation.json").read_text())["clips"][0]["name"] == "clip00"
    assert (folder / "index.html").is_file()
    acc = result(output / "WaveGlow_for_PyTorch_bs4_1p_acc.log")
    assert list(acc) == RESULT_KEYS
    assert done.stdout.splitlines()[-4:][0] == final[0]


@pytest.mark.slow
def test_two_processes_follow_one(place):
    """20 steps of 2 processes with half the batch each: the same losses to 1e-4, each rank with its log."""
    checkout, options = place
    done = run_script(checkout, "train_performance_1p.sh", *options, "--epochs=9", "--max_steps=20")
    assert done.returncode == 0, done.stderr
    one = losses(checkout / "test/output/0/train_0.log")
    two = ["--epochs=9", "--max_steps=20", "--batch_size=2", "--nproc=2"]
    done = run_script(checkout, "train_performance_8p.sh", *options, *two)
    assert done.returncode == 0, done.stderr
    logs = [losses(checkout / f"test/output/{rank}/train_{rank}.log") for rank in (0, 1)]
    assert len(one) == len(logs[0]) == 20
    assert logs[0] == logs[1]
    assert logs[0] == pytest.approx(one, abs=1e-4)
    assert result(checkout / "test/output/0/WaveGlow_for_PyTorch_bs2_2p_perf.log")["RankSize"] == "2"
    pth = ["--pth_path=my out/waveglow_20", "--nproc=2"]
    done = run_script(checkout, "train_eval_8p.sh", options[0], options[2], options[3], *pth)
    assert done.returncode == 0, done.stderr


def started(checkout, script, *options):
    return subprocess.Popen(
        ["bash", str(checkout / "test" / script), *options],
        cwd=checkout, env=script_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=listen_to_signals,
    )  # fmt: skip


def wait_for_step(log, process, step=2, seconds=240):
    """Until the log shows a training step."""
    wait_for(lambda: log.is_file() and len(losses(log)) >= step, seconds, process)


def ranks_of(checkout):
    """Process ids of this checkout's ranks, by rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text()
            if "waveglow.train" in command and "common.launch" not in command and str(checkout) in command:
                rank = re.search(r"\0RANK=(\d+)", (folder / "environ").read_text())
                found.setdefault(int(rank[1]) if rank else 0, int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
@pytest.mark.slow
def test_ctrl_c_and_a_closed_terminal_leave_nothing_running(place, number, code):
    checkout, options = place
    process = started(checkout, "train_full_8p.sh", *options, "--nproc=1", "--epochs=9999", "--workers=1")
    wait_for_step(checkout / "test/output/0/train_0.log", process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == code, errors
    assert not ranks_of(checkout)
    steps = len(losses(checkout / "test/output/0/train_0.log"))
    assert (checkout / f"my out/waveglow_{steps}").is_file()


@pytest.mark.parametrize("nproc", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_sigterm_ends_with_a_checkpoint_and_code_0(place, nproc):
    checkout, options = place
    process = started(checkout, "train_full_8p.sh", *options, f"--nproc={nproc}", "--batch_size=2", "--epochs=9999")
    wait_for_step(checkout / "test/output/0/train_0.log", process)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    steps = len(losses(checkout / "test/output/0/train_0.log"))
    assert native.load(checkout / f"my out/waveglow_{steps}")["iteration"] == steps
    assert "stopped at iteration" in errors
    assert "Final result" in output


@pytest.mark.slow
def test_a_rank_that_dies_is_named_and_ends_the_run(place):
    checkout, options = place
    two = ["--nproc=2", "--batch_size=2", "--epochs=9999", "--workers=1"]
    process = started(checkout, "train_full_8p.sh", *options, *two)
    wait_for_step(checkout / "test/output/1/train_1.log", process)
    os.kill(ranks_of(checkout)[1], signal.SIGKILL)
    output, errors = process.communicate(timeout=240)  # hang_limit is half an hour
    assert process.returncode == 128 + signal.SIGKILL
    assert re.search(r"^error: rank 1 failed: Signal 9 \(SIGKILL\)", errors, re.MULTILINE)
    assert "Final result" not in output
    assert not ranks_of(checkout)


@pytest.mark.slow
def test_an_error_on_one_rank_is_told_once_with_its_reason(place):
    """Rank 1 alone meets the broken clip, since it looks at every second one, and all ranks end."""
    checkout, options = place
    wavs = sorted((checkout / "a corpus/wavs").iterdir())
    wavs[4].write_bytes(b"broken")  # the held-back clip comes last, so clips of even number are rank 1's
    done = run_script(checkout, "train_full_8p.sh", *options, "--nproc=2", "--batch_size=2")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert re.match(r"error: rank [01] failed: 1 of 13 clips cannot be used", line)
    assert wavs[4].name in line


WRONG = [
    ("train_full_8p.sh", ["--bath_size=3"], "unrecognized arguments: --bath_size=3"),
    ("train_full_8p.sh", ["--batch_size=many", "--nproc=1"], "argument --batch_size: invalid int value: 'many'"),
    ("train_eval_8p.sh", ["--int8=1", "--pth_path=x"], "argument --int8: ignored explicit argument '1'"),
]


@pytest.mark.parametrize(("script", "options", "message"), WRONG)
def test_the_program_refuses_wrong_options_before_ranks_are_started(place, script, options, message):
    checkout, given = place
    needed = [option for option in given if not option.startswith("--config")]
    done = run_script(checkout, script, *needed, *options)
    assert (done.returncode, done.stderr) == (2, f"error: {message} (--help lists the options)\n")


def test_help_is_the_head_and_that_of_the_program(checkout):
    done = run_script(checkout, "train_eval_8p.sh", "--help", "--network=Tacotron2")
    assert done.returncode == 0, done.stderr
    head, program = done.stdout.split("usage: ")
    assert "bash test/train_eval_8p.sh" in head and "--nproc=N" in head
    assert "--pth_path FILE" in program and "--sigma" not in program  # which is WaveGlow's
    done = run_script(checkout, "demo.sh", "--help")
    assert done.returncode == 0, done.stderr
    assert "bash test/demo.sh" in done.stdout and "usage: " not in done.stdout


def test_a_full_disk_ends_the_run_and_keeps_what_is_there(place):
    checkout, options = place
    assert run_script(checkout, "train_full_8p.sh", *options, "--nproc=1", "--max_steps=1").returncode == 0
    saved = checkout / "my out/waveglow_1"
    content = saved.read_bytes()
    limit = len(content) // 1024 // 2
    script = ["bash", "-c", f'ulimit -f {limit}; exec bash "$@"', "-", str(checkout / "test/train_full_8p.sh")]
    done = subprocess.run(
        [*script, *options, "--nproc=1", "--max_steps=3"],
        cwd=checkout, env=script_environment(), capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 1
    assert re.search(r"error: cannot save .*waveglow_3: File too large", done.stderr)
    assert saved.read_bytes() == content
    assert [p.name for p in saved.parent.iterdir()] == ["waveglow_1"]


@pytest.mark.slow
def test_two_nodes_on_one_machine(place):
    """--nnodes, --node_rank, --master_addr and --master_port reach torchrun."""
    checkout, options = place
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    several = ["--nnodes=2", "--nproc=1", "--master_addr=127.0.0.1", f"--master_port={port}", "--batch_size=2"]
    nodes = [
        started(checkout, "train_performance_8p.sh", *options, *several, f"--node_rank={rank}", "--max_steps=2")
        for rank in (0, 1)
    ]
    for node in nodes:
        _, errors = node.communicate(timeout=240)
        assert node.returncode == 0, errors
    logs = [losses(checkout / f"test/output/{rank}/train_{rank}.log") for rank in (0, 1)]
    assert len(logs[0]) == 2
    assert logs[0] == logs[1]


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        (["--output_directory=/proc/nothing"], 1, "error: cannot write to output_directory /proc/nothing"),
        (["--checkpoint_path=/nowhere/waveglow_1"], 1, "error: no checkpoint at /nowhere/waveglow_1"),
    ],
)
def test_bad_input_is_one_line(place, changes, code, message):
    checkout, options = place
    done = run_script(checkout, "train_full_8p.sh", *options, "--nproc=1", *changes)
    assert done.returncode == code
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert line.startswith(message)
    assert "Traceback" not in done.stderr + done.stdout


def test_the_log_lies_where_the_port_s_variable_says(place):
    checkout, options = place
    done = run_script(
        checkout, "train_performance_1p.sh", *options, "--device_id=1", "--max_steps=1", ASCEND_DEVICE_ID="2"
    )
    assert done.returncode == 0, done.stderr
    assert "device id is 2, as ASCEND_DEVICE_ID says" in done.stdout.splitlines()
    assert (checkout / "test/output/2/train_2.log").is_file() and not (checkout / "test/output/1").exists()


TOYS = {"waveglow": toy_config, "tacotron2": toy_tacotron2_config}


@pytest.mark.slow
@pytest.mark.parametrize("network", ["WaveGlow", "Tacotron2"])
def test_a_file_list_through_the_script(checkout, tmp_path, network):
    """Its paths are relative to the list."""
    make_corpus(tmp_path / "data", clips=4)
    lines = [f"wavs/clip0{i}.wav" + "|A tone." * (network == "Tacotron2") for i in range(4)]
    (tmp_path / "data/list.txt").write_text("\n".join(lines))
    values = TOYS[network.lower()]()
    values["train_config"]["batch_size"] = 2
    options = [
        "--nproc=1", "--output_directory=out", "--max_steps=1", "--device=cpu", f"--network={network}",
        "--training_files=data/list.txt",
    ]  # fmt: skip
    config = write_config(tmp_path / "config.json", values)
    done = run_script(checkout, "train_full_8p.sh", *options, f"--config={config}", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "data: 4 clips" in done.stdout
    both = run_script(checkout, "train_full_8p.sh", *options, "--data_path=data", cwd=tmp_path)
    assert both.returncode == 1 and "not both" in both.stderr
