"""tools/get_ljspeech.sh, from a server that breaks off: what it leaves is whole, checked, or not there."""

import hashlib
import io
import shutil
import subprocess
import tarfile

import pytest
from test_deploy_download import serve

from conftest import ROOT, script_environment

NAME = "LJSpeech-1.1"
CLIPS = 20


def archive(clips=CLIPS, texts=CLIPS):
    """A small LJ Speech."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:bz2") as tar:
        files = {f"wavs/LJ001-{i:04}.wav": bytes((i * j * j + j) % 251 for j in range(5000)) for i in range(clips)}
        files["metadata.csv"] = "".join(f"LJ001-{i:04}|Text {i}|Text {i}\n" for i in range(texts)).encode()
        for name, content in files.items():
            info = tarfile.TarInfo(f"{NAME}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


ARCHIVE = archive()


@pytest.fixture
def server():
    with serve({f"{NAME}.tar.bz2": ARCHIVE}) as handler:
        yield handler


@pytest.fixture
def get(tmp_path):
    """Runs the script in a copy that knows the checksum and the size of the small archive."""
    for name in ("tools/download.sh", "test/find_python.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    script = tmp_path / "tools/get_ljspeech.sh"

    def run(server, data=ARCHIVE, folder=tmp_path / "my data", needs=None):
        values = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "clips": CLIPS,
            "bytes": len(data),
            "unpacked_bytes": needs or 10**5,
        }
        lines = (ROOT / "tools/get_ljspeech.sh").read_text().splitlines()
        changed = [f"{name}={values[name]}" if (name := line.split("=")[0]) in values else line for line in lines]
        assert sum(map(str.__ne__, lines, changed)) == 4
        script.write_text("\n".join(changed))
        url = f"{server.url if server else 'http://127.0.0.1:9'}/{NAME}.tar.bz2"
        environment = script_environment() | {"LJSPEECH_URL": url}
        return subprocess.run(
            ["bash", script, *([folder] if folder else [])], env=environment, capture_output=True, text=True, timeout=60
        )

    return run


def is_there(tmp_path):
    folder = tmp_path / "my data"
    assert [path.name for path in folder.iterdir()] == [NAME]
    assert len(list((folder / NAME / "wavs").iterdir())) == CLIPS
    return True


def test_it_is_fetched_once(server, get, tmp_path):
    done = get(server)
    assert done.returncode == 0, done.stderr
    assert is_there(tmp_path) and f"train with --data_path={tmp_path}/my data/{NAME}" in done.stdout
    assert get(None).returncode == 0 and len(server.asked) == 1


def test_a_download_that_broke_off_goes_on(server, get, tmp_path):
    server.cut = {f"{NAME}.tar.bz2"}
    done = get(server)
    assert done.returncode == 1 and "The same command goes on where it was" in done.stderr
    half = len(ARCHIVE) // 2
    assert (tmp_path / f"my data/{NAME}.tar.bz2.part").stat().st_size == half
    assert get(server).returncode == 0 and is_there(tmp_path)
    assert server.asked == [(f"{NAME}.tar.bz2", 0), (f"{NAME}.tar.bz2", half)]


@pytest.mark.parametrize("resumes", [True, False])
def test_a_server_that_gives_whole_files_only(server, get, tmp_path, resumes):
    server.resumes = resumes
    (tmp_path / "my data").mkdir()
    (tmp_path / f"my data/{NAME}.tar.bz2.part").write_bytes(ARCHIVE[:1000])
    assert get(server).returncode == 0 and is_there(tmp_path)


def test_another_archive_is_not_unpacked(server, get, tmp_path):
    server.contents[f"{NAME}.tar.bz2"] = b"<html>Sign in</html>"
    done = get(server)
    assert done.returncode == 1 and "is not LJ Speech 1.1 (SHA256 " in done.stderr
    assert [path.name for path in (tmp_path / "my data").iterdir()] == [f"{NAME}.tar.bz2.bad"]
    server.contents[f"{NAME}.tar.bz2"] = ARCHIVE
    assert get(server).returncode == 0 and is_there(tmp_path)


def test_an_archive_that_was_fetched_by_hand_is_taken(get, tmp_path):
    (tmp_path / "my data").mkdir()
    (tmp_path / f"my data/{NAME}.tar.bz2").write_bytes(ARCHIVE)
    assert get(None).returncode == 0 and is_there(tmp_path)


@pytest.mark.parametrize("parts", [{"clips": CLIPS - 1}, {"texts": CLIPS - 1}])
def test_clips_or_texts_are_missing(server, get, tmp_path, parts):
    data = server.contents[f"{NAME}.tar.bz2"] = archive(**parts)
    done = get(server, data)
    assert done.returncode == 1 and f"{CLIPS - 1} of them with a text, must be {CLIPS}" in done.stderr
    assert not (tmp_path / "my data" / NAME).exists()


def test_what_is_there_is_checked(server, get, tmp_path):
    assert get(server).returncode == 0
    (tmp_path / "my data" / NAME / "wavs/LJ001-0003.wav").write_bytes(b"")
    done = get(None)
    assert done.returncode == 1 and "holds 19 clips" in done.stderr


def test_no_space(server, get):
    done = get(server, needs=10**18)
    assert done.returncode == 1 and "MB of free space, the dataset needs 1000000000000 MB" in done.stderr
    assert server.asked == []


def test_no_folder(get):
    done = get(None, folder=None)
    assert done.returncode == 2 and "name the folder" in done.stderr
