"""What is written where no plain file is: links, pipes, devices, a full disk."""

import errno
import fcntl
import logging
import os
import re
import socket
import stat
import subprocess
import sys
import termios
import threading
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from clocks import Clock
from hypothesis import given
from hypothesis import strategies as st
from hypothesis_settings import FEW

from common import files
from common.checkpoints import native
from common.files import written_whole
from common.program import UserError, WriteError
from conftest import ROOT


def write(path, content=b"content"):
    with written_whole(path) as file:
        file.write(content)


def state():
    return {"model": {"w": torch.ones(3)}, "config": {}, "iteration": 1, "progress": {}}


F_GETPIPE_SZ = 1032
"Linux's: how many bytes a pipe takes."


def waiting_in(pipe):
    """How many bytes can be read now."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def read_pipe(path):
    """A pipe, and what will be read from it once it has been written to."""
    os.mkfifo(path)
    got = []
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()), daemon=True)
    reader.start()
    return lambda: (reader.join(timeout=20), got[0])[1]


@FEW
@given(links=st.integers(0, 3), absolute=st.booleans(), there=st.booleans(), fails=st.booleans(), content=st.binary())
def test_links_stay_and_the_file_behind_them_is_written(tmp_path_factory, links, absolute, there, fails, content):
    """However many, across folders, with or without a file behind; if the body fails, all is as it was."""
    root = tmp_path_factory.mktemp("links")
    names = [root / f"folder{i}/name{i}" for i in range(links + 1)]
    for name in names:
        name.parent.mkdir()
    for link, target in pairwise(names):
        link.symlink_to(target if absolute else f"../{target.parent.name}/{target.name}")
    if there:
        names[-1].write_bytes(b"before")
    try:
        with written_whole(names[0]) as file:
            file.write(content)
            assert not there or names[-1].read_bytes() == b"before"
            assert not fails, "boom"
    except AssertionError as error:
        assert str(error).startswith("boom")
    expected = b"before" if fails else content
    assert [name.is_symlink() for name in names] == [True] * links + [False]
    assert (names[-1].read_bytes() == expected) if there or not fails else not names[-1].exists()
    assert sum(1 for path in root.rglob("*") if not path.is_dir()) == links + (there or not fails)


def test_a_link_that_leads_nowhere_is_said_and_stays(tmp_path):
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "dangling").symlink_to("no folder/name")
    for name, says in (("circle", "Too many levels"), ("dangling", "No such file or directory")):
        with pytest.raises(WriteError, match=f"cannot write {tmp_path}/{name}: {says}"):
            write(tmp_path / name)
        assert (tmp_path / name).is_symlink()
    assert len(list(tmp_path.iterdir())) == 2


def test_devices_stay_devices():
    before = os.stat("/dev/null")
    write("/dev/null")
    native.save(Path("/dev/null"), state())
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode) and os.stat("/dev/null").st_ino == before.st_ino
    assert not list(Path("/dev").glob("*null?*"))
    with pytest.raises(WriteError, match=r"cannot write /dev/full: No space left on device$"):
        write("/dev/full")


def as_array(file):
    np.save(file, np.arange(5))


def as_checkpoint(file):
    torch.save(state(), file)


@pytest.mark.parametrize("save", [as_array, as_checkpoint])
def test_a_pipe_gets_the_whole_file_or_nothing(tmp_path, save):
    """Also of what goes back in the file to write a length."""
    got = read_pipe(tmp_path / "pipe")
    with pytest.raises(RuntimeError, match="boom"), written_whole(tmp_path / "pipe") as file:
        file.write(b"half")
        raise RuntimeError("boom")
    with written_whole(tmp_path / "pipe") as file:
        save(file)
    with written_whole(tmp_path / "file") as file:
        save(file)
    assert got() == (tmp_path / "file").read_bytes()
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_pipe_gets_a_whole_wav(tmp_path):
    from tools.synthesize import wav_writer

    got = read_pipe(tmp_path / "pipe.wav")
    for name in ("pipe.wav", "file.wav"):
        with wav_writer(tmp_path / name, 22050) as write_samples:
            for _ in range(3):
                write_samples(torch.linspace(-1, 1, 100))
    assert got() == (tmp_path / "file.wav").read_bytes()


def test_a_pipe_that_nobody_reads_is_not_waited_for_without_end(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    clock = Clock()  # each look is ten seconds after the one before
    monkeypatch.setattr(files, "time", clock)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WriteError, match=f"cannot write {tmp_path}/pipe: nobody reads from this pipe"):
        write(tmp_path / "pipe")
    assert caplog.messages == [f"waiting for somebody to read the pipe {tmp_path}/pipe"]
    assert files.READER_WITHIN <= clock.now <= files.READER_WITHIN + 10


def test_a_reader_that_is_slower_than_the_writer_gets_all_of_it(tmp_path):
    """It reads only once no more goes into the pipe."""
    path, content, got = tmp_path / "pipe", os.urandom(300_000), []
    os.mkfifo(path)

    def read():
        with open(path, "rb") as pipe:
            until = time.monotonic() + 20
            while waiting_in(pipe) < fcntl.fcntl(pipe, F_GETPIPE_SZ) and time.monotonic() < until:
                time.sleep(0.001)
            got.append(pipe.read())

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    write(path, content)
    reader.join(timeout=20)
    assert got == [content]


def test_of_a_pipe_the_space_is_that_of_the_folder_in_between(tmp_path, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: SimpleNamespace(free=12_340_000))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WriteError) as caught, written_whole(tmp_path / "pipe"):
        raise OSError(errno.ENOSPC, "it said")
    said = str(caught.value)
    assert said.startswith(f"cannot write {tmp_path}/pipe: it said (12.3 MB are free in /") and "pipe)" not in said


def test_a_stream_that_cannot_be_opened_is_not_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(files, "time", SimpleNamespace(monotonic=lambda: 0, sleep=lambda s: pytest.fail("it waits")))
    real = os.open

    def refuse(path, flags, *mode, **options):
        if str(path).endswith("/pipe") and flags & os.O_WRONLY:
            assert flags & os.O_NOCTTY  # a terminal that is written to does not become the program's own
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, flags, *mode, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(WriteError, match=r"pipe: Permission denied$"), written_whole(tmp_path / "pipe"):
        pass


def test_a_socket_is_refused(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        with pytest.raises(UserError, match="s is a socket: name a file"):
            write(tmp_path / "s")


def test_a_checkpoint_behind_a_link_leaves_the_earlier_one_its_dated_name(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "waveglow_1").symlink_to("disk/waveglow_1")
    for iteration in (1, 2):
        native.save(tmp_path / "waveglow_1", state() | {"iteration": iteration})
    assert (tmp_path / "waveglow_1").is_symlink()
    (dated,) = (tmp_path / "disk").glob("waveglow_1.*")
    assert [native.load(path)["iteration"] for path in (dated, tmp_path / "waveglow_1")] == [1, 2]


def test_a_full_disk_is_said_with_the_file_and_the_space(small_disk):
    """What was complete stays, nothing is left over, and it can be caught as what the system said."""
    write(small_disk / "a", bytes(10**6))
    with pytest.raises(WriteError) as caught:
        write(small_disk / "b", bytes(5 * 10**6))
    expected = rf"cannot write {small_disk}/b: No space left on device \(\d\.\d MB are free there\)"
    assert re.fullmatch(expected, str(caught.value))
    assert caught.value.errno == errno.ENOSPC and isinstance(caught.value, OSError)
    assert [path.name for path in small_disk.iterdir()] == ["a"]


PROGRAM = """
import sys
from common import program
from common.files import written_whole
def main():
    for name in "abcd":
        with written_whole(f"{sys.argv[1]}/{name}") as file:
            file.write(bytes(900_000))
program.run(main)
"""


def test_a_program_on_a_full_disk_ends_with_one_line_and_keeps_what_it_has(small_disk):
    command = [sys.executable, "-c", PROGRAM, small_disk]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert re.fullmatch(rf"error: cannot write {small_disk}/c: No space .*\n", done.stderr), done.stderr
    assert sorted(path.name for path in small_disk.iterdir()) == ["a", "b"]
