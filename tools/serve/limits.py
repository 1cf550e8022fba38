"""What a client may do: how much, how many at once, and with which key."""

import asyncio
import hmac
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.files import open_input
from common.program import UserError
from tools.serve.errors import BrokenOffError, RefusalError, answer

LARGEST_BODY = 64 * 1024
"Bytes of a request. A text of 4,096 characters has at most 49 KB in JSON, if all of them are escaped."
LONGEST_UPLOAD = 20.0
"Seconds within which a request must have arrived."


@dataclass(frozen=True)
class Limits:
    """Limits of the service."""

    characters: int = 4096
    "Of a text, as OpenAI's."
    speeches: int = 64
    "At once, waiting ones included; one more gets 429."
    retry_after: int = 2
    "Seconds after which a client that got 429 may try again."


def read_key(path: str | None) -> bytes:
    """The key in a file, without blanks around it; empty for no file. UserError for one that holds none."""
    if not path:
        return b""
    try:
        with open_input(path) as file:
            key = file.read().strip()
    except OSError as error:
        raise UserError(f"cannot read --api_key_file {path}: {error.strerror}") from error
    if not key:
        raise UserError(f"--api_key_file {path} is empty: put the key that clients must send into it")
    return key


def is_allowed(authorization: str, key: bytes) -> bool:
    """Whether an Authorization header carries the key; the time that takes tells nothing about the key."""
    scheme, _, given = authorization.partition(" ")
    same = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), key)
    return not key or (same and scheme.lower() == "bearer")


class RequestChecks:
    """ASGI middleware in front of everything: the key of ``/v1/``, and a body that is small and comes in time.

    ``count`` is told path and status of each answer.
    """

    def __init__(self, app: ASGIApp, key: bytes, count: Callable[[str, int], None]):
        self.app, self.key, self.count = app, key, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.count(scope["path"], message["status"])
            await send(message)

        try:
            if scope["path"].startswith("/v1/"):
                self._check_key(Headers(scope=scope).get("authorization", ""))
            body = await asyncio.wait_for(_read(receive), LONGEST_UPLOAD)
        except asyncio.TimeoutError:
            await answer(RefusalError(408, f"the request did not arrive within {LONGEST_UPLOAD:g} s"))(
                scope, receive, counted
            )
        except RefusalError as refusal:
            await answer(refusal)(scope, receive, counted)
        else:
            if body is not None:
                with suppress(BrokenOffError):  # an answer without its end: the server closes the connection
                    await self.app(scope, _again(body, receive), counted)

    def _check_key(self, authorization: str) -> None:
        if not is_allowed(authorization, self.key):
            raise RefusalError(401, "the key is missing or wrong: send it as Authorization: Bearer KEY")


async def _read(receive: Receive) -> bytes | None:
    """The whole body; None if the client went away. RefusalError if it is too large."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > LARGEST_BODY:
            raise RefusalError(413, f"a request may have {LARGEST_BODY} bytes at most", headers={"Connection": "close"})
        if not message.get("more_body"):
            return body


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives the body once, and then what comes behind it."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return waiting.pop() if waiting else await receive()

    return next_message
