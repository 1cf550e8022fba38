"""The patcher as a program: all three files or none, and the way back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.program import UserError
from conftest import ROOT, write_config
from tbe_files import FIVE_2_FOUR, FOUR_2_FIVE, NEW, SHAPES, TRANS_DATA, TRANSPOSE, accepts, content, make_cann
from tools import find_cann, patch_tbe
from tools.tbe_lists import PLACES


@pytest.fixture
def cann(nowhere):
    """A CANN 5.0.3: its folder impl."""
    return make_cann(find_cann.DEFAULT_ROOT / "ascend-toolkit/5.0.3/arm64-linux/opp")


def state(folder: Path) -> dict[str, tuple]:
    """All that a user could see of the files."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {name: seen[0] for name, seen in state(folder).items()}


@pytest.fixture
def patch(monkeypatch, capsys):
    """Run the program; returns its exit code and what it says."""

    def run(*options):
        monkeypatch.setattr(sys, "argv", ["patch_tbe.py", *map(str, options)])
        try:
            patch_tbe.main()
            code = 0
        except SystemExit as end:
            code = end.code
        return code, capsys.readouterr().out

    return run


def test_check_apply_check_restore(cann, patch):
    for mode, name in ((0o640, TRANSPOSE), (0o550, FOUR_2_FIVE), (0o444, FIVE_2_FOUR)):
        (cann / name).chmod(mode)
    original = state(cann)

    for options in ([], ["--check"]):
        code, said = patch(*options)
        assert (code, state(cann)) == (3, original)
        assert said.splitlines() == [
            f"CANN's operators in {cann}", f"{TRANSPOSE}: not patched (7 lacking)",
            f"{FOUR_2_FIVE}: not patched (9 lacking)", f"{FIVE_2_FOUR}: not patched (9 lacking)",
            "--apply adds what is missing",
        ]  # fmt: skip

    code, said = patch("--apply")
    assert code == 0
    assert said.splitlines()[1:] == [
        f"{TRANSPOSE}: patched (7 added)", f"{FOUR_2_FIVE}: patched (9 added)", f"{FIVE_2_FOUR}: patched (9 added)",
    ]  # fmt: skip
    patched = state(cann)
    for name in PLACES:
        assert all(accepts(patched[name][0], shape) for shape in SHAPES[name])
        assert patched[name][1] == original[name][1]
    backups = {name: seen for name, seen in patched.items() if name not in PLACES}
    assert sorted(seen[:2] for seen in backups.values()) == sorted(seen[:2] for seen in original.values())

    for options, expected in (["--apply"], 0), (["--check"], 0):
        code, said = patch(*options)
        assert (code, state(cann)) == (expected, patched)
        assert said.splitlines()[1:] == [f"{name}: already there" for name in PLACES]

    code, said = patch("--restore")
    assert code == 0
    assert said.splitlines()[1:] == [f"{name}: restored" for name in PLACES]
    assert {name: seen[:2] for name, seen in state(cann).items()} == {n: seen[:2] for n, seen in original.items()}
    again = state(cann)
    code, said = patch("--restore")
    assert (code, state(cann)) == (0, again)
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


def test_edits_after_apply_are_never_lost(cann, patch):
    """A file that was changed after --apply, be it by a new CANN, gets a backup of its own."""
    patch("--apply")
    changed = content(FOUR_2_FIVE, "[[1, 2]]")
    (cann / FOUR_2_FIVE).write_bytes(changed)
    assert f"{FOUR_2_FIVE}: patched (9 added)" in patch("--apply")[1]
    patch("--restore")
    assert (cann / FOUR_2_FIVE).read_bytes() == changed
    assert [path.read_bytes() for path in cann.glob(f"{FOUR_2_FIVE}?*")] == [content(FOUR_2_FIVE)]


def test_backup_is_never_overwritten(cann, patch):
    """Not even when --apply makes the same of what somebody has left of its work."""
    patch("--apply")
    lines = (cann / FOUR_2_FIVE).read_bytes().splitlines(keepends=True)
    row = next(i for i, line in enumerate(lines) if b"4096" in line)
    lines[row - 1 : row + 1] = [lines[row - 1].rstrip(b",\n") + lines[row][lines[row].index(b"4096") + 14 :]]
    (cann / FOUR_2_FIVE).write_bytes(b"".join(lines))
    assert f"{FOUR_2_FIVE}: patched (3 added)" in patch("--apply")[1]
    patch("--restore")
    assert contents(cann) == {name: content(name) for name in PLACES}


def test_apply_after_a_crash(cann, patch):
    """Backups are written first; the program may have ended right behind that."""
    original = contents(cann)
    patch("--apply")
    for name in PLACES:
        (cann / name).write_bytes(original[name])
    assert f"{FOUR_2_FIVE}: nothing to restore" in patch("--restore")[1]
    assert patch("--apply")[0] == 0
    assert len(contents(cann)) == 6
    patch("--restore")
    assert contents(cann) == original


@pytest.mark.parametrize("mode", ["--check", "--apply"])
@pytest.mark.parametrize("name", PLACES)
def test_one_bad_file_stops_all(cann, patch, name, mode):
    (cann / name).write_bytes(content(name) + b"x = (\n")
    before = state(cann)
    with pytest.raises(UserError, match=rf"{name} is not Python"):
        patch(mode)
    assert state(cann) == before


@pytest.mark.parametrize("mode", ["--check", "--apply", "--restore"])
@pytest.mark.parametrize("link", [TRANSPOSE, FIVE_2_FOUR, "dynamic", "."])
def test_links_out_of_cann_are_refused(cann, patch, tmp_path, link, mode):
    outside = tmp_path / "outside"
    (cann / link).rename(outside)
    (cann / link).symlink_to(outside)
    before = state(cann), state(tmp_path)
    with pytest.raises(UserError, match=r"is a link out of .*outside"):
        patch(mode)
    assert (state(cann), state(tmp_path)) == before


def test_links_inside_of_cann_are_followed(cann, patch):
    (cann / FIVE_2_FOUR).rename(cann / "dynamic/real.py")
    (cann / FIVE_2_FOUR).symlink_to("dynamic/real.py")
    original = contents(cann)
    assert patch("--apply")[0] == 0
    assert (cann / FIVE_2_FOUR).is_symlink() and (cann / "dynamic/real.py").read_bytes() != original["dynamic/real.py"]
    patch("--restore")
    assert contents(cann) == original and (cann / FIVE_2_FOUR).is_symlink()


@pytest.mark.parametrize("loop", [FIVE_2_FOUR, "dynamic"])
def test_file_that_is_none_is_named(cann, patch, loop):
    (cann / loop).rename(cann / "other")
    (cann / loop).symlink_to(loop)
    with pytest.raises(UserError, match=f"cannot read or write .*{loop}"):
        patch("--apply")


@pytest.mark.parametrize("failing", PLACES)
@pytest.mark.parametrize(("mode", "backup"), [("--apply", False), ("--apply", True), ("--restore", False)])
def test_failure_half_way_puts_all_back(cann, patch, monkeypatch, failing, mode, backup):
    """Whether it is a file that cannot be written or its backup."""
    if mode == "--restore":
        patch("--apply")
    before = contents(cann)
    genuine = patch_tbe.write_like
    failed = []

    def write_like(model, path, data):
        if model == cann / failing and (path != model) == backup and not failed:
            failed.append(path)
            raise OSError(28, "No space left on device", str(path))
        genuine(model, path, data)

    monkeypatch.setattr(patch_tbe, "write_like", write_like)
    with pytest.raises(UserError, match=rf"cannot read or write .*{failing}.*: No space left on device"):
        patch(mode)
    assert failed
    assert contents(cann) == before


def test_putting_back_spares_what_somebody_else_wrote(cann, patch, monkeypatch):
    genuine = patch_tbe.write_like

    def write_like(model, path, data):
        if path == cann / FIVE_2_FOUR:
            (cann / TRANSPOSE).write_bytes(b"# mine\n")
            raise OSError(28, "No space left on device", str(path))
        genuine(model, path, data)

    monkeypatch.setattr(patch_tbe, "write_like", write_like)
    with pytest.raises(UserError, match="No space left"):
        patch("--apply")
    left = contents(cann)
    assert left.pop(TRANSPOSE) == b"# mine\n"
    assert [left.pop(name) for name in TRANS_DATA] == [content(name) for name in TRANS_DATA]
    assert list(left.values()) == [content(TRANSPOSE)]  # the original is not lost


def test_failure_to_put_back_is_said(cann, patch, monkeypatch):
    genuine = patch_tbe.write_like

    def write_like(model, path, data):
        if (cann / FOUR_2_FIVE).read_bytes() != content(FOUR_2_FIVE):
            raise OSError(5, "Input/output error", str(path))
        genuine(model, path, data)

    monkeypatch.setattr(patch_tbe, "write_like", write_like)
    with pytest.raises(UserError, match=f"putting back {cann / TRANSPOSE}, {cann / FOUR_2_FIVE}"):
        patch("--apply")
    monkeypatch.setattr(patch_tbe, "write_like", genuine)
    patch("--restore")
    assert contents(cann) == {name: content(name) for name in PLACES}


@pytest.mark.parametrize(
    ("changed", "hook"),
    [
        # before the first is written, also a file in which there is nothing to add; before the last is
        (TRANSPOSE, "require_writable"), (FOUR_2_FIVE, "require_writable"), (FIVE_2_FOUR, "require_writable"),
        (FIVE_2_FOUR, "write_like"),
    ],
)  # fmt: skip
def test_change_between_reading_and_writing(cann, patch, monkeypatch, changed, hook):
    (cann / FOUR_2_FIVE).write_bytes(content(FOUR_2_FIVE, str(SHAPES[FOUR_2_FIVE])))
    before = contents(cann)
    genuine = getattr(patch_tbe, hook)

    def meanwhile(*args):
        (cann / changed).write_bytes(b"# mine\n")
        genuine(*args)

    monkeypatch.setattr(patch_tbe, hook, meanwhile)
    with pytest.raises(UserError, match=f"{changed} was changed by somebody else"):
        patch("--apply")
    assert contents(cann) == before | {changed: b"# mine\n"}


def test_cann_of_somebody_else(cann, patch, monkeypatch):
    before = state(cann)
    with monkeypatch.context() as as_user:
        as_user.setattr(os, "geteuid", lambda: (cann / FIVE_2_FOUR).stat().st_uid + 1)
        with pytest.raises(UserError, match=r"cannot write to .*: run this as root"):
            patch("--apply")
    with monkeypatch.context() as read_only:
        read_only.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
        with pytest.raises(UserError, match=r"cannot write to .*: run this as root"):
            patch("--apply")
        assert patch("--check")[0] == 3
    assert state(cann) == before


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
    assert code == 0
    for name, outcome, line in zip(PLACES, outcomes, said.splitlines()[1:]):
        patched = outcome.startswith("patched")
        assert line.startswith(f"{name}: {outcome}" if patched else f"{name}: not in this CANN, {outcome}")
    assert patch("--check")[0] == 0


def script(*options: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "tools/patch_tbe.py"), *options]
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


def test_help_tells_the_exit_codes():
    said = script("--help").stdout
    assert "exit codes: 0" in said and all(f"--{mode} " in said for mode in ("check", "apply", "restore"))


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
