"""The two works of a speaker, step by step, without its threads: what is decoded together, what is delivered when."""

import itertools
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common.program import UserError
from tacotron2.sentences import Piece

module = pytest.importorskip("tools.serve.speaker", reason="requirement-serve.txt is not installed")
Speech = module.Speech
RATE = 100


class Thread:
    """One that is never started."""

    def __init__(self, target, args, daemon):
        self.work, self.joined = args, []

    def start(self):
        pass

    def join(self, seconds):
        self.joined.append(seconds)


class Synthesizer:
    config = SimpleNamespace(data_config=SimpleNamespace(sampling_rate=RATE))
    bytes = 7

    def __init__(self):
        self.asked = []

    def speak_together(self, pieces):
        self.asked.append(pieces)
        return (SimpleNamespace(utterance=SimpleNamespace(mel=piece.text)) for piece, _, _ in pieces)


class Vocoder:
    """Of each piece so many chunks as it has letters, each of 10 samples."""

    bytes = 5

    def __init__(self):
        self.asked = []

    def stream(self, mel, *settings):
        *settings, sizes = settings
        self.asked.append((mel, *settings, list(itertools.islice(sizes, 5))))
        return iter([torch.full((10,), 0.5)] * len(mel))


@pytest.fixture
def speaker(monkeypatch):
    monkeypatch.setattr(module.threading, "Thread", Thread)
    return module.Speaker(Synthesizer(), Vocoder())


def speech_of(text="Hi. Go.", got=None, **fields):
    pieces = [Piece(text=word, pause=0.25, ids=[1]) for word in text.split()]
    return Speech(pieces, 3, 0.6, 0.1, (got if got is not None else []).append, **fields)


def test_a_speaker_has_the_size_of_both_models_and_a_thread_for_each(speaker):
    assert (speaker.rate, speaker.bytes, speaker.active) == (RATE, 12, [])
    decode, vocode = (thread.work for thread in speaker._threads)
    assert decode == (speaker._to_decode, speaker._decode) and vocode == (speaker._to_vocode, speaker._vocode)
    speaker.close()
    assert [thread.joined for thread in speaker._threads] == [[60.0]] * 2


def test_a_listener_runs_out_of_sound_when_what_was_made_has_been_played():
    speech = speech_of(began=5.0, heard_from=7.0)
    assert speech.deadline(RATE) == 5.0
    speech.made = 3 * RATE
    assert speech.deadline(RATE) == 10.0
    speech.taken = 2 * RATE
    assert speech.deadline(RATE) == 10.0


def test_what_is_taken_is_taken_now(speaker):
    speech = speech_of(touched=1.0, taken=5)
    before = time.monotonic()
    speaker.take(speech, 7)
    assert speech.taken == 12 and speech.touched >= before


@pytest.mark.parametrize(("ahead", "hungry"), [(29.99, True), (30.0, False), (31.0, False)])
def test_sound_is_made_half_a_minute_ahead_of_its_reader(speaker, ahead, hungry):
    speech = speech_of(made=round(50 * RATE + ahead * RATE), taken=50 * RATE, heard_from=1.0)
    speaker.active.append(speech)
    assert bool(speaker._to_decode()) == hungry
    speech.spoken.append("spoken")
    assert bool(speaker._to_vocode()) == hungry


@pytest.mark.parametrize(("waiting", "decoded", "found"), [(1, 1, True), (2, 1, False), (0, 2, False), (0, 1, True)])
def test_two_sentences_may_wait_for_waveglow_and_none_is_decoded_twice(speaker, waiting, decoded, found):
    speaker.active.append(speech_of("One. Two.", spoken=["spoken"] * waiting, decoded=decoded))
    assert bool(speaker._to_decode()) == found


def test_the_most_urgent_take_those_along_that_are_hardly_longer(speaker):
    """By the length of the pieces that are next."""
    urgent, as_long, longer, short, next_is_short = (
        speech_of(text, began=float(place), decoded=decoded)
        for place, (text, decoded) in enumerate(
            [("a" * 10, 0), ("b" * 12, 0), ("c" * 13, 0), ("d", 0), ("e" * 99 + " e", 1)]
        )
    )
    speaker.active += [next_is_short, short, longer, as_long, urgent]
    assert speaker._to_decode() == [urgent, as_long, short, next_is_short]
    short.began = -1.0
    assert speaker._to_decode() == [short, next_is_short]


def test_a_batch_is_of_the_most_urgent_and_no_larger_than_engines_have_it(speaker):
    many = [speech_of(began=float(second)) for second in range(2 * module.LARGEST_BATCH)]
    speaker.active += many[::-1]
    assert speaker._to_decode() == many[: module.LARGEST_BATCH]


def test_a_batch_is_decoded_with_seeds_and_places_of_each_piece(speaker):
    one, two = speech_of("Hi. Go."), speech_of("So. Be. It.", decoded=2)
    two.seed = 9
    speaker._decode([one, two])
    assert speaker.synthesizer.asked == [[(one.pieces[0], 3, 0), (two.pieces[2], 9, 2)]]
    assert (one.decoded, two.decoded) == (1, 3)
    assert [each.spoken[0].utterance.mel for each in (one, two)] == ["Hi.", "It."]


def kinds(got):
    """Samples as their number and first value, pieces by their text."""
    return [(len(each), int(each[0])) if isinstance(each, np.ndarray) else each and each.utterance.mel for each in got]


def test_pieces_are_delivered_in_their_order_with_silence_between_them(speaker):
    got, before = [], time.monotonic()
    speech = speech_of("ab c", got, began=before)
    speaker.add(speech)
    sound = (10, 16384)
    speaker._decode([speech])
    speaker._vocode([speech])
    assert kinds(got) == ["ab", sound] and speech.made == 10
    heard = speech.heard_from
    assert heard >= before
    speaker._decode([speech])
    speaker._vocode([speech])
    speaker._vocode([speech])
    assert kinds(got) == ["ab", sound, sound, (25, 0)]  # a quarter of a second
    assert (speech.made, len(speech.spoken), speech.heard_from) == (45, 1, heard)
    speaker._vocode([speech])
    assert speaker.active == [speech]
    speaker._vocode([speech])
    assert kinds(got) == ["ab", sound, sound, (25, 0), "c", sound, None]
    assert speaker.active == []
    assert all(each.dtype == np.int16 for each in got if isinstance(each, np.ndarray))
    small, middle, large = module.CHUNK_FRAMES
    assert speaker.vocoder.asked == [
        ("ab", 0.6, 0.1, 3, [small, middle, large, large, large]), ("c", 0.6, 0.1, 3, [large] * 5),
    ]  # fmt: skip


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_audio_that_is_not_finite_is_an_error(speaker, bad):
    got = []
    speech = speech_of("a", got)
    speech.spoken = [SimpleNamespace(utterance=SimpleNamespace(mel="a"))]
    speaker.vocoder.stream = lambda *_: iter([torch.tensor([0.0, bad])])
    with pytest.raises(FloatingPointError, match="the audio is not finite"):
        speaker._vocode([speech])
    assert len(got) == 1


def test_only_the_most_urgent_gets_the_next_sound(speaker):
    speeches = [speech_of(began=float(began), spoken=["spoken"]) for began in (3, 1, 2)]
    waits = speech_of(began=0.0)
    speaker.active += [waits, *speeches]
    assert speaker._to_vocode() == [speeches[1]]
    speaker.active[:] = [waits]
    assert speaker._to_vocode() == []


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({}, "stays"),
        ({"cancelled": True}, None),
        ({"made": 5, "taken": 4, "touched": 39.0, "heard_from": 39.0}, TimeoutError),
        ({"made": 5, "taken": 4, "touched": 41.0, "heard_from": 39.0}, "stays"),  # took some
        ({"made": 5, "taken": 4, "touched": 39.0, "heard_from": 41.0}, "stays"),  # has heard nothing before
        ({"made": 5, "taken": 5, "touched": 39.0, "heard_from": 39.0}, "stays"),  # waits itself
        ({"made": 5, "taken": 4, "touched": 39.0, "heard_from": 39.0, "cancelled": True}, TimeoutError),
    ],
)
def test_who_is_not_listening_is_given_up_after_a_minute(speaker, monkeypatch, fields, outcome):
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 100.0))
    got = []
    speech = speech_of("a", got, **({"began": 1.0, "touched": 1.0} | fields))
    speaker.active.append(speech)
    speaker._forget()
    assert speaker.active == ([speech] if outcome == "stays" else [])
    if outcome == "stays":
        assert got == []
    elif outcome is None:
        assert got == [None]
    else:
        assert [type(each) for each in got] == [TimeoutError] and "nothing was taken for 60 s" in str(got[0])


def test_a_speech_ends_once(speaker):
    got = []
    speech = speech_of("a", got)
    speaker.add(speech)
    speaker._end(speech, None)
    speaker._end(speech, ValueError())
    assert got == [None]


def test_a_thread_goes_on_after_an_error_which_ends_those_it_worked_for(speaker, caplog):
    got, other = [], []
    bad, good = speech_of("a", got), speech_of("b", other)
    speaker.active += [bad, good]
    turns = iter([[bad], [good]])
    did = []

    def do(speeches):
        if speeches == [bad]:
            raise ValueError("odd")
        did.append(speeches)
        speaker.close()

    speaker._work(lambda: next(turns), do)
    assert did == [[good]] and speaker.active == [good] and other == []
    assert [type(each) for each in got] == [ValueError]
    assert caplog.messages == ["speaking failed"]


@pytest.mark.parametrize(
    ("error", "is_shown"), [(UserError("Hello there"), False), (RuntimeError("Hello there"), True)]
)
def test_a_text_that_an_error_quotes_is_not_logged(speaker, monkeypatch, caplog, error, is_shown):
    """What else fails is shown in full."""
    got = []

    def fail(pieces):
        speaker.close()
        raise error

    monkeypatch.setattr(speaker.synthesizer, "speak_together", fail)
    speaker.add(speech_of("Hi.", got))
    speaker._work(speaker._to_decode, speaker._decode)
    assert got == [error]
    assert "speaking failed" in caplog.text
    assert ("Hello there" in caplog.text) == is_shown


def test_a_thread_without_work_looks_after_the_speeches_each_second(speaker, monkeypatch):
    gone = speech_of("a", got := [], cancelled=True)
    speaker.active.append(gone)
    waited = []
    monkeypatch.setattr(
        speaker.changed, "wait", lambda seconds: waited.append(seconds) or setattr(speaker, "_closed", True)
    )
    speaker._work(list, None)
    assert waited == [1.0] and got == [None] and speaker.active == []


def test_whoever_comes_or_goes_wakes_the_threads(speaker, monkeypatch):
    woken = []
    monkeypatch.setattr(speaker.changed, "notify_all", lambda: woken.append(True))
    speech = speech_of()
    for act in (
        lambda: speaker.add(speech),
        lambda: speaker.take(speech, 1),
        lambda: speaker.cancel(speech),
        speaker.close,
    ):
        act()
    assert len(woken) == 4 and speech.cancelled
