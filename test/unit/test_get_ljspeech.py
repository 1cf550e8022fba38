"""tools/get_ljspeech.sh, from a server that breaks off: what it leaves is whole, checked, or not there."""

import fcntl
import hashlib
import io
import os
import shutil
import subprocess
import tarfile

import pytest
from file_server import serve

from conftest import ROOT, script_environment, write_programs

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

    def run(server, data=ARCHIVE, folder=tmp_path / "my data", needs=None, more=(), **changes):
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
        environment = script_environment() | {"LJSPEECH_URL": url} | changes
        environment = {name: value for name, value in environment.items() if value is not None}
        command = ["bash", script, *([folder] if folder else []), *more]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)

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


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "name the folder to put it in"), ([""], "name the folder to put it in"),
        (["--folder"], "name the folder to put it in"), (["a", "b"], "name one folder, not 2"),
    ],
)  # fmt: skip
def test_one_folder_must_be_named(get, tmp_path, given, says):
    before = sorted(tmp_path.iterdir())
    done = get(None, folder=None, more=given)
    assert (done.returncode, done.stderr) == (2, f"error: {says} (--help says more)\n")
    assert {path.name for path in tmp_path.iterdir()} - {path.name for path in before} == set()


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help(get, option):
    done = get(None, folder=None, more=[option])
    assert done.returncode == 0 and done.stdout.startswith("Fetch the LJ Speech dataset") and "#" not in done.stdout
    assert "LJSPEECH_URL names a mirror of https://" in done.stdout


def test_a_folder_that_cannot_be_written(get, tmp_path):
    (tmp_path / "file").write_text("")
    done = get(None, folder="file/data")
    assert done.returncode == 1 and done.stderr.endswith("error: cannot write to file/data\n")


def test_the_address_without_a_mirror_and_what_is_true_of_it(stub_curl, get, tmp_path):
    done = get(None, LJSPEECH_URL=None, PATH=stub_curl)
    published = "https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2"
    assert (done.returncode, (tmp_path / "asked").read_text().split()[-1]) == (1, published)
    assert f"error: cannot download {published} " in done.stderr
    assert f"put it to {tmp_path}/my data/{NAME}.tar.bz2;" in done.stderr
    text = (ROOT / "tools/get_ljspeech.sh").read_text()
    for value in (
        "sha256=be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5", "clips=13100",
        "bytes=2748572632", "unpacked_bytes=3801111440",
    ):  # fmt: skip
        assert f"\n{value}\n" in text


@pytest.fixture
def stub_curl(tmp_path):
    """A PATH with a curl that only notes what it is asked for."""
    write_programs(tmp_path / "bin", {"curl": f'#!/bin/bash\necho "$*" >>"{tmp_path}/asked"\nexit 6\n'})
    return f"{tmp_path}/bin:{script_environment()['PATH']}"


def test_another_run_in_the_folder_is_left_alone(get, tmp_path):
    (tmp_path / "my data").mkdir()
    folder = os.open(tmp_path / "my data", os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        done = get(None)
    finally:
        os.close(folder)
    assert (done.returncode, list((tmp_path / "my data").iterdir())) == (1, [])
    assert done.stderr == (f"error: another run is writing to {tmp_path}/my data: wait, or choose another folder\n")


def test_a_file_system_without_locks_is_no_hindrance(server, get, tmp_path, stub_curl):
    (tmp_path / "bin/curl").unlink()
    write_programs(tmp_path / "bin", {"flock": "#!/bin/bash\nexit 71\n"})
    assert get(server, PATH=stub_curl).returncode == 0 and is_there(tmp_path)


def free_space(tmp_path, number):
    """A PATH with a df that tells so many bytes."""
    says = f'#!/bin/bash\necho "$*" >>"{tmp_path}/df"\necho Avail\necho {number}\n'
    write_programs(tmp_path / "bin", {"df": says})
    return f"{tmp_path}/bin:{script_environment()['PATH']}"


def test_space_is_needed_for_what_is_still_to_come(server, get, tmp_path):
    """The archive but for what of it is there, and what is unpacked; then only that."""
    half, unpacked = len(ARCHIVE) // 2, 10**5
    (tmp_path / "my data").mkdir()
    (tmp_path / f"my data/{NAME}.tar.bz2.part").write_bytes(ARCHIVE[:half])
    needs = len(ARCHIVE) - half + unpacked
    done = get(server, PATH=free_space(tmp_path, needs - 1))
    assert done.returncode == 1 and "free space, the dataset needs 0 MB" in done.stderr and server.asked == []
    assert get(server, PATH=free_space(tmp_path, needs)).returncode == 0 and is_there(tmp_path)
    assert (tmp_path / "df").read_text().splitlines()[0] == f"--output=avail -B1 {tmp_path}/my data"


def test_space_is_needed_to_unpack_what_was_fetched_by_hand(get, tmp_path):
    (tmp_path / "my data").mkdir()
    (tmp_path / f"my data/{NAME}.tar.bz2").write_bytes(ARCHIVE)
    done = get(None, needs=5 * 10**6, PATH=free_space(tmp_path, 4_999_999))
    folder = f"{tmp_path}/my data"
    assert (done.returncode, done.stderr) == (
        1, f"error: {folder} has 4 MB of free space, unpacking needs 5 MB\n",
    )  # fmt: skip
    assert get(None, needs=5 * 10**6, PATH=free_space(tmp_path, 5 * 10**6)).returncode == 0


def test_what_cannot_be_unpacked_leaves_the_archive_alone(get, tmp_path):
    """With the checksum of what is no archive."""
    (tmp_path / "my data").mkdir()
    (tmp_path / f"my data/{NAME}.tar.bz2").write_bytes(b"no archive")
    done = get(None, data=b"no archive")
    assert done.returncode == 1
    assert done.stderr.endswith(f"error: cannot unpack {tmp_path}/my data/{NAME}.tar.bz2, see above\n")
    assert [path.name for path in (tmp_path / "my data").iterdir()] == [f"{NAME}.tar.bz2"]


def test_what_an_earlier_run_left_is_gone_in_the_end(server, get, tmp_path):
    """Half an archive unpacked, and one that was bad."""
    (tmp_path / f"my data/{NAME}.part/{NAME}/wavs").mkdir(parents=True)
    (tmp_path / f"my data/{NAME}.part/{NAME}/wavs/LJ001-0099.wav").write_bytes(bytes(100))
    (tmp_path / f"my data/{NAME}.tar.bz2.bad").write_bytes(b"bad")
    assert get(server).returncode == 0 and is_there(tmp_path)


@pytest.mark.parametrize("size", [43, 44])
def test_a_clip_is_more_than_a_wav_s_head(server, get, tmp_path, size):
    assert get(server).returncode == 0
    (tmp_path / "my data" / NAME / "wavs/LJ001-0003.wav").write_bytes(bytes(size))
    done = get(None)
    assert done.returncode == (1 if size < 44 else 0)


def test_a_folder_is_no_clip(server, get, tmp_path):
    assert get(server).returncode == 0
    clip = tmp_path / "my data" / NAME / "wavs/LJ001-0003.wav"
    clip.unlink()
    clip.mkdir()
    assert "holds 19 clips" in get(None).stderr


@pytest.mark.parametrize("part", ["metadata.csv", "wavs"])
def test_what_is_there_in_part_is_named(server, get, tmp_path, part):
    assert get(server).returncode == 0
    path = tmp_path / "my data" / NAME
    (path / part).rename(path / "away")
    done = get(None)
    assert (done.returncode, done.stderr) == (
        1, f"error: {path} lacks metadata.csv or wavs/: remove it and run this again\n",
    )  # fmt: skip


def test_names_are_compared_in_the_order_of_their_bytes(server, get, tmp_path):
    """In that of a language, which leaves out the hyphens, comm would not find them all."""
    checking = {
        name: f'#!/bin/bash\n[[ ${{LC_ALL:-}} == C ]] || exit 9\nexec {shutil.which(name)} "$@"\n'
        for name in ("sort", "comm")
    }
    write_programs(tmp_path / "bin", checking)
    done = get(server, PATH=f"{tmp_path}/bin:{script_environment()['PATH']}", LC_ALL="C.UTF-8")
    assert done.returncode == 0, done.stderr
