"""tools/download.sh beside a stand-in for curl: what it is asked for, what counts as done, and what is said if not."""

import shlex

import pytest
from stub_python import StubPython

from conftest import ROOT, write_programs

CURL = """#!/bin/bash
{ printf '%q ' "$@"; echo; } >>"$STUB_FOLDER/asked"
code=$(sed -n "$(wc -l <"$STUB_FOLDER/asked")p" <<<"${CODES// /$'\\n'}")
[[ $code != 0 ]] || echo all >"${@:$(printf '%s\\n' "$@" | grep -n -- --output | cut -d: -f1)+1:1}"
exit "$code"
"""
URL = "http://server/a b"
ALWAYS = ["--fail", "--location", "--show-error", "--retry", "2", "--output", "a file",
          "--connect-timeout", "20", "--speed-limit", "1", "--speed-time", "60", "--silent"]  # fmt: skip
"Silent where no terminal shows a bar; a server that sends nothing for a minute is given up."
GOES_ON, ANEW = [*ALWAYS, "--continue-at", "-", URL], [*ALWAYS, URL]
SCRIPT = """
set -euo pipefail
source "$1/test/find_python.sh"
source "$1/tools/download.sh"
download "http://server/a b" "a file" "what to do"
echo done
"""


@pytest.fixture
def stub(tmp_path):
    stub = StubPython(tmp_path / "a stub")
    write_programs(stub.folder / "bin", {"curl": CURL})
    return stub


@pytest.fixture
def download(stub, tmp_path):
    """Runs it, where curl ends with these codes; how it ended, and what curl was asked for."""

    def run(*codes, before=None):
        (stub.folder / "asked").write_text("")
        if before is not None:
            (tmp_path / "a file").write_text(before)
        done = stub.run("-c", SCRIPT, "-", ROOT, cwd=tmp_path, CODES=" ".join(map(str, codes)))
        return done, [shlex.split(line) for line in (stub.folder / "asked").read_text().splitlines()]

    return run


@pytest.mark.parametrize("before", [None, "", "half"])
def test_a_download_goes_on_where_the_file_ends(download, tmp_path, before):
    done, asked = download(0, before=before)
    assert (done.returncode, done.stdout, asked) == (0, "done\n", [GOES_ON])
    assert (tmp_path / "a file").read_text() == "all\n"


@pytest.mark.parametrize("code", [22, 33])
def test_what_cannot_go_on_begins_anew(download, code):
    """The file is all there is (HTTP 416), or the server gives whole files only."""
    done, asked = download(code, 0, before="half")
    assert (done.returncode, done.stdout, asked) == (0, "done\n", [GOES_ON, ANEW])


@pytest.mark.parametrize(
    ("codes", "before"),
    [([6], None), ([28], "half"), ([22], None), ([33], ""), ([22, 22], "half"), ([33, 18], "half")],
)
def test_what_fails_is_said_with_what_to_do(download, codes, before):
    """Nothing is asked for anew of which there is nothing yet."""
    done, asked = download(*codes, before=before)
    assert (done.returncode, done.stdout, asked) == (1, "", [GOES_ON, ANEW][: len(codes)])
    code = codes[-1]
    assert done.stderr == f"error: cannot download {URL} (curl ends with {code}, see above).\nwhat to do\n"


def test_without_curl_it_is_asked_for(stub, tmp_path):
    (stub.folder / "bin/curl").unlink()
    (stub.folder / "bin/dirname").symlink_to("/usr/bin/dirname")
    done = stub.run("-c", SCRIPT.replace('download "http', 'PATH=; download "http'), "-", ROOT, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: curl is needed to download\n")


def test_a_terminal_shows_how_far_it_is(stub, tmp_path):
    """`script` gives it one."""
    command = shlex.join(["bash", "-c", SCRIPT, "-", str(ROOT)])
    done = stub.run("-c", 'script -qec "$1" /dev/null </dev/null', "-", command, cwd=tmp_path, CODES="0")
    if done.returncode == 127:
        pytest.skip("the command script is not here")
    (asked,) = [shlex.split(line) for line in (stub.folder / "asked").read_text().splitlines()]
    assert asked == [*ALWAYS[:-1], "--progress-bar", "--continue-at", "-", URL]
