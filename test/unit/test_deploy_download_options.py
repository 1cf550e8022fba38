"""Which checkpoints get_datasets_and_models.sh takes, from where, and what becomes of those that are there."""

import hashlib
import os
import sys
import time

import pytest
from deploy_downloads import CHECKPOINTS, TACOTRON2, WAVEGLOW, get
from file_server import serve
from folder_holders import end_holder, start_holder

from conftest import ROOT, script_environment, write_programs

PYTHON = """#!/bin/bash
[[ "$1 $2" != "-m common.folder_lock" || -n ${{LOCKS:-}} ]] || exec "${{@:4}}"
[[ $1 == -c ]] || exec {python} "$@"
case $2 in
    *find_voice*) printf '%s\\n' {voices}/"$3"/tacotron2 {voices}/"$3"/waveglow ;;
    *interchange*) echo "$3 $4" >>{checked}; [[ -z ${{REFUSED:-}} || $4 != *"$REFUSED"* ]] ;;
esac
"""


class Fetching:
    """Runs the script with small files, and a Python that takes every file for a checkpoint but those of REFUSED.
    The lock of the folder, which takes longest, is left out but for LOCKS."""

    def __init__(self, root):
        self.root, self.folder, self.checked = root, root / "my models", root / "checked"
        self.checkpoints = self.folder / "checkpoints"
        text = PYTHON.format(python=sys.executable, voices=root / "voices", checked=self.checked)
        write_programs(root / "bin", {"python": text})
        for name in ("tacotron2", "waveglow"):
            for place in ("given", "voices/heart"):
                (root / place).mkdir(parents=True, exist_ok=True)
                (root / place / name).write_text(f"{place} {name}")
        self.given = [f"--{name}={root}/given/{name}" for name in ("tacotron2", "waveglow")]

    def __call__(self, *options, **changes):
        self.checked.write_text("")
        path = {"PATH": f"{self.root}/bin:{script_environment()['PATH']}"}
        return get(self.folder, *options, cwd=self.root, **path | changes)

    def there(self):
        return {path.name: path.read_text() for path in self.checkpoints.iterdir() if path.name != "SHA256SUMS"}

    def sums_are_true(self):
        lines = (self.checkpoints / "SHA256SUMS").read_text().splitlines()
        expected = [f"{hashlib.sha256(text.encode()).hexdigest()}  {name}" for name, text in self.there().items()]
        return sorted(lines) == sorted(line for line in expected if line.endswith((TACOTRON2, WAVEGLOW)))


@pytest.fixture
def fetch(tmp_path):
    return Fetching(tmp_path)


GIVEN = {TACOTRON2: "given tacotron2", WAVEGLOW: "given waveglow"}


def test_each_file_is_checked_as_one_of_its_model_and_named(fetch):
    done = fetch(*fetch.given)
    assert done.returncode == 0, done.stderr
    assert fetch.there() == GIVEN and fetch.sums_are_true()
    assert done.stdout.splitlines() == [str(fetch.checkpoints / name) for name in GIVEN]
    given = [f"{kind} {fetch.root}/given/{kind}" for kind in ("tacotron2", "waveglow")]
    assert fetch.checked.read_text().splitlines() == given


def test_options_may_stand_behind_a_blank_and_the_engine_changes_nothing(fetch):
    options = [part for option in fetch.given for part in option.split("=")]
    done = fetch("--engine", "magicmind", *options, "--engine=torch", "--models_dir", "of others")
    assert done.returncode == 0, done.stderr
    assert not fetch.checkpoints.exists()
    fetch.checkpoints = fetch.root / "of others/checkpoints"
    assert fetch.there() == GIVEN


@pytest.mark.parametrize("option", ["--tacotron2", "--waveglow", "--voice", "--models_dir", "--engine"])
def test_every_option_needs_a_value(fetch, option):
    done = fetch(option)
    assert (done.returncode, done.stderr) == (2, f"error: {option} needs a value (--help lists the options)\n")
    assert not fetch.folder.exists() or not list(fetch.folder.iterdir())


def test_the_name_of_a_file_may_be_relative_and_hold_a_blank(fetch):
    (fetch.root / "a b.pt").write_text("given tacotron2")
    done = fetch("--tacotron2=a b.pt", "--waveglow", "given/waveglow")
    assert done.returncode == 0, done.stderr
    assert fetch.there() == GIVEN


def test_of_two_the_last_counts(fetch):
    assert fetch(*fetch.given, "--tacotron2", f"{fetch.root}/voices/heart/tacotron2").returncode == 0
    assert fetch.there() == GIVEN | {TACOTRON2: "voices/heart tacotron2"}


def test_a_voice_of_the_repository_is_taken_by_its_name(fetch):
    assert fetch("--voice=heart").returncode == 0
    assert fetch.there() == {TACOTRON2: "voices/heart tacotron2", WAVEGLOW: "voices/heart waveglow"}


def test_what_is_replaced_is_kept_under_its_date_and_the_sums_are_of_the_new(fetch):
    assert fetch(*fetch.given).returncode == 0
    when = time.mktime((2024, 2, 3, 4, 5, 6, 0, 0, -1))
    for name in GIVEN:
        os.utime(fetch.checkpoints / name, (when, when))
    done = fetch("--voice=heart")
    kept = {name: f"{name}_2024-02-03_04-05-06" for name in GIVEN}
    assert done.returncode == 0, done.stderr
    for name, text in GIVEN.items():
        assert fetch.there()[kept[name]] == text
        assert f"what was there is now {fetch.checkpoints / kept[name]}\n" in done.stderr
    assert fetch.sums_are_true()
    # Of the same second there is one already.
    os.utime(fetch.checkpoints / TACOTRON2, (when, when))
    done = fetch(*fetch.given)
    assert done.returncode == 1
    file = fetch.checkpoints / TACOTRON2
    assert done.stderr == f"error: {file}_2024-02-03_04-05-06 is there: move it, to keep {file} under that name\n"
    assert fetch.there()[TACOTRON2] == "voices/heart tacotron2"


def test_the_same_again_keeps_nothing_and_says_nothing(fetch):
    for _ in range(2):
        done = fetch(*fetch.given)
        assert (done.returncode, done.stderr) == (0, "")
    assert fetch.there() == GIVEN and fetch.sums_are_true()


def test_what_is_refused_replaces_nothing(fetch):
    assert fetch("--voice=heart").returncode == 0
    before = fetch.there()
    assert fetch(*fetch.given, REFUSED="given/tacotron2").returncode == 1
    assert fetch.there() == before and fetch.sums_are_true()


def test_what_cannot_be_copied_replaces_nothing(fetch):
    """For want of space, say: what was there keeps its name."""
    assert fetch("--voice=heart").returncode == 0
    before = fetch.there()
    write_programs(fetch.root / "bin", {"cp": "#!/bin/bash\nexit 1\n"})
    assert fetch(*fetch.given).returncode == 1
    assert fetch.there() == before and fetch.sums_are_true()


def test_a_file_that_was_fetched_by_hand_is_taken_where_there_is_no_other(fetch):
    """As the README of Cambricon's sample has it."""
    fetch.folder.mkdir()
    for name in GIVEN:
        (fetch.folder / name).write_text("by hand")
    done = fetch()
    assert (done.returncode, done.stdout.split("\n")[:2]) == (0, [str(fetch.folder / name) for name in GIVEN])
    assert fetch.there() == {}
    assert fetch(*fetch.given).returncode == 0  # and named ones go before it
    done = fetch()
    assert done.stdout.splitlines() == [str(fetch.checkpoints / name) for name in GIVEN]


def test_both_are_asked_for_where_nvidia_has_them(fetch):
    with serve({name: name.encode() for name in CHECKPOINTS}) as server:
        done = fetch(NGC_URL=f"{server.url}/v2")
        assert done.returncode == 0, done.stderr
        assert server.paths == [
            f"/v2/tacotron2_pyt_ckpt_amp/versions/19.09.0/files/{TACOTRON2}",
            f"/v2/waveglow_ckpt_amp_256/versions/19.10.0/files/{WAVEGLOW}",
        ]
        said = [line for line in done.stdout.splitlines() if line.startswith("downloading ")]
        assert said == [f"downloading {server.url}{path}" for path in server.paths]
    assert fetch.there() == {name: name for name in CHECKPOINTS} and fetch.sums_are_true()
    parts = [f"{kind} {fetch.checkpoints}/{name}.part" for kind, name in zip(("tacotron2", "waveglow"), CHECKPOINTS)]
    assert fetch.checked.read_text().splitlines() == parts


def test_the_server_is_nvidia_s_if_no_other_is_named(fetch):
    write_programs(fetch.root / "bin", {"curl": "#!/bin/bash\nexit 6\n"})
    server = "https://api.ngc.nvidia.com/v2/models/nvidia/tacotron2_pyt_ckpt_amp/versions/19.09.0/files"
    done = fetch(NGC_URL="")
    assert (done.returncode, done.stdout) == (1, f"downloading {server}/{TACOTRON2}\n")
    script = ROOT / "tools/deploy/export_model/get_datasets_and_models.sh"
    assert done.stderr == (
        f"error: cannot download {server}/{TACOTRON2} (curl ends with 6, see above).\n"
        f"Without a network: fetch it elsewhere and give it: bash {script} --tacotron2=FILE --waveglow=FILE\n"
        f"Or take the voice heart: bash {script} --voice=heart\n"
    )


def test_what_changed_is_refused_with_both_sums_and_what_to_do(fetch):
    assert fetch(*fetch.given).returncode == 0
    (fetch.checkpoints / WAVEGLOW).write_text("other")
    done = fetch("--engine=torch")
    sums = [hashlib.sha256(text).hexdigest() for text in (b"other", b"given waveglow")]
    file = str(fetch.checkpoints / WAVEGLOW).replace(" ", r"\ ")
    assert done.returncode == 1
    changed = f"/{WAVEGLOW} is not what was fetched first (SHA256 {sums[0]}, not {sums[1]})"
    assert f"{changed}: rm {file} && bash {ROOT}/tools/deploy/" in done.stderr
    assert done.stderr.endswith("get_datasets_and_models.sh --engine=torch\n")


def test_another_run_in_the_folder_is_left_alone(fetch, holder):
    fetch.folder.mkdir()
    process = holder(fetch.folder)
    done = fetch(*fetch.given, HOLDS_MODELS_DIR=str(fetch.root), LOCKS="1")
    assert done.returncode == 75
    assert f"another run is writing to {fetch.folder}: process {process.pid} on " in done.stderr
    assert fetch.there() == {}


def test_whoever_holds_the_folder_may_start_it(fetch, holder):
    fetch.folder.mkdir()
    holder(fetch.folder)
    assert fetch(*fetch.given, HOLDS_MODELS_DIR=str(fetch.folder), LOCKS="1").returncode == 0
    assert fetch.there() == GIVEN


@pytest.fixture
def holder():
    held = []

    def hold(folder):
        process, said = start_holder(folder)
        held.append(process)
        assert said == "held"
        return process

    yield hold
    for process in held:
        os.killpg(process.pid, 9)
        end_holder(process, 0)


def test_a_folder_that_cannot_be_written_is_said(fetch):
    (fetch.root / "file").touch()
    done = fetch(*fetch.given, "--models_dir=file")
    assert done.returncode == 1 and done.stderr.endswith("error: cannot write to file/checkpoints\n")
