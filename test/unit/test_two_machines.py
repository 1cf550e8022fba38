"""Two machines: two launchers on two loopback addresses, each with its checkout, corpus and output directory."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import torch

from common.checkpoints import native
from conftest import copy_repository, make_corpus, script_environment, toy_config, write_config

STEPS = 8
LIMIT = 600
"hang_limit; beyond the time that these tests wait: a machine that is left alone ends long before."


class Machine:
    """A checkout with disks of its own."""

    def __init__(self, folder: Path, number: int):
        self.checkout = copy_repository(folder / f"machine {number}")
        self.output = self.checkout / "out"
        corpus = make_corpus(self.checkout / f"corpus {number}")
        values = toy_config()
        values["train_config"] |= {"iters_per_checkpoint": 1, "keep_checkpoints": 0, "batch_size": 2}
        config = write_config(self.checkout / "config.json", values)
        self.options = [
            f"--config={config}", f"--data_path={corpus}", f"--output_directory={self.output}", "--device=cpu",
            "--workers=0", f"--hang_limit={LIMIT}",
        ]  # fmt: skip
        self.environment = script_environment() | {"PET_LOCAL_ADDR": f"127.0.0.{number}"}

    def start(self, *options: str) -> subprocess.Popen:
        command = ["bash", str(self.checkout / "test/train_full_8p.sh"), *self.options, *options]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def processes(self) -> dict[int, str]:
        """The commands of this machine's launcher and ranks, by process id."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_text()
            except OSError:
                continue
            if str(self.output) in command and "waveglow.train" in command:
                found[int(folder.name)] = command
        return found

    def saved(self) -> list[int]:
        return [int(path.name.rpartition("_")[2]) for path in native.newest_first(self.output, "waveglow")]


@pytest.fixture
def machines(tmp_path):
    return [Machine(tmp_path, number) for number in (1, 2)]


def start_both(first: Machine, second: Machine, *options: str) -> list[subprocess.Popen]:
    """As the user does on each: the first machine is where --master_addr leads."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = first.environment["PET_LOCAL_ADDR"]
    common = [*options, "--nproc=1", "--nnodes=2", f"--master_addr={address}", f"--master_port={port}"]
    return [machine.start(*common, f"--node_rank={rank}") for rank, machine in enumerate((first, second))]


def ended(processes: list[subprocess.Popen]) -> list[tuple[int, str]]:
    """Exit code and errors of each."""
    errors = [process.communicate(timeout=200)[1] for process in processes]
    return [(process.returncode, said) for process, said in zip(processes, errors)]


def kill_launcher(machine: Machine, running: list[subprocess.Popen], first: Machine) -> None:
    """As soon as the first machine has written a checkpoint."""
    deadline = time.monotonic() + 200
    while not first.saved():
        assert time.monotonic() < deadline and all(process.poll() is None for process in running), ended(running)
        time.sleep(0.05)
    (launcher,) = [number for number, command in machine.processes().items() if "common.launch" in command]
    os.kill(launcher, signal.SIGKILL)


@pytest.mark.slow
def test_two_machines_equal_one_and_go_on_after_the_death_of_a_launcher(machines, tmp_path):
    first, second = machines
    running = start_both(first, second, "--epochs=1000")
    kill_launcher(second, running, first)
    (code, errors), (_, errors_of_second) = ended(running)
    assert code == 1, errors
    assert re.search(rf"error: rank 0 failed: .*rank 1 \({re.escape(socket.gethostname())}\) does not answer", errors)
    assert not first.processes() and not second.processes(), errors_of_second
    assert first.saved() and not second.saved()  # the first rank writes

    # Started again in the other order: the checkpoint is on the disk of what is now the second rank.
    reached = first.saved()[0]
    assert reached < 1000
    done = ended(start_both(second, first, f"--max_steps={reached + STEPS}"))
    assert [code for code, _ in done] == [0, 0], done
    assert second.saved()[0] == reached + STEPS and first.saved()[0] == reached
    alone = Machine(tmp_path, 3)
    ((code, errors),) = ended([alone.start("--nproc=2", f"--max_steps={reached + STEPS}")])
    assert code == 0, errors
    ours, theirs = (native.load(each.output / f"waveglow_{reached + STEPS}") for each in (second, alone))
    assert ours["progress"]["losses"] == theirs["progress"]["losses"]
    assert all(torch.equal(ours["model"][name], theirs["model"][name]) for name in theirs["model"])


@pytest.mark.slow
def test_the_first_machine_s_death_is_named_by_the_second(machines):
    first, second = machines
    running = start_both(first, second, "--epochs=1000")
    kill_launcher(first, running, first)
    _, (code, errors) = ended(running)
    assert code == 1
    assert re.search(r"error: rank 1 failed: .*the machine of rank 0 \(.+, 127\.0\.0\.1\) does not answer", errors)
    assert not first.processes() and not second.processes()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["batch size", "clips", "a sample", "code"])
def test_a_machine_that_is_not_like_the_other_is_named(machines, what):
    first, second = machines
    if what == "batch size":
        values = json.loads((second.checkout / "config.json").read_text())
        values["train_config"]["batch_size"] = 3
        write_config(second.checkout / "config.json", values)
        said = "train_config.batch_size is 2 on rank 0, 3 on rank 1"
    elif what == "clips":
        (second.checkout / "corpus 2/wavs/clip12.wav").unlink()
        (second.checkout / "corpus 2/metadata.csv").unlink()
        said = "the corpus' number of clips is 13 on rank 0, 12 on rank 1"
    elif what == "a sample":
        with open(second.checkout / "corpus 2/wavs/clip07.wav", "r+b") as file:
            file.seek(100)
            file.write(b"\x55")
        said = r"clip \d+, clip07.wav, is '\w+' on rank 0, '\w+' on rank 1"
    else:
        with open(second.checkout / "waveglow/loss.py", "a") as file:
            file.write("# mine\n")
        said = r"the code in waveglow/loss.py is '\w+' on rank 0, '\w+' on rank 1"
    for code, errors in ended(start_both(first, second, "--max_steps=2")):
        assert code == 1
        assert re.search(rf"error: rank [01] failed: the processes disagree: {said}", errors), errors
    assert not first.saved()
