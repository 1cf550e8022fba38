"""Folders and files that are written: when a file takes its name, which errors are told as the user's, and how."""

import errno
import fcntl
import os
import socket
from types import SimpleNamespace

import pytest

from common import files
from common.files import is_stream, make_output_folder, open_input, remove_leftovers, written_whole
from common.program import UserError, WriteError

FREE = SimpleNamespace(total=10**12, used=0, free=12_340_000)


def test_a_folder_is_made_with_those_above_it(tmp_path):
    for _ in range(2):  # one that is there is as good
        assert make_output_folder(str(tmp_path / "a/b")) == tmp_path / "a/b"
    assert (tmp_path / "a/b").is_dir()


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for path, reason in ((tmp_path / "file", "File exists"), (tmp_path / "file/below", "Not a directory")):
        with pytest.raises(UserError, match=f"^cannot write to output_directory {path}: {reason}$"):
            make_output_folder(path)
    # root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK | os.X_OK)
    with pytest.raises(UserError, match=f"^cannot write to output_directory {tmp_path}: Permission denied$"):
        make_output_folder(tmp_path)


def test_what_is_read_is_a_file(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with open_input(str(tmp_path / name)) as file:
            assert file.read() == b"content"
    with pytest.raises(FileNotFoundError):
        open_input(tmp_path / "nowhere")
    with pytest.raises(IsADirectoryError):
        open_input(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for path, kind in ((tmp_path / "pipe", "a pipe"), (tmp_path / "socket", "a socket"), ("/dev/null", "a device")):
            with pytest.raises(UserError, match=f"^{path} is {kind}: name a file$"):
                open_input(path)


def test_pipes_and_devices_are_streams(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("pipe")
    names = {"pipe": True, "link": True, "file": False, "nowhere": False, "file/below": False, ".": False}
    assert {name: is_stream(tmp_path / name) for name in names} == names
    assert is_stream("/dev/null")


def test_a_file_takes_its_name_once_it_is_on_the_disk(tmp_path, monkeypatch):
    path, synced = tmp_path / "made/below/name", []

    def fsync(number):
        where = os.readlink(f"/proc/self/fd/{number}")
        size = os.fstat(number).st_size if os.path.isfile(where) else None
        synced.append((os.path.basename(where), size, path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    with written_whole(path) as file:
        file.write(b"content")
        (part,) = path.parent.iterdir()
        assert part.name == f".name.{os.getpid()}.part"
        with open(part, "rb") as other, pytest.raises(BlockingIOError):  # so it is no leftover
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert synced == [(part.name, 7, False), ("below", None, True)]
    assert path.read_bytes() == b"content" and list(path.parent.iterdir()) == [path]


def test_a_file_system_without_locks_is_no_hindrance(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with written_whole(tmp_path / "name") as file:
        file.write(b"content")
    assert (tmp_path / "name").read_bytes() == b"content"


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), RuntimeError("boom"), OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()]
)
def test_what_fails_leaves_the_older_file_and_nothing_else(tmp_path, error):
    (tmp_path / "name").write_bytes(b"before")
    with pytest.raises((type(error), WriteError)), written_whole(tmp_path / "name") as file:
        file.write(b"half")
        raise error
    assert (tmp_path / "name").read_bytes() == b"before" and len(list(tmp_path.iterdir())) == 1


def refused(path, error):
    """What an error in the body is raised as."""
    with pytest.raises(type(error) if not isinstance(error, OSError) else OSError) as caught, written_whole(path):
        raise error
    return caught.value


@pytest.mark.parametrize(("number", "tells"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False)])
def test_where_space_is_what_lacks_it_is_told(tmp_path, monkeypatch, number, tells):
    """Of the folder that the file is in, by whatever name it is called."""
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: FREE if folder == tmp_path / "a" else None)
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    for name in ("a/name", "link/name"):
        found = refused(tmp_path / name, OSError(number, "it said"))
        space = " (12.3 MB are free there)" if tells else ""
        assert str(found) == f"cannot write {tmp_path / name}: it said{space}"
        assert (type(found), found.errno, found.filename) == (WriteError, number, str(tmp_path / name))


def test_the_space_need_not_be_known(tmp_path, monkeypatch):
    def fail(folder):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files.shutil, "disk_usage", fail)
    found = refused(tmp_path / "name", OSError(errno.ENOSPC, "it said"))
    assert str(found) == f"cannot write {tmp_path}/name: it said"


def test_errors_of_other_things_stay_what_they_are(tmp_path):
    plain = OSError("a message of a library")
    other = FileNotFoundError(errno.ENOENT, "No such file", "elsewhere")
    told = [WriteError(errno.ENOSPC, "full", name) for name in ("elsewhere", str(tmp_path / "name"))]
    lone = RuntimeError("a mistake")
    for error in (plain, other, *told, lone, ValueError("x")):
        assert refused(tmp_path / "name", error) is error


@pytest.mark.parametrize("own", ["name", "", ".name.{}.part"])
def test_errors_that_name_the_file_are_its_own(tmp_path, own):
    """Or its folder, or the half-written file."""
    named = str(tmp_path / own.format(os.getpid()))
    found = refused(tmp_path / "name", PermissionError(errno.EACCES, "Permission denied", named))
    assert str(found) == f"cannot write {tmp_path}/name: Permission denied"


def test_torch_s_wrapping_of_what_the_system_said_is_seen_through(tmp_path):
    with pytest.raises(WriteError, match=f"^cannot write {tmp_path}/name: it said$"), written_whole(tmp_path / "name"):
        try:
            raise OSError(errno.EIO, "it said")
        except OSError:
            raise RuntimeError("[enforce fail at inline_container.cc:603]")  # noqa: B904 - as torch does


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(WriteError, match=f"^cannot write {tmp_path}/file/name: "),
        written_whole(tmp_path / "file/name"),
    ):
        pytest.fail("there is something to write")


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path):
    for name in (".a.1.part", ".b.2.part", "c.part", ".d", "e"):
        (tmp_path / name).touch()
    with open(tmp_path / ".b.2.part") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        remove_leftovers(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.2.part", ".d", "c.part", "e"]
