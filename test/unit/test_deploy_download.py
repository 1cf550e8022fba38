"""Fetching the checkpoints from a server that may stop short; what is no checkpoint of the model is refused."""

import shutil
import sys

import pytest
from deploy_downloads import CHECKPOINTS, TACOTRON2, WAVEGLOW, get
from file_server import serve

from conftest import script_environment, write_programs


@pytest.fixture
def server():
    with serve({name: path.read_bytes() for name, path in CHECKPOINTS.items()}) as handler:
        yield handler


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "my models"


@pytest.fixture
def unchecked(tmp_path):
    """An environment whose Python takes every file for a checkpoint: that is not asked by loading PyTorch each time."""
    write_programs(tmp_path / "bin", {"python": f'#!/bin/bash\n[[ $1 != -m ]] || exec {sys.executable} "$@"\n'})
    return {"PATH": f"{tmp_path / 'bin'}:{script_environment()['PATH']}"}


def check_all_there(folder):
    for name, path in CHECKPOINTS.items():
        assert (folder / "checkpoints" / name).read_bytes() == path.read_bytes()
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["SHA256SUMS", TACOTRON2, WAVEGLOW]


def test_what_is_fetched_is_not_fetched_again(server, folder):
    done = get(folder, url=server.url)
    assert done.returncode == 0, done.stderr
    check_all_there(folder)
    assert get(folder, url=server.url).returncode == 0
    assert len(server.asked) == 2


def test_a_download_that_broke_off_goes_on(server, folder, unchecked):
    server.cut = {TACOTRON2}
    assert get(folder, url=server.url, **unchecked).returncode == 1
    half = len(server.contents[TACOTRON2]) // 2
    assert (folder / "checkpoints" / f"{TACOTRON2}.part").stat().st_size == half
    done = get(folder, url=server.url, **unchecked)
    assert done.returncode == 0, done.stderr
    assert (TACOTRON2, half) in server.asked
    check_all_there(folder)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_what_cannot_go_on_begins_anew(server, folder, unchecked, share):
    server.resumes = share == 1.0
    data = server.contents[WAVEGLOW]
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / f"{WAVEGLOW}.part").write_bytes(data[: int(share * len(data))])
    done = get(folder, url=server.url, **unchecked)
    assert done.returncode == 0, done.stderr
    check_all_there(folder)


def test_what_is_no_checkpoint_is_not_kept(server, folder):
    server.contents[TACOTRON2] = b"<html>Sign in to continue</html>"
    done = get(folder, url=server.url)
    assert done.returncode == 1
    assert "truncated or no checkpoint" in done.stderr
    assert list((folder / "checkpoints").iterdir()) == []


def test_half_a_download_does_not_replace_a_checkpoint(folder, unchecked):
    options = [f"--{kind}={path}" for kind, path in zip(("tacotron2", "waveglow"), CHECKPOINTS.values())]
    assert get(folder, *options, **unchecked).returncode == 0
    (folder / "checkpoints" / f"{TACOTRON2}.part").write_bytes(b"half")
    done = get(folder, **unchecked)
    assert done.returncode == 0, done.stderr
    assert (folder / "checkpoints" / TACOTRON2).read_bytes() == CHECKPOINTS[TACOTRON2].read_bytes()


def test_a_server_that_falls_silent_is_given_up(server, folder, tmp_path):
    write_programs(tmp_path, {"curl": f'#!/bin/bash\nexec {shutil.which("curl")} "${{@/#60/1}}" --retry 0\n'})
    server.silent = {TACOTRON2}
    done = get(folder, url=server.url, PATH=f"{tmp_path}:{script_environment()['PATH']}")
    assert done.returncode == 1
    assert "curl ends with 28" in done.stderr


def test_a_local_file_of_the_other_model_is_refused(folder):
    done = get(folder, f"--tacotron2={CHECKPOINTS[WAVEGLOW]}")
    assert done.returncode == 1
    assert "is a checkpoint of WaveGlow, and one of Tacotron2 is needed here" in done.stderr
    assert list((folder / "checkpoints").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--tacotron2=nowhere.pt"], 1, "error: no file nowhere.pt"),
        (["--tacotron"], 2, "error: unknown option --tacotron (--help lists the options)"),
    ],
)
def test_a_missing_file_and_an_unknown_option_are_said(folder, options, code, says):
    done = get(folder, *options)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr
