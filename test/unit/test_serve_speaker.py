"""What the speaker's threads do for many at once: how many texts in a batch, whom they give up, what they log."""

import pytest

from common.program import UserError
from serving import TEXT, wait_for

speaker_module = pytest.importorskip("tools.serve.speaker", reason="requirement-serve.txt is not installed")
Speech = speaker_module.Speech

pytest_plugins = ["serving"]


def speech(speaker, deliver=lambda item: None, **fields):
    return Speech(speaker.synthesizer.take_apart(TEXT), 1, 1.0, 0.0, deliver, **fields)


def test_a_batch_is_of_the_most_urgent_and_no_larger_than_engines_have_it(speaker):
    many = [speech(speaker, began=float(second)) for second in range(2 * speaker_module.LARGEST_BATCH)]
    with speaker.changed:
        speaker.active += many[::-1]
        assert speaker._to_decode() == many[: speaker_module.LARGEST_BATCH]
        speaker.active.clear()


def test_a_reader_who_waits_for_sound_is_not_given_up(speaker):
    """However long ago it took the last: it has taken all there is."""
    got = []
    waits, late = (speech(speaker, got.append, began=1.0, heard_from=1.0, touched=1.0, made=50) for _ in range(2))
    waits.taken, late.taken = 50, 49
    with speaker.changed:
        speaker.active += [waits, late]
        speaker._forget()
        assert speaker.active == [waits]
        speaker.active.clear()
    assert [type(item) for item in got] == [TimeoutError]


@pytest.mark.parametrize(
    ("error", "is_shown"), [(UserError("Hello there"), False), (RuntimeError("Hello there"), True)]
)
def test_a_text_that_an_error_quotes_is_not_logged(speaker, monkeypatch, caplog, error, is_shown):
    """What else fails is shown in full."""
    got = []

    def fail(pieces):
        raise error

    monkeypatch.setattr(speaker.synthesizer, "speak_together", fail)
    speaker.add(speech(speaker, got.append))
    wait_for(lambda: got)
    assert got == [error]
    assert "speaking failed" in caplog.text
    assert ("Hello there" in caplog.text) == is_shown
