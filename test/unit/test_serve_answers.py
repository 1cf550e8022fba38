"""What the service makes of what a speaker delivers: wishes, samples, numbers, without a network."""

import asyncio
from types import SimpleNamespace

import pytest
from delivered import SPOKEN, A, B, run

from common.program import UserError
from common.voices import Settings
from tacotron2.sentences import Piece

application = pytest.importorskip("tools.serve.application", reason="requirement-serve.txt is not installed")
errors = pytest.importorskip("tools.serve.errors")
limits = pytest.importorskip("tools.serve.limits")
voices = pytest.importorskip("tools.serve.voices")
RATE = 100


class FakeSpeaker:
    """Notes what is taken and given up; takes texts apart into words."""

    rate = RATE

    def __init__(self):
        self.did = []
        self.synthesizer = SimpleNamespace(take_apart=self.take_apart)

    def take_apart(self, text):
        if text == "bad":
            raise UserError("too many phones")
        return [Piece(text=word, pause=0.1, ids=[1]) for word in text.split()]

    def take(self, speech, samples):
        self.did.append(samples)

    def cancel(self, speech):
        self.did.append("cancelled")


# ---- what may be wished for ----


def test_what_is_not_said_in_a_wish():
    wish = application.Wish(input="Hi.")
    assert wish.model_dump() == {
        "input": "Hi.", "model": "tacotron2-waveglow", "voice": "", "response_format": "mp3", "stream_format": "audio",
        "seed": 1234, "sigma": None, "denoiser_strength": None, "details": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("problem", "message", "param"),
    [
        (
            {"type": "json_invalid", "loc": ("body", 7), "ctx": {"error": "Odd"}},
            "the body is not JSON: Odd (character 7)", None,
        ),
        ({"type": "missing", "loc": ("body",)}, "the body must be an object of JSON, sent with", None),
        ({"type": "x", "loc": ("body", "seed"), "msg": "is odd"}, "seed: is odd", "seed"),
        ({"type": "x", "loc": ("body", "voice", "VoiceName", "id"), "msg": "is odd"}, "voice: is odd", "voice"),
    ],
)  # fmt: skip
def test_a_body_that_is_wrong_is_explained(problem, message, param):
    refusal = application.explained(problem)
    assert (refusal.status, refusal.param) == (400, param)
    assert str(refusal).startswith(message)


def test_what_is_told_of_a_voice():
    entry = voices.Entry("anna", Settings(sigma=0.3, denoiser_strength=0.1), 16000)
    assert application.about(entry) == {
        "id": "anna", "name": "anna", "sampling_rate": 16000, "sigma": 0.3, "denoiser_strength": 0.1,
    }  # fmt: skip


@pytest.mark.parametrize(("active", "refused"), [(2, False), (3, True), (4, True)])
def test_a_queue_has_so_many_places(active, refused):
    check = lambda: application.check_queue(SimpleNamespace(active=active), limits.Limits(speeches=3, retry_after=7))  # noqa: E731
    if not refused:
        check()
        return
    with pytest.raises(errors.RefusalError, match=r"^3 texts are being spoken: try again later$") as error:
        check()
    assert (error.value.status, error.value.headers) == (429, {"Retry-After": "7"})


@pytest.mark.parametrize(
    ("text", "message"), [("", "nothing of the text can be spoken, it needs"), ("bad", "too many phones")]
)
def test_a_text_that_cannot_be_spoken_is_refused(text, message):
    async def begin():
        application.begin(application.Wish(input=text), FakeSpeaker(), Settings())

    with pytest.raises(errors.RefusalError, match=message) as error:
        run(begin())
    assert (error.value.status, error.value.param) == (400, "input")


def test_a_speech_is_as_it_was_wished_for_and_delivers_into_its_queue():
    async def begin():
        wish = application.Wish(input="One two", seed=7, sigma=0.9)
        speech, queue = application.begin(wish, FakeSpeaker(), Settings(sigma=0.3, denoiser_strength=0.2))
        await asyncio.to_thread(lambda: [speech.deliver(item) for item in ("a", "b")])
        return speech, [await queue.get() for _ in range(2)]

    speech, got = run(begin())
    assert [piece.text for piece in speech.pieces] == ["One", "two"]
    assert (speech.seed, speech.sigma, speech.denoiser_strength) == (7, 0.9, 0.2)
    assert got == ["a", "b"]
    speech.deliver("late")  # the service has ended meanwhile, which is no error


# ---- what is delivered ----


def taken(*items, stop_after=None):
    """What samples_of yields of these items, its speaker, and the numbers it counted."""
    speaker, metrics = FakeSpeaker(), application.Metrics(SimpleNamespace(active=3))
    found = []

    async def take():
        queue = asyncio.Queue()
        for item in items:
            queue.put_nowait(item)
        speech = SimpleNamespace(taken=0, heard_from=12.5, began=10.0)
        speaker.take = lambda each, samples: (speaker.did.append(samples), setattr(each, "taken", each.taken + samples))
        sound = application.samples_of(speech, queue, speaker, metrics)
        async for item in sound:
            found.append(item)
            if len(found) == stop_after:
                break
        await sound.aclose()

    try:
        run(take())
    finally:
        taken.speaker, taken.metrics = speaker, metrics
    return found


def counted(metrics, name):
    return metrics.registry.get_sample_value(name)


def test_samples_are_taken_one_after_the_other_and_counted():
    assert taken(SPOKEN, A, SPOKEN, B, None) == [SPOKEN, A, SPOKEN, B]
    assert taken.speaker.did == [3, 2, "cancelled"]
    assert counted(taken.metrics, "speech_audio_seconds_total") == 5 / RATE
    assert counted(taken.metrics, "speech_first_audio_seconds_sum") == 2.5
    assert counted(taken.metrics, "speech_first_audio_seconds_count") == 1
    assert counted(taken.metrics, "speech_active") == 3


def test_who_stops_listening_ends_the_work():
    assert taken(SPOKEN, A, B, None, stop_after=2) == [SPOKEN, A]
    assert taken.speaker.did == ["cancelled"]  # nobody has that chunk


def test_an_error_that_is_delivered_is_raised():
    with pytest.raises(FloatingPointError, match="odd"):
        taken(A, FloatingPointError("odd"), B, None)
    assert taken.speaker.did == [3, "cancelled"]


def test_silence_of_the_speaker_has_an_end(monkeypatch):
    monkeypatch.setattr(application, "LONGEST_SILENCE", 0.05)

    async def wait():
        await application.next_of(asyncio.Queue())

    with pytest.raises(TimeoutError, match=r"no audio was made for 0\.05 s"):
        run(wait())


def test_requests_for_speech_are_counted_by_their_status():
    metrics = application.Metrics(SimpleNamespace(active=0))
    for path, status in (("speech", 200), ("speech", 200), ("speech", 429), ("voices", 200)):
        metrics.count(f"/v1/audio/{path}", status)
    metrics.count("/health", 200)
    values = [metrics.registry.get_sample_value("speech_requests_total", {"status": each}) for each in ("200", "429")]
    assert values == [2, 1]


@pytest.mark.parametrize(
    ("name", "least", "most"), [("seed", 0, 2**63 - 1), ("sigma", 0, 10), ("denoiser_strength", 0, 10)]
)
def test_numbers_of_a_wish_lie_within_their_bounds(name, least, most):
    wish = application.Wish
    for value in (least, most):
        assert getattr(wish(input="Hi.", **{name: value}), name) == value
    for value in (least - 1, most + 1, float("nan")):
        with pytest.raises(ValueError, match=name):
            wish(input="Hi.", **{name: value})
