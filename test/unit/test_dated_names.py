"""What already has the name of something new stays under a dated one, also when that happens twice in a second."""

import subprocess
import time

from common.checkpoints import native


def test_of_checkpoints(tmp_path, monkeypatch):
    now = time.strftime("%Y-%m-%d_%H-%M-%S")
    monkeypatch.setattr(time, "strftime", lambda form: now)
    for i in range(4):
        state = {"model": {}, "config": {}, "iteration": i, "progress": {}}
        native.save(tmp_path / "waveglow_7", state)
    kept = sorted(tmp_path.glob("waveglow_7.*"))
    assert [native.load(path)["iteration"] for path in [*kept, tmp_path / "waveglow_7"]] == [0, 1, 2, 3]
    assert kept[0].name == f"waveglow_7.{now}"
    assert native.newest_first(tmp_path, "waveglow") == [tmp_path / "waveglow_7"]


def test_of_checkpoints_where_the_file_system_knows_no_links(tmp_path, monkeypatch):
    def fail(*paths):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("os.link", fail)
    test_of_checkpoints(tmp_path, monkeypatch)


LOGS = """
set -euo pipefail
source "$1/test/common.sh"
for run in 1 2 3; do
    mkdir -p "$1/test/output/0" "$1/test/output/1"
    echo $run | tee "$1/test/output/0/log" >"$1/test/output/1/log"
    touch -d "2026-01-02 03:04:05" "$1/test/output/0" "$1/test/output/1"
    keep_earlier_logs 0 2 1
done
"""


def test_of_the_scripts_logs(checkout):
    subprocess.run(["bash", "-c", LOGS, "-", str(checkout)], check=True, timeout=30)
    for rank in (0, 1):
        kept = sorted((checkout / "test/output").glob(f"{rank}_2026-01-02_03-04-05*"))
        assert [(folder / "log").read_text() for folder in kept] == ["1\n", "2\n", "3\n"]
