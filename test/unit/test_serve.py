"""tools/serve: OpenAI's interface with OpenAI's client, streams that equal the whole, limits, clients that go away."""

import asyncio
import base64
import io
import json
import logging
import threading
import time
from http.client import HTTPConnection

import httpx2
import numpy as np
import pytest
import soundfile
import torch
from running_programs import wait_for

from conftest import RATE
from serving import SETTINGS, TEXT, assert_same, hold, whole

openai = pytest.importorskip("openai", reason="requirement-serve.txt is not installed")
uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")
speaker_module = pytest.importorskip("tools.serve.speaker")
application = pytest.importorskip("tools.serve.application")

pytest_plugins = ["serving"]
MODEL = application.MODEL
Speaker, Speech = speaker_module.Speaker, speaker_module.Speech
Voices = application.Voices


def client_of(address, key="any"):
    return openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0, timeout=60)


def speak(client, text=TEXT, form="pcm", **more):
    return client.audio.speech.create(model=MODEL, voice="toy", input=text, response_format=form, **more).content


@pytest.mark.parametrize("chunks", [(2, 3, 4), (1000,)])
def test_a_stream_equals_the_whole(speaker, serve, monkeypatch, chunks):
    monkeypatch.setattr(speaker_module, "CHUNK_FRAMES", chunks)
    expected = whole(speaker)
    assert np.abs(expected).max() > 300
    assert_same(np.frombuffer(speak(client_of(serve())), np.int16), expected)


def test_the_first_sentence_is_heard_while_others_are_made(speaker, serve, monkeypatch):
    """The second sentence is not decoded before the first one's audio is read."""
    heard = threading.Event()
    together = speaker.synthesizer.speak_together

    def wait_at_second(pieces, *tries):
        assert pieces[0][2] == 0 or heard.wait(120)
        return together(pieces, *tries)

    monkeypatch.setattr(speaker.synthesizer, "speak_together", wait_at_second)
    create = client_of(serve()).audio.speech.with_streaming_response.create
    with create(model=MODEL, voice="toy", input=TEXT, response_format="pcm") as answer:
        parts = answer.iter_bytes()
        first = next(parts)
        heard.set()
        rest = b"".join(parts)
    assert_same(np.frombuffer(first + rest, np.int16), whole(speaker))


@pytest.mark.parametrize(("form", "rate"), [("wav", RATE), ("flac", RATE), ("mp3", RATE), ("opus", 24000)])
def test_each_format_is_the_same_speech(speaker, serve, form, rate):
    expected = whole(speaker)
    with soundfile.SoundFile(io.BytesIO(speak(client_of(serve()), form=form))) as file:
        audio, found = file.read(10 * RATE, dtype="int16"), file.samplerate
    # libsndfile tells Opus' rate as the decoder's, which may be any of its own.
    assert found in (rate, 48000)
    assert len(audio) / found == pytest.approx(len(expected) / RATE, abs=0.1)
    if form in ("wav", "flac"):
        assert_same(audio, expected)
    else:
        loudness = lambda samples: np.sqrt(np.mean(samples.astype(float) ** 2))  # noqa: E731
        assert loudness(audio) == pytest.approx(loudness(expected), rel=0.5)


def test_speech_does_not_depend_on_what_else_is_spoken(speaker, serve):
    client = client_of(serve())
    # The last three are of one length: whichever is first, two are left that are decoded together.
    texts = ["Hello there.", "A longer sentence, this one. And one more.", "Hello here.", "Go in!", "Go on!", "Go up!"]
    batches = []
    together = speaker.synthesizer.speak_together
    found = {}

    def together_once_all_are_there(pieces, *tries):
        if not batches:
            wait_for(lambda: len(speaker.active) == len(texts))
        batches.append(len(pieces))
        return together(pieces, *tries)

    speaker.synthesizer.speak_together = together_once_all_are_there

    def ask(number):
        found[number] = np.frombuffer(speak(client, texts[number], extra_body={"seed": number}), np.int16)

    threads = [threading.Thread(target=ask, args=[number]) for number in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert max(batches) > 1
    for number, text in enumerate(texts):
        assert_same(found[number], whole(speaker, text, seed=number))


def test_short_sentences_do_not_wait_for_long_ones(speaker):
    def speech(text, began):
        return Speech(speaker.synthesizer.take_apart(text), 1, 1.0, 0.0, lambda item: None, began=began)

    long, short, other = speech("A very long sentence, which takes its time.", 2), speech("Go!", 1), speech("Go on!", 3)
    with speaker.changed:
        speaker.active += [long, short, other]
        assert speaker._to_decode() == [short]
        long.made, long.heard_from = RATE, -0.5  # runs out of sound at 0.5
        assert speaker._to_decode() == [long, short, other]
        for each in (long, short):
            each.spoken.append(each)
        assert speaker._to_vocode() == [long]
        long.made += RATE  # at 1.5
        assert speaker._to_vocode() == [short]
        short.made, short.heard_from = RATE, 1.0  # at 2.0
        assert speaker._to_vocode() == [long]
        long.made += 31 * RATE  # nobody takes it
        assert speaker._to_vocode() == [short]
        assert speaker._in_turn([long]) == []
        long.taken = 10 * RATE
        assert speaker._in_turn([long]) == [long]
        short.spoken *= speaker_module.DECODED_AHEAD
        assert speaker._to_decode() == [other]
        speaker.active.clear()


def test_events_hold_the_same_audio(speaker, serve):
    create = client_of(serve()).audio.speech.with_streaming_response.create
    with create(model=MODEL, voice="toy", input=TEXT, response_format="pcm", stream_format="sse") as answer:
        lines = [line for line in answer.iter_lines() if line]
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert [each["type"] for each in events[-2:]] == ["speech.audio.delta", "speech.audio.done"]
    audio = b"".join(base64.b64decode(each["audio"]) for each in events[:-1])
    assert_same(np.frombuffer(audio, np.int16), whole(speaker))


def test_models_voices_health_and_figures_can_be_asked_for(speaker, serve):
    address = serve()
    client = client_of(address)
    assert [each.id for each in client.models.list()] == [MODEL]
    speak(client)
    get = lambda path: client._client.get(f"{address}{path}")  # noqa: E731
    assert get("/v1/audio/voices").json() == {
        "voices": [{"id": "toy", "name": "toy", "sampling_rate": RATE, "sigma": 0.3, "denoiser_strength": 0.2}]
    }
    assert get("/health").json() == {"status": "ok", "active": 0}
    assert "version=" in get("/metrics").headers["content-type"]  # of Prometheus's format, by which it is read
    told = get("/metrics").text
    assert 'speech_requests_total{status="200"} 1.0' in told
    assert "speech_first_audio_seconds_count 1.0" in told
    assert f"speech_audio_seconds_total {len(whole(speaker)) / RATE}"[:32] in told


@pytest.mark.parametrize(
    ("wish", "message", "param"),
    [
        ({"voice": "alloy"}, "there is no voice 'alloy': choose from toy", "voice"),
        ({"input": ""}, "nothing of the text can be spoken", "input"),
        ({"input": "***"}, "nothing of the text can be spoken", "input"),
        ({"input": "a" * 101}, "the text has 101 characters, at most 100 are allowed", "input"),
        ({"input": "{" + "AH0 " * 24 * 8 + "}"}, "characters", "input"),
        ({"response_format": "aac"}, "response_format: ", "response_format"),
        ({"extra_body": {"seed": -1}}, "seed: ", "seed"),
        ({"extra_body": {"sigma": "loud"}}, "sigma: ", "sigma"),
        ({"extra_body": {"input": 7}}, "input: ", "input"),
        ({"extra_body": {"voice": ["toy"]}}, "voice: ", "voice"),
        ({"extra_body": {"voice": {"name": "toy"}}}, "voice: ", "voice"),
    ],
)
def test_a_wish_that_cannot_be_met_is_refused_with_its_parameter(serve, wish, message, param):
    client = client_of(serve(characters=100))
    with pytest.raises(openai.BadRequestError) as error:
        client.audio.speech.create(**{"model": MODEL, "voice": "toy", "input": "Hi."} | wish)
    assert message in error.value.body["message"]
    assert error.value.body["param"] == param
    assert error.value.body["type"] == "invalid_request_error"
    assert len(speak(client, "Hi. " * 25)) > 0  # 100 characters


@pytest.mark.parametrize("wished", [None, 0.0, 0.7])
def test_what_is_not_wished_for_is_as_the_voice_has_it(speaker, wished):
    wish = application.Wish(input="Hi.", sigma=wished, denoiser_strength=wished)

    async def begin():
        return application.begin(wish, speaker, SETTINGS)[0]

    speech = asyncio.run(begin())
    expected = (SETTINGS.sigma, SETTINGS.denoiser_strength) if wished is None else (wished, wished)
    assert (speech.sigma, speech.denoiser_strength) == expected


def test_malformed_and_huge_requests_are_refused_and_the_service_goes_on(serve):
    address = serve()
    client = client_of(address)
    post = lambda content: client._client.post(  # noqa: E731
        f"{address}/v1/audio/speech", content=content, headers={"Content-Type": "application/json"}
    )
    for content, message in (
        (b"{nonsense", "the body is not JSON: Expecting property name enclosed in double quotes (character 1)"),
        (b"\xff\xfe", "the body is not JSON: "),
        (b"", "the body must be an object of JSON, sent with Content-Type: application/json"),
        (b"[]", "the body must be an object of JSON, sent with Content-Type: application/json"),
    ):
        answer = post(content)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, None)
        assert message in answer.json()["error"]["message"]
    assert post(b'{"input": "' + b"a" * 70_000 + b'"}').status_code == 413
    assert post(iter([b"a" * 9000] * 9)).status_code == 413
    assert client._client.get(f"{address}/nowhere").json()["error"]["message"] == "Not Found"
    assert len(speak(client)) > 0


def test_who_has_not_the_key_gets_no_speech(serve):
    address = serve(key=b"secret")
    with pytest.raises(openai.AuthenticationError, match="the key is missing or wrong"):
        speak(client_of(address, "wrong"))
    assert len(speak(client_of(address, "secret"))) > 0
    assert client_of(address)._client.get(f"{address}/health").status_code == 200


def test_a_full_queue_refuses_until_there_is_room(speaker, serve, monkeypatch):
    address = serve(speeches=1)
    waiting = Speech(speaker.synthesizer.take_apart("Hi."), 1, 1.0, 0.0, lambda item: None)
    waiting.made = 40 * RATE  # its reader is slow
    waiting.heard_from = time.monotonic()
    speaker.add(waiting)
    with pytest.raises(openai.RateLimitError, match="1 texts are being spoken") as error:
        speak(client_of(address))
    assert error.value.response.headers["retry-after"] == "2"
    speaker.cancel(waiting)
    wait_for(lambda: not speaker.active)
    assert len(speak(client_of(address))) > 0
    # Others may have come while the voice was loaded.
    load, waiting.cancelled = Voices.speaker, False

    async def slowly(self, entry):
        speaker.add(waiting)
        return await load(self, entry)

    monkeypatch.setattr(Voices, "speaker", slowly)
    with pytest.raises(openai.RateLimitError, match="1 texts are being spoken"):
        speak(client_of(address))


def test_a_reader_who_takes_nothing_is_given_up(speaker, monkeypatch):
    got = []
    monkeypatch.setattr(speaker_module, "LONGEST_WAIT", 0.2)
    monkeypatch.setattr(speaker_module, "SECONDS_AHEAD", 0.01)
    speaker.add(Speech(speaker.synthesizer.take_apart(TEXT), 1, 1.0, 0.0, got.append))
    wait_for(lambda: not speaker.active)
    assert isinstance(got[-1], TimeoutError)


def test_a_client_that_goes_away_stops_its_work(speaker, serve, monkeypatch):
    monkeypatch.setattr(speaker_module, "CHUNK_FRAMES", (1,))
    address, go_on = serve(), hold(speaker, monkeypatch, after=1)
    text = "Hello there. " * 100
    with client_of(address).audio.speech.with_streaming_response.create(
        model=MODEL, voice="toy", input=text, response_format="pcm"
    ) as answer:
        chunks = answer.iter_bytes()  # kept, since with it the client goes away
        next(chunks)
        (speech,) = speaker.active
    wait_for(lambda: speech.cancelled)
    go_on.set()
    wait_for(lambda: not speaker.active)
    assert speech.decoded < len(speech.pieces)
    assert len(speak(client_of(address))) > 0


def test_a_client_that_goes_away_before_the_first_audio_stops_its_work(speaker, serve, monkeypatch):
    monkeypatch.setattr(application, "LOOK", 0.05)
    address, go_on = serve(), hold(speaker, monkeypatch, after=0)
    connection = HTTPConnection(address.removeprefix("http://"))
    wish = json.dumps({"input": "Hello there. " * 100})
    connection.request("POST", "/v1/audio/speech", wish, {"Content-Type": "application/json"})
    wait_for(lambda: speaker.active)
    (speech,) = speaker.active
    connection.close()
    wait_for(lambda: speech.cancelled)
    go_on.set()
    wait_for(lambda: not speaker.active)
    assert speech.decoded <= 1
    assert len(speak(client_of(address))) > 0


@pytest.mark.parametrize(("good", "expected"), [(0, "speaking failed"), (1, "closed|incomplete|Connection")])
def test_an_error_ends_only_its_own_answer(speaker, serve, monkeypatch, caplog, good, expected):
    """Before the first audio it has a status; later the client sees that the answer is not whole. It is logged once."""
    address = serve()
    monkeypatch.setattr(logging.getLogger("uvicorn"), "propagate", True)
    monkeypatch.setattr(speaker_module, "CHUNK_FRAMES", (5,))
    is_finite, chunks = torch.isfinite, []

    def some_are_finite(values):
        if values.ndim > 1:  # a spectrogram
            return is_finite(values)
        chunks.append(values)
        return torch.tensor(len(chunks) <= good)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "isfinite", some_are_finite)
        with pytest.raises(Exception, match=expected) as error:
            speak(client_of(address))
    assert isinstance(error.value, openai.InternalServerError) == (good == 0)
    wait_for(lambda: not speaker.active)
    assert [record.message for record in caplog.records if record.exc_info] == ["speaking failed"]
    assert_same(np.frombuffer(speak(client_of(address)), np.int16), whole(speaker))


def test_the_key_is_asked_for_wherever_clients_are_answered(serve):
    address = serve(key=b"secret")
    for path in ("/v1/audio/speech", "/v1/audio/voices", "/v1/models", "/v1/nothing"):
        assert httpx2.get(address + path).status_code == 401, path
    for path in ("/", "/health", "/metrics"):
        assert httpx2.get(address + path).status_code == 200, path
