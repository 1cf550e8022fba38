"""A client's connection: when it is given up, and what the server is made of; without a network."""

from types import SimpleNamespace

import pytest

server = pytest.importorskip("tools.serve.server", reason="requirement-serve.txt is not installed")
limits = pytest.importorskip("tools.serve.limits")
Base = server.H11Protocol


class Clock:
    """An event loop that only notes what is to be called later."""

    def __init__(self):
        self.waiting = []

    def call_later(self, seconds, call, *given):
        handle = SimpleNamespace(seconds=seconds, call=lambda: call(*given))
        handle.cancel = lambda: self.waiting.remove(handle) if handle in self.waiting else None
        self.waiting.append(handle)
        return handle


@pytest.fixture
def connection(monkeypatch):
    """A new one, whose requests the test begins by another ``cycle``."""
    monkeypatch.setattr(Base, "connection_made", lambda self, transport: setattr(self, "transport", transport))
    monkeypatch.setattr(Base, "on_response_complete", lambda self: self.next_comes())
    monkeypatch.setattr(Base, "connection_lost", lambda self, exc: self.lost.append(exc))
    made = server.Connection.__new__(server.Connection)
    made.loop, made.cycle, made.next_comes, made.lost, closed = Clock(), None, lambda: None, [], []
    made.connection_made(SimpleNamespace(close=lambda: closed.append(True)))
    made.closed = closed
    return made


def give_up(connection):
    (deadline,) = connection.loop.waiting
    assert deadline.seconds == limits.LONGEST_UPLOAD
    deadline.call()
    return bool(connection.closed)


def test_a_connection_without_a_request_is_closed(connection):
    assert give_up(connection)


def test_one_with_a_request_is_not(connection):
    connection.cycle = "first"
    assert not give_up(connection)


def test_after_an_answer_it_may_wait_as_long_again(connection):
    connection.cycle = "first"
    connection.on_response_complete()
    assert give_up(connection)  # there is one deadline, the new one


def test_where_the_next_request_is_there_already_nobody_waits(connection):
    connection.cycle = "first"
    connection.deadline.cancel()
    connection.next_comes = lambda: setattr(connection, "cycle", "second")
    connection.on_response_complete()
    assert connection.loop.waiting == [] and not connection.closed


def test_one_that_is_lost_is_not_waited_for(connection):
    connection.connection_lost(None)
    assert connection.loop.waiting == [] and connection.lost == [None]


def test_the_server_leaves_time_for_what_was_begun():
    config = server.make_server("app", 7).config
    assert (config.app, config.http, config.ws, config.timeout_graceful_shutdown) == (
        "app",
        server.Connection,
        "none",
        7,
    )
    assert (config.access_log, config.log_level) == (False, "warning")
