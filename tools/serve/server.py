"""The HTTP server: the same whatever is installed beside it, and without patience for requests that do not arrive."""

import asyncio

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from tools.serve import limits


class Connection(H11Protocol):
    """A client's connection, closed if it brings no request's head in time; uvicorn itself waits for ever."""

    deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own
        super().connection_made(transport)
        self._wait_for_request()

    def on_response_complete(self) -> None:
        before = self.cycle
        super().on_response_complete()
        if self.cycle is before:  # else the next request was there already
            self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._forget_deadline()

    def _wait_for_request(self) -> None:
        self._forget_deadline()
        self.deadline = self.loop.call_later(limits.LONGEST_UPLOAD, self._give_up, self.cycle)

    def _forget_deadline(self) -> None:
        if self.deadline:
            self.deadline.cancel()

    def _give_up(self, cycle: object) -> None:
        if self.cycle is cycle:  # no request has begun since
            self.transport.close()


def make_server(application: ASGIApp, seconds: int) -> uvicorn.Server:
    """The server of an application; ``seconds`` that its end leaves for what was begun."""
    return uvicorn.Server(
        uvicorn.Config(
            application, http=Connection, ws="none", log_level="warning", access_log=False,
            timeout_graceful_shutdown=seconds,
        )
    )  # fmt: skip
