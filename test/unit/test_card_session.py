"""tools/speed/card_session.sh, with stand-ins for Python, the clock and `timeout`: which parts run, for how long, and
what comes back."""

import io
import shlex
import tarfile

import pytest
from stub_python import StubPython

from conftest import ROOT, write_programs

SCRIPT = ROOT / "tools/speed/card_session.sh"
NOTES = {
    # The clock stands still, but each program that `timeout` starts takes as long as TAKES says.
    "date": '#!/bin/bash\ncat "$STUB_FOLDER/now"\n',
    "timeout": """#!/bin/bash
printf '%q ' "$@" >>"$STUB_FOLDER/limits"; echo >>"$STUB_FOLDER/limits"
shift 3
"$@" && code=0 || code=$?
echo $(($(<"$STUB_FOLDER/now") + ${TAKES:-0})) >"$STUB_FOLDER/now"
exit "$code"
""",
    "nproc": '#!/bin/bash\necho "${CORES:-2}"\n',
    "sleep": """#!/bin/bash
echo $(($(<"$STUB_FOLDER/now") + ${SLEEPS:-0})) >"$STUB_FOLDER/now"
/bin/sleep 0.01
""",
}
ALL = ["voice-infer", "waveglow-infer", "tacotron2-infer", "waveglow-train", "tacotron2-train"]


@pytest.fixture
def stub(tmp_path):
    stub = StubPython(tmp_path / "a stub")
    write_programs(stub.folder / "bin", NOTES)
    # Calls in the background are noted, too, so each by one write.
    python = stub.folder / "bin/python3"
    python.write_text("""#!/bin/bash
printf '%s' "$(printf '%q ' "$@")"$'\\n' >>"$STUB_FOLDER/asked"
[[ $1 != -c ]] || { [[ $2 != *shipped* ]] || eval "${SHIPS:-}"; exit 0; }
printf '%s|%s|%s\\n' "$PWD" "$PYTHONPATH" "$PYTHONUNBUFFERED" >>"$STUB_FOLDER/where"
eval "${DOES:-}"
""")
    return stub


@pytest.fixture
def session(stub, tmp_path):
    """Runs it; how it ended, the commands of the parts with their limits, and what was asked of Python."""
    (tmp_path / "my work").mkdir()

    def run(*arguments, **changes):
        for name in ("asked", "limits", "where"):
            (stub.folder / name).write_text("")
        (stub.folder / "now").write_text("1000\n")
        names = ("DEVICE", "SECONDS_IN_ALL", "HOURS", "PARTS", "PYTHONPATH", "LINES_SHOWN")
        given = arguments or ("my work", "my out")
        done = stub.run(SCRIPT, *given, cwd=tmp_path, **dict.fromkeys(names) | changes)
        limits = [shlex.split(line) for line in (stub.folder / "limits").read_text().splitlines()]
        asked = [shlex.split(line) for line in (stub.folder / "asked").read_text().splitlines()]
        return done, limits, asked

    return run


def results(tmp_path):
    """What each part wrote, by its name in the archive."""
    with tarfile.open(tmp_path / "my out/results.tar.gz") as archive:
        files = [each for each in archive.getmembers() if each.isfile()]
        return {each.name.removeprefix("results/"): archive.extractfile(each).read() for each in files}


def parts(tmp_path):
    return (tmp_path / "my out/parts.txt").read_text().splitlines()


def test_everything_in_its_order(session, stub, tmp_path):
    done, limits, asked = session()
    assert done.returncode == 0, done.stderr
    work = f"{tmp_path}/my work"
    names = ["versions", "tests", "profile", *ALL, "switches", "training"]
    assert [each[:2] for each in limits] == [["-k", "5"]] * len(names)
    assert [each[2] for each in limits] == ["60", "120", "90", *["75"] * 5, "100", "540"]
    commands = [each[3:] for each in limits]
    assert commands[1] == [
        "python3", "-m", "pytest", "-v", "--durations=15", "-p", "no:cacheprovider", "test/unit/test_on_cuda.py",
    ]  # fmt: skip
    results = f"{work}/results"
    assert commands[2] == ["python3", "-m", "tools.speed.kernels", f"{results}/profile", "--device=cuda"]
    for name, command in zip(ALL, commands[3:8], strict=True):
        assert command == [
            "python3", "tools/benchmark.py", name, "--device=cuda", "--one_process", "--limit=45", "--repeats=3",
            "--precision", "float32", "tf32", "half", "-o", f"{results}/{name}",
        ]  # fmt: skip
    assert commands[8] == [
        "python3", "-m", "tools.speed.switches", f"{results}/switches", "--device=cuda", "--limit=80",
    ]  # fmt: skip
    assert commands[9] == [
        "python3", "tools/train_voice.py", f"{work}/corpus", f"{work}/checkpoints", "--minutes=8",
        "--tacotron2=heart/tacotron2", "--device=cuda",
    ]  # fmt: skip
    assert ["tools/make_corpus.py", f"{work}/corpus", "--hours=22", "--jobs=2"] in asked
    expected = [f"== {name}: exit code 0 after 0 s, 540 s left" for name in names]
    expected.insert(2, "== corpus: exit code 0, 540 s left")
    assert parts(tmp_path) == expected
    assert done.stdout.splitlines()[-len(expected) :] == expected
    assert set((stub.folder / "where").read_text().splitlines()) == {f"{ROOT}|{work}/site|1"}


def test_each_part_s_output_lies_in_a_file_and_its_end_is_shown(session, tmp_path):
    done, *_ = session(PARTS="tests", DOES="seq 30; echo error >&2; printf 'half\\rwhole\\n'; exit 3", LINES_SHOWN="4")
    expected = [*map(str, range(1, 31)), "error", "half\rwhole"]
    assert results(tmp_path)["tests.log"].decode().split("\n")[:-1] == expected
    shown = ["30", "error", "half", "whole", "== tests: exit code 3 after 0 s, 540 s left"]
    assert done.stdout.splitlines()[1:6] == shown and done.returncode == 0
    assert parts(tmp_path)[-1] == shown[-1]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("tests", ["versions", "tests"]), ("corpus", ["versions", "corpus"]), ("benchmark", ["versions", *ALL]),
        ("training", ["versions", "training"]), ("tests corpus", ["versions", "tests", "corpus"]),
        ("profile", ["versions", "profile"]), ("switches", ["versions", "switches"]),
    ],
)  # fmt: skip
def test_parts_are_chosen(session, tmp_path, chosen, expected):
    session(PARTS=chosen)
    assert [line.split()[1].rstrip(":") for line in parts(tmp_path)] == expected


def test_a_try_on_the_cpu(session, tmp_path):
    _, limits, asked = session(DEVICE="cpu", HOURS="0.05", PARTS="tests corpus benchmark", CORES="8")
    (benchmark,) = [each for each in limits if "tools/benchmark.py" in each]
    assert "voice-infer" in benchmark and "--device=cpu" in benchmark
    # Three of many processors are left to the tests.
    assert ["tools/make_corpus.py", f"{tmp_path}/my work/corpus", "--hours=0.05", "--jobs=5"] in asked


@pytest.mark.parametrize(("cores", "jobs"), [("1", "1"), ("4", "4"), ("5", "2")])
def test_few_processors_all_make_the_corpus(session, cores, jobs):
    assert session(PARTS="corpus", CORES=cores)[2][-1][-1] == f"--jobs={jobs}"


def test_peers_are_measured_beside(session, tmp_path):
    (tmp_path / "my work/peers").mkdir()
    _, limits, _ = session(PARTS="benchmark", PYTHONPATH="/a:/b")
    for each in limits[1:]:
        assert each[-4:-2] == ["--peer_path", f"{tmp_path}/my work/peers"]


def test_wheels_are_installed_first_where_there_are_any(session, stub, tmp_path):
    (tmp_path / "my work/wheels").mkdir()
    assert session(PARTS="none")[1][0][2] == "60"
    for name in ("b.whl", "a.whl", "c.txt"):
        (tmp_path / "my work/wheels" / name).touch()
    work = f"{tmp_path}/my work"
    assert session(PARTS="tests", PYTHONPATH="/a:/b")[1][0] == [
        "-k", "5", "90", "python3", "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile",
        "--upgrade", "--target", f"{work}/site", f"{work}/wheels/a.whl", f"{work}/wheels/b.whl",
    ]  # fmt: skip
    assert (stub.folder / "where").read_text().splitlines()[-1] == f"{ROOT}|{work}/site:/a:/b|1"


def test_time_is_shared_out(session, tmp_path):
    """A part gets what is left at most, and none that is too short to begin; the training needs half a minute."""
    _, limits, _ = session(PARTS="tests benchmark", SECONDS_IN_ALL="130", TAKES="45")
    assert [each[2] for each in limits] == ["60", "85", "40"]
    assert parts(tmp_path) == [
        "== versions: exit code 0 after 45 s, 85 s left", "== tests: exit code 0 after 45 s, 40 s left",
        "== voice-infer: exit code 0 after 45 s, -5 s left", *[f"== {name}: no time left" for name in ALL[1:]],
    ]  # fmt: skip


def test_a_third_of_the_time_is_the_training_s(session):
    _, limits, _ = session(PARTS="tests benchmark training", SECONDS_IN_ALL="300", TAKES="50")
    assert [each[2] for each in limits] == ["60", "120", "75", "50", "100"]
    assert "tools/benchmark.py" in limits[-2] and "tools/train_voice.py" in limits[-1]


@pytest.mark.parametrize(("seconds", "minutes"), [("90", None), ("91", "0.516667"), ("240", "3")])
def test_the_training_gets_what_is_left_but_a_minute(session, seconds, minutes):
    _, limits, _ = session(PARTS="training", SECONDS_IN_ALL=seconds)
    given = [each for command in limits for each in command if each.startswith("--minutes")]
    assert given == ([f"--minutes={minutes}"] if minutes else [])


@pytest.mark.parametrize(("left", "limit"), [("5", None), ("6", "6")])
def test_what_would_have_five_seconds_is_left_out(session, left, limit):
    _, limits, _ = session(PARTS="none", SECONDS_IN_ALL=left)
    assert [each[2] for each in limits] == ([limit] if limit else [])


def test_a_corpus_that_takes_too_long_is_ended_a_minute_before_the_end(session, tmp_path):
    """It is looked at each second, of which the stand-in makes a hundred."""
    slow = "[[ $1 != tools/make_corpus.py ]] || exec /bin/sleep 50"
    session(PARTS="corpus", SECONDS_IN_ALL="350", DOES=slow, SLEEPS="100")
    assert parts(tmp_path)[1] == "== corpus: exit code 143, 50 s left"


def test_a_corpus_that_fails_is_told(session, tmp_path):
    session(PARTS="corpus training", DOES="echo why; echo not >&2; exit 4")
    assert parts(tmp_path)[1] == "== corpus: exit code 4, 540 s left"
    assert results(tmp_path)["corpus.log"] == b"why\nnot\n"


WRITE = """case $* in
    *kernels*) mkdir -p "$3"; head -c 20000000 /dev/urandom >"$3/job.json.gz"; echo table >"$3/job.md" ;;
    *train_voice*) mkdir -p "$3"; eval "$TRAINS" ;;
esac"""


def test_all_results_come_back_in_one_file_of_this_session(session, tmp_path):
    (tmp_path / "my work/results").mkdir()
    (tmp_path / "my work/results/of an earlier one").touch()
    session(PARTS="tests training", DOES='echo "$*"')
    found = results(tmp_path)
    assert sorted(found) == ["tests.log", "training.log", "versions.log"]
    assert sorted(path.name for path in (tmp_path / "my out").iterdir()) == ["parts.txt", "results.tar.gz"]


def test_traces_stay_where_they_are_too_large_to_come_back(session, tmp_path):
    session(PARTS="profile", DOES=WRITE)
    assert results(tmp_path) == {"versions.log": b"", "profile.log": b"", "profile/job.md": b"table\n"}
    assert parts(tmp_path)[-1] == "== results: without traces"


def test_the_newest_weights_of_each_model_come_back_in_pieces(session, tmp_path):
    trains = """for name in tacotron2_9 tacotron2_70 waveglow_1 waveglow_lock; do echo >"$3/$name"; done
        touch -d yesterday "$3/tacotron2_9" "$3/waveglow_lock" """
    ships = """for path in "${@:4}"; do head -c 17000000 /dev/urandom >"$3/$(basename "$path").safetensors"; done"""
    session(PARTS="training", DOES=WRITE, TRAINS=trains, SHIPS=ships)
    assert parts(tmp_path)[-2].startswith("== weights: exit code 0 ")
    assert parts(tmp_path)[-1] == "== weights: tacotron2_70 and waveglow_1 in 3 pieces"
    pieces = sorted(path for path in (tmp_path / "my out").iterdir() if "part_" in path.name)
    assert [path.name for path in pieces] == [f"weights.tar.part_a{letter}" for letter in "abc"]
    assert [path.stat().st_size for path in pieces[:2]] == [16000 * 1024] * 2
    whole = io.BytesIO(b"".join(path.read_bytes() for path in pieces))
    with tarfile.open(fileobj=whole) as archive:
        sizes = {each.name: each.size for each in archive if each.isfile()}
    assert sizes == {f"weights/{name}.safetensors": 17_000_000 for name in ("tacotron2_70", "waveglow_1")}


def test_weights_that_make_too_many_pieces_are_told(session, tmp_path):
    trains = 'touch "$3/tacotron2_1" "$3/waveglow_1"'
    session(
        PARTS="training", DOES=WRITE, TRAINS=trains, SHIPS='head -c 50000000 /dev/urandom >"$3/waveglow_1.safetensors"'
    )
    assert parts(tmp_path)[-1] == "== weights: more than the 3 pieces that come back"


def test_weights_that_were_not_made_are_no_pieces(session, tmp_path):
    trains = 'touch "$3/tacotron2_1" "$3/waveglow_1"'
    session(PARTS="training", DOES=WRITE, TRAINS=trains, SHIPS='touch "$3/tacotron2_1.safetensors"; exit 1')
    assert parts(tmp_path)[-1].startswith("== weights: exit code 1 ")
    assert sorted(path.name for path in (tmp_path / "my out").iterdir()) == ["parts.txt", "results.tar.gz"]


def test_a_training_that_leaves_one_model_returns_none(session, tmp_path):
    session(PARTS="training", DOES=WRITE, TRAINS='touch "$3/tacotron2_1"')
    assert parts(tmp_path)[-1].startswith("== training: exit code 0 ")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["-h"], 0), (["--help"], 0), (["--help", "x"], 0), (["-h", "x"], 0), (["x"], 2), (["x", "y", "z"], 2)],
)
def test_help(session, stub, arguments, code):
    done, limits, asked = session(*arguments)
    assert (done.returncode, limits, asked) == (code, [], [])
    assert done.stdout.startswith("Check, profile, measure and train on a machine with") and "#" not in done.stdout


def test_a_folder_that_cannot_be_made(session, tmp_path):
    (tmp_path / "file").touch()
    done, limits, _ = session("my work", "file/out")
    assert (done.returncode, limits) == (1, [])
