"""The service: OpenAI's interface to speech, with its errors, and what an operator looks at."""

import asyncio
import base64
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Literal, TypeAlias

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from common.program import UserError
from common.voices import Settings
from tacotron2.synthesizer import Spoken
from tools.serve import page
from tools.serve.audio_formats import MEDIA_TYPES, Encoder, make_encoder
from tools.serve.details import describe
from tools.serve.errors import BrokenOffError, RefusalError, answer
from tools.serve.limits import Limits, RequestChecks
from tools.serve.speaker import Item, Speaker, Speech
from tools.serve.voices import Entry, Voices

log = logging.getLogger(__name__)

Sound: TypeAlias = AsyncGenerator[np.ndarray | Spoken, None]
"Samples as they are made; before those of each piece, its ``Spoken``."

MODEL = "tacotron2-waveglow"
LOOK = 1.0
"Seconds between checks that a client that waits for its first audio is still there."
LONGEST_SILENCE = 120.0
"Seconds that a request waits for its next audio."


class VoiceName(BaseModel):
    """OpenAI's other way to name a voice."""

    id: str


class Wish(BaseModel):
    """The body of a request for speech: OpenAI's, and what these models can be told beyond it."""

    input: str
    model: str = MODEL
    voice: str | VoiceName = ""
    response_format: Literal["wav", "pcm", "flac", "mp3", "opus"] = "mp3"
    stream_format: Literal["audio", "sse"] = "audio"
    seed: int = Field(1234, ge=0, lt=2**63)
    sigma: float | None = Field(None, ge=0, le=10)
    denoiser_strength: float | None = Field(None, ge=0, le=10)
    details: bool = False
    "Whether to send an event for each piece of the text, too: its spectrogram, alignment, gate and flaw."


class Metrics:
    """What /metrics tells."""

    def __init__(self, voices: Voices):
        self.registry = CollectorRegistry()
        self.requests = Counter("speech_requests", "Requests, by status", ["status"], registry=self.registry)
        self.seconds = Counter("speech_audio_seconds", "Seconds of audio sent", registry=self.registry)
        self.first = Histogram("speech_first_audio_seconds", "Time to the first audio", registry=self.registry)
        active = Gauge("speech_active", "Texts that wait or are being spoken", registry=self.registry)
        active.set_function(lambda: voices.active)

    def count(self, path: str, status: int) -> None:
        """Take note of an answer."""
        if path == "/v1/audio/speech":
            self.requests.labels(status).inc()


def make_application(voices: Voices, limits: Limits, key: bytes) -> FastAPI:
    """The service of these voices; with ``key`` only for those who send it."""
    app = FastAPI(title="Tacotron2 and WaveGlow", docs_url=None, redoc_url=None)
    metrics = Metrics(voices)
    app.add_middleware(RequestChecks, key=key, count=metrics.count)
    app.include_router(page.router)

    @app.post("/v1/audio/speech")
    async def speak(wish: Wish, request: Request) -> Response:
        entry = voices.entry(wish.voice if isinstance(wish.voice, str) else wish.voice.id)
        if len(wish.input) > limits.characters:
            what = f"the text has {len(wish.input)} characters, at most {limits.characters} are allowed"
            raise RefusalError(400, what, "input")
        check_queue(voices, limits)
        speaker = await voices.speaker(entry)
        check_queue(voices, limits)  # others may have come while the voice was loaded
        speech, queue = begin(wish, speaker, entry.settings)
        encode = make_encoder(wish.response_format, speaker.rate)
        speaker.add(speech)
        sound = await begun(request, samples_of(speech, queue, speaker, metrics))
        if wish.stream_format == "sse":
            return StreamingResponse(events(sound, encode, wish.details), media_type="text/event-stream")
        return StreamingResponse(encoded(sound, encode), media_type=MEDIA_TYPES[wish.response_format])

    @app.get("/v1/models")
    async def models() -> dict:
        return {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "local"}]}

    @app.get("/v1/audio/voices")
    async def list_voices() -> dict:
        return {"voices": [about(entry) for entry in voices.entries.values()]}

    @app.get("/health")
    async def health() -> dict:
        return {"status": "ok", "active": voices.active}

    @app.get("/metrics")
    async def tell_metrics() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(RefusalError)
    async def refused(_: Request, error: RefusalError) -> Response:
        return answer(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return answer(explained(error.errors()[0]))

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> Response:
        return answer(RefusalError(error.status_code, str(error.detail)))

    return app


def explained(problem: dict) -> RefusalError:
    """What is wrong with a body, of pydantic's words: the parameter, or that it is none of JSON's objects."""
    if problem["type"] == "json_invalid":
        _, place = problem["loc"]
        return RefusalError(400, f"the body is not JSON: {problem['ctx']['error']} (character {place})")
    _, *where = problem["loc"]
    if not where:
        return RefusalError(400, "the body must be an object of JSON, sent with Content-Type: application/json")
    return RefusalError(400, f"{where[0]}: {problem['msg']}", where[0])


def about(entry: Entry) -> dict:
    """What clients are told of a voice."""
    defaults = {"sigma": entry.settings.sigma, "denoiser_strength": entry.settings.denoiser_strength}
    return {"id": entry.name, "name": entry.name, "sampling_rate": entry.rate} | defaults


def check_queue(voices: Voices, limits: Limits) -> None:
    """RefusalError if no further text may wait."""
    if voices.active >= limits.speeches:
        retry = {"Retry-After": str(limits.retry_after)}
        raise RefusalError(429, f"{limits.speeches} texts are being spoken: try again later", headers=retry)


def begin(wish: Wish, speaker: Speaker, settings: Settings) -> tuple[Speech, asyncio.Queue[Item]]:
    """The speech that is wished for, and the queue that will get its samples. RefusalError if there cannot be one."""
    try:
        pieces = speaker.synthesizer.take_apart(wish.input)
    except UserError as error:
        raise RefusalError(400, str(error), "input") from error
    if not pieces:
        raise RefusalError(400, "nothing of the text can be spoken, it needs letters or digits", "input")
    queue: asyncio.Queue[Item] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    sigma = settings.sigma if wish.sigma is None else wish.sigma
    strength = settings.denoiser_strength if wish.denoiser_strength is None else wish.denoiser_strength

    def deliver(item: Item) -> None:
        with suppress(RuntimeError):  # the service has ended meanwhile
            loop.call_soon_threadsafe(queue.put_nowait, item)

    return Speech(pieces, wish.seed, sigma, strength, deliver), queue


async def samples_of(speech: Speech, queue: asyncio.Queue[Item], speaker: Speaker, metrics: Metrics) -> Sound:
    """What the speaker's threads deliver. Whoever stops listening ends the work for it; an error is raised."""
    try:
        while (item := await next_of(queue)) is not None:
            if isinstance(item, Exception):
                raise item
            if isinstance(item, Spoken):
                yield item
                continue
            if not speech.taken:
                metrics.first.observe(speech.heard_from - speech.began)
            yield item
            speaker.take(speech, len(item))
            metrics.seconds.inc(len(item) / speaker.rate)
    finally:
        speaker.cancel(speech)


async def next_of(queue: asyncio.Queue[Item]) -> Item:
    try:
        return await asyncio.wait_for(queue.get(), LONGEST_SILENCE)
    except asyncio.TimeoutError:
        raise TimeoutError(f"no audio was made for {LONGEST_SILENCE:g} s") from None


async def begun(request: Request, sound: Sound) -> Sound:
    """The same sound, once its first audio is there: what fails before gets an error status, on which clients retry.

    RefusalError for such a failure, and for a client that has gone away.
    """
    first = asyncio.ensure_future(up_to_audio(sound))
    try:
        while not first.done():
            await asyncio.wait([first], timeout=LOOK)
            if not first.done() and await request.is_disconnected():
                raise RefusalError(499, "the client has gone away")
    finally:
        first.cancel()  # unless it is done
    try:
        return chained(first.result(), sound)
    except Exception as error:
        raise RefusalError(500, "speaking failed, the service's log says why") from error


async def up_to_audio(sound: Sound) -> list[np.ndarray | Spoken]:
    items = []
    async for item in sound:
        items.append(item)
        if isinstance(item, np.ndarray):
            break
    return items


async def chained(first: list[np.ndarray | Spoken], rest: Sound) -> Sound:
    """One behind the other. BrokenOffError if the rest fails."""
    try:
        for item in first:
            yield item
        async for item in rest:
            yield item
    except Exception as error:
        # What else fails is in the log already, and may quote the text.
        log.error("an answer broke off: %s", error if isinstance(error, TimeoutError) else "speaking failed")
        raise BrokenOffError from error
    finally:
        await rest.aclose()


async def encoded(sound: Sound, encode: Encoder) -> AsyncIterator[bytes]:
    async for item in sound:
        if isinstance(item, np.ndarray) and (ready := encode(item)):
            yield ready
    yield encode(None)


async def events(sound: Sound, encode: Encoder, with_details: bool) -> AsyncIterator[str]:
    """OpenAI's server-sent events: the same bytes in base64; ``with_details`` also what was spoken."""
    async for item in sound:
        if isinstance(item, np.ndarray):
            if ready := encode(item):
                yield audio_event(ready)
        elif with_details:
            yield event(await asyncio.to_thread(describe, item))
    yield audio_event(encode(None))
    usage = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    yield event({"type": "speech.audio.done", "usage": usage})


def audio_event(audio: bytes) -> str:
    return event({"type": "speech.audio.delta", "audio": base64.b64encode(audio).decode()})


def event(values: dict) -> str:
    return f"data: {json.dumps(values)}\n\n"
