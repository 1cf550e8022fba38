"""The thread that writes checkpoints: what a failure of it means, what gives way, which one is the newest."""

import threading
from contextlib import nullcontext

import pytest
from small_checkpoints import failing, names, state

from common.checkpoints import native
from common.checkpoints.saving import Saved, Saver
from common.program import UserError


@pytest.mark.parametrize("on_error", ["stop", "continue"])
def test_a_failure_counts_until_a_later_checkpoint_is_written(tmp_path, monkeypatch, caplog, on_error):
    """Only with stop does it end the run at once; in the end it does with either."""
    monkeypatch.setattr(native, "save", failing({2, 4}))
    with pytest.raises(UserError, match="waveglow_4: disk full"), Saver(0, on_error, []) as saver:
        for i, fails in ((1, False), (2, True), (3, False), (4, True)):
            saver.save(tmp_path / f"waveglow_{i}", state(i), float(i))
            saver._last.result()
            with pytest.raises(UserError, match="disk full") if fails and on_error == "stop" else nullcontext():
                saver.check()
    assert [saved.path.name for saved in saver.saved] == ["waveglow_1", "waveglow_3"]
    errors = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == (2 if on_error == "continue" else 0) and all("training goes on" in each for each in errors)


def test_a_checkpoint_that_waits_gives_way_to_the_next_and_is_named(tmp_path, caplog):
    held = threading.Event()
    with Saver(0, "stop", []) as saver:
        saver._thread.submit(held.wait)
        for i in (1, 2, 3):
            saver.save(tmp_path / f"waveglow_{i}", state(i), float(i))
        held.set()
    assert names(tmp_path) == ["waveglow_3"] and [saved.validation_loss for saved in saver.saved] == [3.0]
    assert [said for said in caplog.messages if not said.startswith("saved ")] == [
        f"the disk does not keep up: the checkpoint before waveglow_{i} is left out" for i in (2, 3)
    ]


def test_a_checkpoint_that_is_written_again_is_the_newest(tmp_path):
    """As where a run goes on from an earlier one of its own."""
    before = [Saved(tmp_path / f"waveglow_{i}", float(i)) for i in (1, 2, 3)]
    for each in before:
        native.save(each.path, state())
    with Saver(2, "stop", before) as saver:
        saver.save(tmp_path / "waveglow_2", state(2), 0.5)
        saver._last.result()
    assert [(saved.path.name, saved.validation_loss) for saved in saver.saved] == [
        ("waveglow_3", 3.0),
        ("waveglow_2", 0.5),
    ]
    assert [(tmp_path / f"waveglow_{i}").exists() for i in (1, 2, 3)] == [False, True, True]
