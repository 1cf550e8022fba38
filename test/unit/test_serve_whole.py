"""How an answer of the service begins, goes on and ends: bytes, events and errors, without a network."""

import asyncio
import base64
import json
from collections import deque
from types import SimpleNamespace

import pytest
from delivered import SPOKEN, A, B, listed, run, sound_of

from common.program import UserError

application = pytest.importorskip("tools.serve.application", reason="requirement-serve.txt is not installed")
errors = pytest.importorskip("tools.serve.errors")


def request(*gone):
    looks = deque(gone)

    async def is_disconnected():
        return looks.popleft() if looks else False

    return SimpleNamespace(is_disconnected=is_disconnected)


def test_an_answer_begins_with_its_first_audio():
    async def begin():
        return await listed(await application.begun(request(), sound_of(SPOKEN, SPOKEN, A, B)))

    assert run(begin()) == [SPOKEN, SPOKEN, A, B]


def test_what_fails_before_it_has_an_error_status_and_keeps_its_reason_to_itself():
    async def begin():
        await application.begun(request(), sound_of(SPOKEN, ValueError("secret")))

    with pytest.raises(errors.RefusalError, match=r"^speaking failed, the service's log says why$") as error:
        run(begin())
    assert (error.value.status, type(error.value.__cause__)) == (500, ValueError)


def test_a_client_that_has_gone_away_is_not_worked_for(monkeypatch):
    monkeypatch.setattr(application, "LOOK", 0.01)
    ended = []

    async def never():
        try:
            yield SPOKEN
            await asyncio.sleep(1000)
        finally:
            ended.append(True)

    async def begin():
        with pytest.raises(errors.RefusalError, match="the client has gone away") as error:
            await application.begun(request(False, True), never())
        await asyncio.sleep(0.01)
        return error.value.status

    assert run(begin()) == 499
    assert ended == [True]


@pytest.mark.parametrize(
    ("error", "said"),
    [(TimeoutError("no audio for 1 s"), "no audio for 1 s"), (UserError("quotes text"), "speaking failed")],
)
def test_what_fails_later_breaks_the_answer_off(caplog, error, said):
    """Its text is not logged."""

    async def go_on():
        return await listed(application.chained([A], sound_of(B, error)))

    with pytest.raises(errors.BrokenOffError):
        run(go_on())
    assert caplog.messages == [f"an answer broke off: {said}"]


def test_the_rest_is_closed_with_the_answer():
    closed = []

    async def rest():
        try:
            yield A
            yield B
        finally:
            closed.append(True)

    async def begin():
        sound = rest()
        first = [await anext(sound)]
        both = application.chained(first, sound)
        assert await anext(both) is A
        await both.aclose()
        return list(closed)

    assert run(begin()) == [True]


def encode(samples):
    """A format that gives bytes at every second call, and an end."""
    if samples is None:
        return b"end"
    return bytes(samples.tolist()) if len(samples) == 3 else b""


def test_audio_is_sent_as_soon_as_it_is_ready():
    async def send():
        return await listed(application.encoded(sound_of(SPOKEN, A, B, A), encode))

    assert run(send()) == [b"\1\2\3", b"\1\2\3", b"end"]


@pytest.mark.parametrize("details", [False, True])
def test_events_hold_the_same_audio_and_pieces_where_they_are_asked_for(monkeypatch, details):
    monkeypatch.setattr(application, "describe", lambda spoken: {"type": "speech.piece", "text": spoken.text})

    async def send():
        return await listed(application.events(sound_of(SPOKEN, A, B, A), encode, details))

    found = run(send())
    assert all(each.startswith("data: ") and each.endswith("\n\n") for each in found)
    told = [json.loads(each[len("data: ") :]) for each in found]
    audio = [
        {"type": "speech.audio.delta", "audio": base64.b64encode(part).decode()}
        for part in (b"\1\2\3", b"\1\2\3", b"end")
    ]
    usage = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    piece = [{"type": "speech.piece", "text": "Hi."}] if details else []
    assert told == [*piece, *audio, {"type": "speech.audio.done", "usage": usage}]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (499, "invalid_request_error"), (500, "server_error"), (503, "server_error")],
)
def test_errors_are_in_openai_s_form(status, kind):
    answer = errors.answer(errors.RefusalError(status, "What to do", "input", {"Retry-After": "3"}))
    assert json.loads(answer.body) == {"error": {"message": "What to do", "type": kind, "param": "input", "code": None}}
    assert (answer.status_code, answer.headers["retry-after"]) == (status, "3")
    plain = errors.answer(errors.RefusalError(status, "x"))
    assert json.loads(plain.body)["error"]["param"] is None
