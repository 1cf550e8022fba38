"""The patcher as a program: all three files or none, and the way back."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from common.program import UserError
from conftest import ROOT, write_config
from tbe_files import (
    FIVE_2_FOUR,
    FOUR_2_FIVE,
    NEW,
    SHAPES,
    TRANSPOSE,
    accepts,
    content,
    contents,
    make_cann,
    state,
)
from tools.tbe import find_cann
from tools.tbe.lists import PLACES

pytest_plugins = ["tbe_files"]


def test_check_apply_check_restore(cann, patch):
    for mode, name in ((0o640, TRANSPOSE), (0o550, FOUR_2_FIVE), (0o444, FIVE_2_FOUR)):
        (cann / name).chmod(mode)
    original = state(cann)

    for options in ([], ["--check"]):
        code, said = patch(*options)
        assert (code, state(cann)) == (3, original)
        assert said.splitlines() == [
            f"CANN's operators in {cann}", f"{TRANSPOSE}: not patched (7 lacking)",
            f"{FOUR_2_FIVE}: not patched (13 lacking)", f"{FIVE_2_FOUR}: not patched (13 lacking)",
            "--apply adds what is missing",
        ]  # fmt: skip

    code, said = patch("--apply")
    assert code == 0
    assert said.splitlines()[1:] == [
        f"{TRANSPOSE}: patched (7 added)", f"{FOUR_2_FIVE}: patched (13 added)", f"{FIVE_2_FOUR}: patched (13 added)",
    ]  # fmt: skip
    patched = state(cann)
    for name in PLACES:
        assert all(accepts(patched[name][0], shape) for shape in SHAPES[name])
        assert patched[name][1] == original[name][1]
    backups = {name: seen for name, seen in patched.items() if name not in PLACES}
    assert sorted(seen[:2] for seen in backups.values()) == sorted(seen[:2] for seen in original.values())

    for options, expected in (["--apply"], 4), (["--check"], 0):
        code, said = patch(*options)
        assert (code, state(cann)) == (expected, patched)
        assert said.splitlines()[1:] == [f"{name}: already there" for name in PLACES]

    code, said = patch("--restore")
    assert code == 0
    assert said.splitlines()[1:] == [f"{name}: restored" for name in PLACES]
    assert {name: seen[:2] for name, seen in state(cann).items()} == {n: seen[:2] for n, seen in original.items()}
    again = state(cann)
    code, said = patch("--restore")
    assert (code, state(cann)) == (4, again)
    assert said.splitlines()[1:] == [f"{name}: nothing to restore" for name in PLACES]


def test_owner_is_kept(cann, patch):
    if os.geteuid():
        pytest.skip("only root can give files away")
    for name in PLACES:
        os.chown(cann / name, 1234, 4321)
    patch("--apply")
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in cann.rglob("*.py*")}
    assert owners == {(1234, 4321)}
    patch("--restore")
    assert [(path.stat().st_uid, path.stat().st_gid) for path in cann.rglob("*.py*")] == [(1234, 4321)] * 3


def test_only_what_is_missing_is_written(cann, patch):
    (cann / FOUR_2_FIVE).write_bytes(content(FOUR_2_FIVE, str(SHAPES[FOUR_2_FIVE])))
    (cann / FIVE_2_FOUR).write_bytes(content(FIVE_2_FOUR, str(SHAPES[FIVE_2_FOUR][:-1])))
    before = state(cann)
    assert f"{FOUR_2_FIVE}: already there\n{FIVE_2_FOUR}: patched (1 added)" in patch("--apply")[1]
    assert state(cann)[FOUR_2_FIVE] == before[FOUR_2_FIVE]
    assert not list(cann.glob(f"{FOUR_2_FIVE}?*"))


def test_second_configuration_keeps_the_first_original(cann, patch, tmp_path):
    original = contents(cann)
    patch("--apply")
    config = write_config(tmp_path / "c.json", {"train_config": {"batch_size": 3}})
    code, said = patch("--config", config)
    assert code == 3 and f"{TRANSPOSE}: not patched (4 lacking)" in said
    assert patch("--apply", f"--config={config}")[0] == 0
    data = contents(cann)
    assert len(data) == 6
    assert accepts(data[FOUR_2_FIVE], [24, 8, 2000, 1]) and accepts(data[FOUR_2_FIVE], [3, 8, 2000, 1])
    assert patch("--restore")[0] == 0
    assert contents(cann) == original


@pytest.mark.parametrize("name", PLACES)
def test_restore_leaves_files_alone_that_somebody_changed(cann, patch, name):
    patch("--apply")
    path = cann / name
    path.write_bytes(path.read_bytes().replace(b"2000", b"2001", 1))
    before = state(cann)
    with pytest.raises(UserError, match=f"{name} was changed after --apply.*original is .*{name}.before_patch_tbe"):
        patch("--restore")
    assert state(cann) == before


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("applied", [1, 2])
def test_a_damaged_original_is_not_restored(cann, patch, tmp_path, name, applied):
    """Nor are the others: all or none. It stays where it is."""
    config = write_config(tmp_path / "c.json", {"train_config": {"batch_size": 3}})
    for options in [[], [f"--config={config}"]][:applied]:
        patch("--apply", *options)
    (original,) = cann.glob(f"{name}.before_patch_tbe.*")
    whole = original.read_bytes()
    for damaged in (whole[:-1], b"", bytes([whole[0] ^ 1]) + whole[1:]):
        original.write_bytes(damaged)
        before = state(cann)
        with pytest.raises(UserError, match=f"{original.name} is damaged .*nothing is restored"):
            patch("--restore")
        assert state(cann) == before
    original.write_bytes(whole)
    assert patch("--restore")[0] == 0 and (cann / name).read_bytes() == whole


def test_an_original_that_an_earlier_version_kept_is_restored(cann, patch):
    """Its name has no digest of it."""
    patch("--apply")
    for original in list(cann.glob("*.before_patch_tbe.*")):
        original.rename(original.with_suffix(""))
    assert patch("--restore")[0] == 0
    assert (cann / FOUR_2_FIVE).read_bytes() == content(FOUR_2_FIVE)


def test_edits_after_apply_are_never_lost(cann, patch):
    """A file that was changed after --apply, be it by a new CANN, gets a backup of its own."""
    patch("--apply")
    changed = content(FOUR_2_FIVE, "[[1, 2]]")
    (cann / FOUR_2_FIVE).write_bytes(changed)
    assert f"{FOUR_2_FIVE}: patched (13 added)" in patch("--apply")[1]
    patch("--restore")
    assert (cann / FOUR_2_FIVE).read_bytes() == changed
    assert [path.read_bytes() for path in cann.glob(f"{FOUR_2_FIVE}?*")] == [content(FOUR_2_FIVE)]


def test_backup_is_never_overwritten(cann, patch):
    """Not even when --apply makes the same of what somebody has left of its work."""
    patch("--apply")
    lines = (cann / FOUR_2_FIVE).read_bytes().splitlines(keepends=True)
    last = b"[24, 260, 2000, 1]"  # a row of its own
    row = next(i for i, line in enumerate(lines) if last in line)
    lines[row - 1 : row + 1] = [lines[row - 1].rstrip(b",\n") + lines[row].strip(b" ").removeprefix(last)]
    (cann / FOUR_2_FIVE).write_bytes(b"".join(lines))
    assert f"{FOUR_2_FIVE}: patched (1 added)" in patch("--apply")[1]
    patch("--restore")
    assert contents(cann) == {name: content(name) for name in PLACES}


@pytest.mark.parametrize(
    ("there", "outcomes"),
    [
        # 8.1.RC1; a CANN still to come
        ({TRANSPOSE: True}, ["patched (7 added)", "no loss: TransData", "no loss: TransData"]),
        ({}, ["no loss: Transpose takes any shape", "no loss: TransData", "no loss: TransData"]),
        ({TRANSPOSE: False}, ["no loss: Transpose takes any shape", "no loss: TransData", "no loss: TransData"]),
        # April 2021; February 2021; 2020
        ({TRANSPOSE: True, FOUR_2_FIVE: False, FIVE_2_FOUR: False}, ["patched (7 added)", "a loss", "a loss"]),
        ({TRANSPOSE: False, FOUR_2_FIVE: False, FIVE_2_FOUR: False}, ["a loss", "a loss", "a loss"]),
        ({FOUR_2_FIVE: False, FIVE_2_FOUR: False}, ["a loss", "a loss", "a loss"]),
        ({FIVE_2_FOUR: False}, ["a loss", "no loss: TransData", "a loss"]),
    ],
)
def test_other_versions_of_cann(nowhere, patch, there, outcomes):
    impl = make_cann(find_cann.DEFAULT_ROOT / "opp", NEW, names=[])
    for name, has_list in there.items():
        (impl / name).write_bytes(content(name) if has_list else b"def five_2_four():\n    pass\n")
    code, said = patch("--apply")
    is_loss = "a loss" in outcomes
    assert code == (5 if is_loss else 0 if "patched (7 added)" in outcomes else 4)
    for name, outcome, line in zip(PLACES, outcomes, said.splitlines()[1:], strict=True):
        patched = outcome.startswith("patched")
        assert line.startswith(f"{name}: {outcome}" if patched else f"{name}: not in this CANN, {outcome}")
    assert patch("--check")[0] == (5 if is_loss else 0)


def script(
    *options: str, cwd: Path = ROOT, python: str = sys.executable, **variables: str
) -> subprocess.CompletedProcess:
    command = [python, str(ROOT / "tools/patch_tbe.py"), *options]
    environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **variables}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)


def test_as_a_script(cann):
    """From any folder; codes and errors as a shell sees them."""
    opp = str(cann.parents[4])
    done = script(cwd=cann, ASCEND_OPP_PATH=opp)
    assert (done.returncode, done.stderr) == (3, "")
    assert script("--apply", f"--opp_path={opp}").returncode == 0
    assert script("--check", cwd=cann.parents[4].parent, ASCEND_OPP_PATH="opp").returncode == 0
    (cann / FIVE_2_FOUR).write_text("x = (")
    done = script("--apply", "--opp_path", opp)
    assert done.returncode == 1
    assert done.stderr == f"error: {cann / FIVE_2_FOUR} is not Python: '(' was never closed (five_2_four.py, line 1)\n"
    done = script("--apply", "--restore", "--opp_path", opp)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


@pytest.fixture
def python_3_7():
    """As on the servers with a CANN that old. On a developer's machine pyenv may have one."""
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions").glob("3.7.*/bin/python")
    for python in [*map(str, kept), "python3.7"]:
        with suppress(OSError):
            said = subprocess.run([python, "-SE", "--version"], capture_output=True, text=True, timeout=60).stdout
            if said.startswith("Python 3.7."):
                return python
    pytest.skip("there is no Python 3.7 here")


def test_python_3_7_without_packages_makes_the_same_files(nowhere, cann, patch, python_3_7):
    opp = str(cann.parents[4])
    made = {}
    for python in (sys.executable, python_3_7):
        bare = nowhere / "bare"  # Python isolated from whatever packages it has
        bare.write_text(f'#!/bin/sh\nexec "{python}" -SE "$@"\n')
        bare.chmod(0o755)
        codes = [
            script(*options, f"--opp_path={opp}", python=str(bare)).returncode
            for options in ([], ["--apply"], ["--apply"], ["--check"])
        ]
        assert codes == [3, 0, 4, 0]
        made[python] = {name: (cann / name).read_bytes() for name in PLACES}
        codes = [script("--restore", f"--opp_path={opp}", python=str(bare)).returncode for _ in range(2)]
        assert codes == [0, 4]
    assert made[sys.executable] == made[python_3_7]


def test_it_is_written_in_python_3_7():
    files = ["tools/patch_tbe.py", "tools/tbe", "common/program.py", "common/files.py"]
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--target-version=py37", "--select=E9,F", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_a_reader_that_has_seen_enough_does_not_disturb(cann):
    """As ``head`` is. The pipe is closed before anything is written."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, str(ROOT / "tools/patch_tbe.py"), "--apply", f"--opp_path={cann.parents[4]}"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_tells_the_exit_codes():
    said = script("--help").stdout
    assert all(f"{code} " in said.partition("exit codes:")[2] for code in range(6))
    assert all(f"--{mode} " in said for mode in ("check", "apply", "restore"))


def test_needs_no_torch_without_config(cann):
    """Root's Python may lack it."""
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv[1:] = sys.argv[2:]\n"
        f"sys.path.insert(0, {str(ROOT)!r})\nfrom common import program; from tools import patch_tbe\n"
        "program.run(patch_tbe.main)"
    )
    command = [sys.executable, "-c", code, "x", f"--opp_path={cann.parents[4]}"]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60).returncode == 3
    done = subprocess.run([*command, "--config=c"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.startswith("error: --config needs the Python environment")
