"""test/demo.sh: its stages in their order, with programs that make only what the next stage needs."""

import subprocess
import sys

import pytest
from stub_python import StubPython

from conftest import ROOT

MAKES = r"""
option() { for each in "${@:2}"; do [[ $each != "--$1="* ]] || echo "${each#*=}"; done | tail -n 1; }
out=$(option output_directory "$@") last=$(option max_steps "$@")
case "$*" in
    *"-m waveglow.train"*) mkdir -p "$out"; [[ -n ${STOPS:-} ]] || touch "$out/waveglow_$last" ;;
    *"-m waveglow.infer"*) mkdir -p "$out"; touch "$out/index.html" ;;
esac
"""
SPOKEN = "This voice was trained by the programs of this repository."


@pytest.fixture
def stub(tmp_path):
    return StubPython(tmp_path / "a stub")


@pytest.fixture
def demo(stub, tmp_path):
    def run(*options, amp="O1", **changes):
        answer = f'{{ echo "$3" >"$STUB_FOLDER/device"; echo {amp}; exit; }}'
        asks = f"[[ $1 != -c || $2 != *is_slow_in_half* ]] || {answer}\n"
        for name in ("python", "python3"):
            path = stub.folder / "bin" / name
            head, _, rest = path.read_text().partition("\n")
            if "is_slow_in_half" not in rest:
                path.write_text(f"{head}\n{asks}{rest}")
        return stub.script("demo.sh", f"--output_directory={tmp_path}/out", *options, DOES=MAKES, CI="1", **changes)

    return run


def programs(stub, tmp_path):
    """The calls without pip's, each as its program and those of its options that are not the same for all."""
    calls = [call.arguments for call in stub.calls if "pip" not in call.arguments]
    return [[each.replace(str(tmp_path), "T").replace(str(ROOT), "R") for each in arguments] for arguments in calls]


def test_the_stages(demo, stub, tmp_path):
    done = demo("--text=Own words.", "--device=cpu", "--max_steps=20")
    assert done.returncode == 0, done.stderr
    assert (stub.folder / "device").read_text() == "cpu\n"
    calls = programs(stub, tmp_path)
    assert calls[:3] == [
        ["tools/synthesize.py", SPOKEN, "--device=cpu", "-o", "T/out/speech.wav"],
        ["tools/synthesize.py", "Own words.", "--device=cpu", "-o", "T/out/your_text.wav"],
        ["tools/make_corpus.py", "T/out/corpus", "--hours=1"],
    ]
    first, second, at_1, at_20, speaks, finetunes, at_100 = (set(call) for call in calls[3:])
    training = {"waveglow.train", "--device=cpu", "--data_path=T/out/corpus", "--output_directory=T/out/waveglow",
                "--config=R/configs/waveglow_demo.json", "--amp=O1"}  # fmt: skip
    assert training | {"--max_steps=1"} <= first and training | {"--max_steps=20"} <= second
    page = {"waveglow.infer", "--device=cpu", "--data_path=T/out/corpus"}
    assert page | {"--pth_path=T/out/waveglow/waveglow_1", "--output_directory=T/out/waveglow/eval_waveglow_1"} <= at_1
    assert not any(each.startswith("--earlier") for each in at_1)
    assert page | {"--pth_path=T/out/waveglow/waveglow_20", "--earlier=T/out/waveglow/eval_waveglow_1"} <= at_20
    assert speaks == {
        "tools/synthesize.py", SPOKEN, "--tacotron2", "voices/heart/tacotron2.safetensors", "--waveglow",
        "T/out/waveglow/waveglow_20", "--device=cpu", "-o", "T/out/speech_after_minutes.wav",
    }  # fmt: skip
    sentences = "--data_path=R/test/data/corpus"
    assert {"waveglow.train", sentences, "--output_directory=T/out/finetuned", "--config=R/configs/waveglow_demo.json",
            "--checkpoint_path=R/voices/heart/waveglow.safetensors", "--max_steps=100", "--learning_rate=3e-4",
            "--amp=O1", "--device=cpu"} <= finetunes  # fmt: skip
    assert {sentences, "--pth_path=T/out/finetuned/waveglow_100"} <= at_100
    assert not any("common.launch" in call for call in calls)
    said = done.stdout.splitlines()
    assert next(line for line in said if line.startswith("== ")).startswith("== 1 of 6: ")
    for place in ("speech.wav", "your_text.wav", "speech_after_minutes.wav", "waveglow/eval_waveglow_20/index.html",
                  "finetuned/eval_waveglow_100/index.html"):  # fmt: skip
        assert any(line.endswith(f"{tmp_path}/out/{place}") for line in said), place


def test_without_options(demo, stub, tmp_path):
    assert demo(amp="O0").returncode == 0
    calls = programs(stub, tmp_path)
    assert not any("your_text" in " ".join(call) for call in calls)
    assert [each for call in calls for each in call if each.startswith(("--max_steps", "--amp"))].count("--amp=O0") == 3
    assert "--max_steps=1050" in {each for call in calls for each in call}
    assert (stub.folder / "device").read_text() == "auto\n"


def test_the_newest_checkpoints_are_taken_by_their_numbers(demo, stub, tmp_path):
    """Of an earlier run there may be others."""
    for name in ("waveglow/waveglow_9", "waveglow/waveglow_100", "finetuned/waveglow_99"):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).touch()
    assert demo("--max_steps=20").returncode == 0
    pages = [each for call in programs(stub, tmp_path) for each in call if each.startswith("--pth_path")]
    assert [page.rpartition("/")[2] for page in pages] == [f"waveglow_{n}" for n in (1, 9, 20, 100)] + ["waveglow_100"]


def test_a_stage_that_was_stopped_ends_it_well(demo, stub, tmp_path):
    done = demo(STOPS="1")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "stopped; the same command goes on from here"
    assert len([call for call in programs(stub, tmp_path) if "waveglow.train" in call]) == 1


@pytest.mark.parametrize(("option", "name"), [("--nonsense=1", "--nonsense=1"), ("--nproc=2", "--nproc=2")])
def test_an_option_that_it_does_not_know_is_refused(demo, stub, option, name):
    done = demo(option)
    assert (done.returncode, stub.calls) == (2, [])
    assert done.stderr == f"error: unknown option {name} (--help lists the options)\n"


@pytest.mark.parametrize(("is_slow", "amp"), [(True, "O0"), (False, "O1")])
def test_a_processor_that_is_slow_in_half_trains_in_float32(tmp_path, is_slow, amp):
    script = (ROOT / "test/demo.sh").read_text()
    code = script.partition("amp=$(python -c '")[2].partition("' ")[0]
    for module, text in {
        "common/device.py": "def pick_device(name):\n    return name + '!'\n",
        "common/layers/matmul.py": f"def is_slow_in_half(device):\n    return {is_slow} and device == 'auto!'\n",
    }.items():
        (tmp_path / module).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / module).write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", code, "auto"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == f"{amp}\n", done.stderr


def test_help_starts_nothing(stub):
    done = stub.script("demo.sh", "--help")
    assert done.returncode == 0 and stub.calls == []
    assert "--max_steps=N" in done.stdout
