"""The service under too many requests at once, and under one that never arrives."""

import asyncio
import socket
from contextlib import suppress

import httpx2
import pytest

pytest.importorskip("fastapi", reason="requirement-serve.txt is not installed")
limits = pytest.importorskip("tools.serve.limits")
errors = pytest.importorskip("tools.serve.errors")

pytest_plugins = ["serving"]
PATH = "/v1/audio/speech"


def test_200_connections_at_once(serve):
    """So many that the queue is full: each is answered, by speech or by a refusal."""
    address = serve(speeches=16)

    async def ask_all():
        connections = httpx2.Limits(max_connections=200)
        async with httpx2.AsyncClient(base_url=address, timeout=120, limits=connections) as client:
            return await asyncio.gather(*(client.post(PATH, json={"input": "Hi."}) for _ in range(200)))

    codes = [answer.status_code for answer in asyncio.run(ask_all())]
    assert set(codes) <= {200, 429}
    assert codes.count(200) >= 16


def test_a_body_that_is_too_large_in_all():
    """However small its parts are."""
    parts = iter([{"type": "http.request", "body": b"a" * 9000, "more_body": True}] * 9)

    async def receive():
        return next(parts)

    with pytest.raises(errors.RefusalError, match="65536 bytes at most") as refusal:
        asyncio.run(limits._read(receive))
    assert refusal.value.headers == {"Connection": "close"}  # else the rest of it would be taken for a request
    assert len(list(parts)) == 1  # nothing is read beyond the limit


def test_a_request_that_does_not_arrive(serve, monkeypatch):
    monkeypatch.setattr(limits, "LONGEST_UPLOAD", 0.2)
    host, _, port = serve().removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100\r\n\r\nonly this".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("before", [b"", b"GET /health HTTP/1.1\r\nHost: here\r\n\r\n"])
def test_a_head_that_does_not_arrive(serve, monkeypatch, before):
    """On a new connection, and on one that has had an answer: it is closed."""
    monkeypatch.setattr(limits, "LONGEST_UPLOAD", 0.2)
    host, _, port = serve().removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(before)
        answer = connection.recv(1000) if before else b""
        with suppress(ConnectionError):  # closed before the half head came
            connection.sendall(b"GET /health HTTP/1.1\r\n")
            while more := connection.recv(1000):  # the rest of an answer may come by itself
                answer += more
    assert answer.count(b"HTTP/1.1 200 ") == answer.count(b"HTTP/1.1") == bool(before)


def test_the_key_is_asked_for_wherever_clients_are_answered(serve):
    address = serve(key=b"secret")
    for path in ("/v1/audio/speech", "/v1/audio/voices", "/v1/models", "/v1/nothing"):
        assert httpx2.get(address + path).status_code == 401, path
    for path in ("/", "/health", "/metrics"):
        assert httpx2.get(address + path).status_code == 200, path


@pytest.mark.parametrize(
    ("name", "least", "most"), [("seed", 0, 2**63 - 1), ("sigma", 0, 10), ("denoiser_strength", 0, 10)]
)
def test_numbers_of_a_wish_lie_within_their_bounds(name, least, most):
    wish = pytest.importorskip("tools.serve.application").Wish
    for value in (least, most):
        assert getattr(wish(input="Hi.", **{name: value}), name) == value
    for value in (least - 1, most + 1, float("nan")):
        with pytest.raises(ValueError, match=name):
            wish(input="Hi.", **{name: value})
