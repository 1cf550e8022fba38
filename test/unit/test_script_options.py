"""The scripts of test/: which program they start, with which options, in which environment; what they refuse."""

import re

import pytest
from stub_python import StubPython

from conftest import ROOT

DATA = ["--data_path=/data", "--output_directory=/out"]
LOGS = f"--log_directory={ROOT}/test/output"
EIGHT = ["--nproc_per_node=8", "--nnodes=1", "--node_rank=0", "--max_restarts=0"]


@pytest.fixture
def stub(tmp_path):
    return StubPython(tmp_path / "a stub")


SCRIPTS = {
    "train_full_8p.sh": (8, "train", {"--case=acc", "--resume=auto"}),
    "train_performance_8p.sh": (8, "train", {"--case=perf", "--resume=no", "--epochs=1"}),
    "train_performance_1p.sh": (1, "train", {"--case=perf", "--resume=no", "--epochs=1"}),
    "train_finetune_1p.sh": (1, "train", {"--case=acc", "--resume=auto", "--checkpoint_path=/w"}),
    "train_eval_8p.sh": (8, "infer", {"--case=acc", "--pth_path=/w"}),
}


@pytest.mark.parametrize("network", [None, "WaveGlow", "Tacotron2"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_what_each_script_starts(stub, script, network):
    processes, program, own = SCRIPTS[script]
    given = [f"--network={network}"] if network else []
    given += [each for each in own if "_path" in each]
    done = stub.script(script, *DATA, *given)
    assert done.returncode == 0, done.stderr
    call = stub.call
    assert call.folder == str(ROOT)
    assert call.module == f"{(network or 'WaveGlow').lower()}.{program}"
    assert call.launcher == (["-m", "common.launch", *EIGHT] if processes == 8 else [])
    out = "--output_directory=/out" + "/eval_w" * (program == "infer")
    assert call.options == own | {"--data_path=/data", out, LOGS}
    (started,) = (each for each in call.arguments if each.startswith("--started="))
    assert re.fullmatch(r"--started=1\d{9}", started)


def test_what_the_user_says_goes_before_what_a_script_says(stub):
    stub.script("train_performance_8p.sh", *DATA, "--epochs=3", "--resume=auto", "--nproc=2", "--case=x")
    assert stub.call.launcher == ["-m", "common.launch", "--nproc_per_node=2", *EIGHT[1:]]
    # Of two --epochs Python takes the last one.
    arguments = stub.call.arguments
    assert arguments.index("--epochs=1") < arguments.index("--epochs=3")
    assert "--resume=auto" in arguments and "--resume=no" not in arguments


def test_values_go_through_as_they_are(stub):
    odd = ["--a=1=2 3", "--b=", "--c", '--d="$HOME" *', "--e=ü"]
    stub.script("train_full_8p.sh", "--nproc=1", "--data_path=/a=b c", "--output_directory=/out", *odd)
    assert [each for each in stub.call.arguments if each in odd] == odd
    assert "--data_path=/a=b c" in stub.call.options


PATHS = [
    "data_path", "training_files", "mels_path", "output_directory", "checkpoint_path", "pth_path", "config", "symbols",
    "log_directory", "resume",
]  # fmt: skip


@pytest.mark.parametrize("name", PATHS)
def test_a_path_is_meant_from_where_the_user_stands(stub, tmp_path, name):
    (tmp_path / "here").mkdir()
    for given, meant in (("there/x", f"{tmp_path}/here/there/x"), ("/there", "/there")):
        stub.script("train_full_8p.sh", "--nproc=1", *DATA, f"--{name}={given}", cwd=tmp_path / "here")
        assert f"--{name}={meant}" in stub.call.options


@pytest.mark.parametrize(("value", "meant"), [("auto", "auto"), ("no", "no"), ("", "auto")])
def test_to_resume_or_not_is_no_path(stub, value, meant):
    stub.script("train_full_8p.sh", "--nproc=1", *DATA, f"--resume={value}")
    assert f"--resume={meant}" in stub.call.options


def test_an_option_without_a_value_counts_as_not_said(stub):
    """But for the Python program's own, which it judges itself."""
    names = ["nproc", "nnodes", "node_rank", "master_addr", "master_port", "max_restarts", "device_id", "network",
             "config", "symbols", "log_directory", "checkpoint_path"]  # fmt: skip
    done = stub.script("train_full_8p.sh", *DATA, *(f"--{name}=" for name in names), "--amp=")
    assert done.returncode == 0, done.stderr
    assert (stub.call.launcher, stub.call.module) == ([], "waveglow.train")
    assert stub.call.options == {*DATA, LOGS, "--case=acc", "--resume=auto", "--amp="}


@pytest.mark.parametrize(
    ("earlier", "meant"),
    [("", None), ("a", "{}/a"), ("/x/a,b", "/x/a,{}/b"), ("a b,/c,d", "{0}/a b,/c,{0}/d")],
)
def test_earlier_evaluations_are_folders_too(stub, tmp_path, earlier, meant):
    stub.script("train_eval_8p.sh", *DATA, "--pth_path=dir/waveglow_7.pt", f"--earlier={earlier}", cwd=tmp_path)
    options = stub.call.options
    assert {"--output_directory=/out/eval_waveglow_7.pt", f"--pth_path={tmp_path}/dir/waveglow_7.pt"} < options
    found = [each for each in options if each.startswith("--earlier")]
    assert found == ([f"--earlier={meant.format(tmp_path)}"] if meant else [])


# ---- processes and cards ----


@pytest.mark.parametrize(
    ("options", "launcher"),
    [
        (["--nproc=1"], None),
        (["--nproc=1", "--nnodes=1", "--node_rank=0", "--max_restarts=0"], None),
        (["--nproc=2"], ["2", "1", "0", "0"]),
        (["--nproc=1", "--nnodes=2"], ["1", "2", "0", "0"]),
        (["--nproc=1", "--nnodes=3", "--node_rank=2"], ["1", "3", "2", "0"]),
        (["--nproc=1", "--max_restarts=4"], ["1", "1", "0", "4"]),
        (["--nproc=9999"], ["9999", "1", "0", "0"]),
    ],
)
def test_several_processes_are_started_by_the_launcher(stub, options, launcher):
    done = stub.script("train_full_8p.sh", *DATA, *options)
    assert done.returncode == 0, done.stderr
    names = ["nproc_per_node", "nnodes", "node_rank", "max_restarts"]
    given = [f"--{name}={value}" for name, value in zip(names, launcher or [])]
    assert stub.call.launcher == (["-m", "common.launch", *given] if launcher else [])
    assert stub.call.options == {"--data_path=/data", "--output_directory=/out", LOGS, "--case=acc", "--resume=auto"}


def test_an_address_goes_to_the_launcher_alone(stub):
    for options in (["--master_addr=host"], ["--master_port=65535"], ["--master_addr=host", "--master_port=1"]):
        stub.script("train_full_8p.sh", *DATA, *options)
        assert stub.call.launcher[6:] == options
        assert not any("master" in each for each in stub.call.options)
        stub.script("train_full_8p.sh", *DATA, "--nproc=1", *options)
        assert stub.call.launcher == []


WRONG = [
    *(f"--{name}={value}" for name in ("nproc", "nnodes", "node_rank", "device_id", "max_restarts")
      for value in ("x", "01", "-1", "10000", "1.5")),
    "--nproc=0", "--nnodes=0", "--node_rank=1", "--master_port=0", "--master_port=65536", "--master_port=x",
    "--master_port=01", "--network=waveglow", "--device_id=1", "--data_path", "x", "-x",
]  # fmt: skip


@pytest.mark.parametrize("option", WRONG)
def test_a_wrong_option_is_refused_by_its_name(stub, option):
    done = stub.script("train_full_8p.sh", *DATA, option)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and option.partition("=")[0] in line
    if option in ("--nproc=0", "--nnodes=0"):
        assert line == "error: --nproc and --nnodes must be at least 1"
    assert not stub.calls


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--batch_size", "3"], "error: options are written --name=value, not 3"),
        (["--nproc"], "error: options are written --name=value, not --nproc"),
        (["--network=GPT"], "error: --network is GPT, must be WaveGlow or Tacotron2"),
        (["--nproc=two"], "--nproc must be a number"), (["--nproc=08"], "--nproc must be a number"),
        (["--master_port=99999"], "--master_port must"), (["--node_rank=1"], "must be below --nnodes"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_said_with_what_would_be_right(stub, options, said):
    done = stub.script("train_full_8p.sh", *DATA, *options)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, stub.calls) == (2, []) and said in line


def test_cards_are_chosen_for_one_process(stub):
    for options in (["--nproc=8"], ["--nproc=1", "--nnodes=2"]):
        done = stub.script("train_full_8p.sh", *DATA, *options, "--device_id=3")
        assert (done.returncode, stub.calls) == (2, [])
        processes = options[0].partition("=")[2]
        last = int(processes) - 1
        assert f"--device_id is for one process; {processes} processes take cards 0 to {last}" in done.stderr
    stub.script("train_full_8p.sh", *DATA, "--nproc=1", "--device_id=3")
    assert "--device_id=3" in stub.call.options


@pytest.mark.parametrize("given", [[], ["--device_id=5"]])
def test_the_port_s_variable_goes_before_the_option(stub, given):
    done = stub.script("train_performance_1p.sh", *DATA, *given, ASCEND_DEVICE_ID="2")
    assert "--device_id=2" in stub.call.options
    assert "device id is 2, as ASCEND_DEVICE_ID says" in done.stdout.splitlines()
    for options in ([], ["--nproc=1", "--nnodes=2"]):  # of several processes each has its own
        assert stub.script("train_full_8p.sh", *DATA, *options, ASCEND_DEVICE_ID="2").returncode == 0
        assert not any("device_id" in each for each in stub.call.options)
    for wrong in ("npu:1", "01", "10000"):
        done = stub.script("train_performance_1p.sh", *DATA, ASCEND_DEVICE_ID=wrong)
        assert (done.returncode, stub.calls) == (2, [])
        assert done.stderr == f"error: ASCEND_DEVICE_ID must be a number up to 9999, not {wrong}\n"


# ---- the environment ----


def test_several_processes_share_the_cores(stub):
    for options, own, expected in (
        (["--nproc=2"], None, "1"), (["--nproc=2"], "0", "0"), (["--nproc=1"], None, None), (["--nproc=1"], "2", "2"),
        (["--nproc=1", "--nnodes=2"], None, None),
    ):  # fmt: skip
        stub.script("train_full_8p.sh", *DATA, *options, CPU_AFFINITY_CONF=own)
        assert stub.call.environment.get("CPU_AFFINITY_CONF") == expected


def test_what_an_earlier_launch_left_is_gone(stub):
    left = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT",
            "TORCHELASTIC_RUN_ID", "TORCHELASTIC_MAX_RESTARTS"]  # fmt: skip
    for processes in (1, 2):
        stub.script("train_full_8p.sh", *DATA, f"--nproc={processes}", **dict.fromkeys(left, "7"))
        assert not set(left) & stub.call.environment.keys()


@pytest.mark.parametrize(("flag", "sets"), [(None, True), ("false", True), ("true", False)])
def test_the_ascend_port_s_flag_says_that_the_environment_is_set(stub, tmp_path, flag, sets):
    (tmp_path / "a stub/Ascend/cann").mkdir(parents=True)
    (tmp_path / "a stub/Ascend/cann/set_env.sh").write_text("export FOUND=1\n")
    stub.script("train_performance_1p.sh", *DATA, etp_running_flag=flag)
    assert stub.call.environment.get("FOUND") == ("1" if sets else None)


def test_logs_lie_where_they_are_wanted(stub, tmp_path):
    stub.script("train_performance_1p.sh", *DATA, "--log_directory=logs", cwd=tmp_path)
    assert f"--log_directory={tmp_path}/logs" in stub.call.options


# ---- ends ----


def test_what_a_script_cannot_do_without_must_be_said(stub):
    required = {
        "train_full_8p.sh": ["data_path", "output_directory"],
        "train_performance_1p.sh": ["data_path", "output_directory"],
        "train_performance_8p.sh": ["data_path", "output_directory"],
        "train_finetune_1p.sh": ["data_path", "checkpoint_path", "output_directory"],
        "train_eval_8p.sh": ["data_path", "pth_path", "output_directory"],
    }
    for script, names in required.items():
        for missing in names:
            done = stub.script(script, *(f"--{name}=/x" for name in names if name != missing), f"--{missing}=")
            assert (done.returncode, stub.calls) == (1, [])
            assert done.stderr == f'[Error] para "{missing}" must be configured: --{missing}=...\n'
    assert stub.script("train_full_8p.sh", "--training_files=/x", "--output_directory=/out").returncode == 0
    assert stub.script("train_eval_8p.sh", "--training_files=/x", "--output_directory=/out").returncode == 1
    done = stub.script("train_eval_8p.sh", "--data_path=/x", "--int8")
    assert (done.returncode, done.stderr) == (1, '[Error] para "pth_path" must be configured: --pth_path=...\n')


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(("does", "code", "signal"), [("exit 0", 0, 0), ("exit 75", 75, 0), ("kill -9 $$", 137, 9)])
def test_a_script_ends_as_its_program_does(stub, processes, does, code, signal):
    done = stub.script("train_full_8p.sh", *DATA, f"--nproc={processes}", DOES=does)
    assert done.returncode == code
    said = [line for line in done.stderr.splitlines() if line.startswith("error")]
    # The launcher says itself which rank it was.
    assert said == [f"error: the process was ended by signal {signal}"] * (signal > 0 and processes == 1)


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_the_head_the_launcher_s_and_the_program_s(stub, option):
    done = stub.script("train_eval_8p.sh", option, "--network=Tacotron2", DOES="echo usage; exit 0")
    assert done.returncode == 0
    assert stub.call.arguments == ["-m", "tacotron2.infer", "--help"] and stub.call.folder == str(ROOT)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Synthesize the held-back clips") and lines[-1] == "usage"
    assert any(line.strip().startswith("--network=WaveGlow|Tacotron2") for line in lines)
    assert not any(line.startswith("#") for line in lines)
    assert stub.script("train_full_8p.sh", option, "--network=x").returncode == 2


def test_without_torch_it_is_said_how_to_get_it(stub):
    done = stub.script("train_performance_1p.sh", *DATA, HAS_NO_TORCH="1")
    assert (done.returncode, stub.calls) == (1, [])
    assert "error: python has no torch: pip install -r " in done.stderr and "test/demo.sh" in done.stderr
