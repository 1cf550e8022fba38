"""The service under too many requests at once, and under one that never arrives."""

import asyncio
import socket
from contextlib import suppress

import httpx2
import pytest

pytest.importorskip("fastapi", reason="requirement-serve.txt is not installed")
limits = pytest.importorskip("tools.serve.limits")

pytest_plugins = ["serving"]
PATH = "/v1/audio/speech"


def test_each_of_200_connections_at_once_is_answered(serve):
    """So many that the queue is full: each is answered, by speech or by a refusal."""
    address = serve(speeches=16)

    async def ask_all():
        connections = httpx2.Limits(max_connections=200)
        async with httpx2.AsyncClient(base_url=address, timeout=120, limits=connections) as client:
            return await asyncio.gather(*(client.post(PATH, json={"input": "Hi."}) for _ in range(200)))

    codes = [answer.status_code for answer in asyncio.run(ask_all())]
    assert set(codes) <= {200, 429}
    assert codes.count(200) >= 16


def test_a_request_that_does_not_arrive_is_answered(serve, monkeypatch):
    monkeypatch.setattr(limits, "LONGEST_UPLOAD", 0.2)
    host, _, port = serve().removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100\r\n\r\nonly this".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("before", [b"", b"GET /health HTTP/1.1\r\nHost: here\r\n\r\n"])
def test_a_head_that_does_not_arrive_closes_the_connection(serve, monkeypatch, before):
    """A new one, and one that has had an answer."""
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
