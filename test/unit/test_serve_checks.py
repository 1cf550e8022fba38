"""What stands in front of the service: the key, the size and the time of a request, without a network."""

import asyncio
import json

import pytest

from common.program import UserError

checks = pytest.importorskip("tools.serve.limits", reason="requirement-serve.txt is not installed")
errors = pytest.importorskip("tools.serve.errors")
PATH = "/v1/audio/speech"


class Service:
    """An application behind the checks, which answers 200 with the body that it was given."""

    def __init__(self, key=b"", breaks_off=False):
        self.counted, self.bodies, self.behind, self.breaks_off = [], [], [], breaks_off
        self.checks = checks.RequestChecks(self.answer, key, lambda *both: self.counted.append(both))

    async def answer(self, scope, receive, send):
        if scope["type"] != "http":
            self.bodies.append(scope["type"])
            return
        self.bodies.append(await receive())
        self.behind.append(await receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if self.breaks_off:
            raise errors.BrokenOffError
        await send({"type": "http.response.body", "body": b"fine"})

    def ask(self, *messages, path=PATH, authorization=None, kind="http"):
        """Status, error message and headers of the answer; None where there is none."""
        left, sent = list(messages), []

        async def receive():
            return left.pop(0) if left else await asyncio.sleep(1000)

        async def send(message):
            sent.append(message)

        headers = [(b"authorization", authorization.encode())] if authorization else []
        scope = {"type": kind, "path": path, "headers": headers, "method": "POST"}
        asyncio.run(asyncio.wait_for(self.checks(scope, receive, send), 60))
        if not sent:
            return None
        body = b"".join(each.get("body", b"") for each in sent)
        said = json.loads(body)["error"]["message"] if sent[0]["status"] != 200 else body.decode()
        return sent[0]["status"], said, dict(sent[0]["headers"])


def part(body, more=False):
    return {"type": "http.request", "body": body, "more_body": more}


GONE = {"type": "http.disconnect"}


def test_a_body_is_given_on_as_a_whole_and_then_what_comes_behind_it():
    service = Service()
    assert service.ask(part(b"a", True), part(b"b", True), {"type": "http.request"}, GONE)[:2] == (200, "fine")
    assert service.bodies == [{"type": "http.request", "body": b"ab", "more_body": False}]
    assert service.behind == [GONE]
    assert service.counted == [(PATH, 200)]


@pytest.mark.parametrize(("size", "status"), [(64 * 1024, 200), (64 * 1024 + 1, 413)])
def test_a_request_has_64_kib_at_most(size, status):
    for parts in ([part(b"a" * size)], [part(b"a" * 1000, True), part(b"a" * (size - 1000))]):
        service = Service()
        found = service.ask(*parts, GONE)
        assert found[0] == status
        assert service.counted == [(PATH, status)]
        if status == 413:
            assert found[1] == "a request may have 65536 bytes at most" and not service.bodies
            assert found[2][b"connection"] == b"close"


def test_who_goes_away_before_is_not_answered():
    for messages in ([GONE], [part(b"a", True), GONE]):
        service = Service()
        assert service.ask(*messages) is None
        assert service.bodies == [] and service.counted == []


def test_a_body_that_does_not_arrive_is_answered(monkeypatch):
    monkeypatch.setattr(checks, "LONGEST_UPLOAD", 0.05)
    service = Service()
    assert service.ask(part(b"a", True))[:2] == (408, "the request did not arrive within 0.05 s")
    assert service.counted == [(PATH, 408)] and not service.bodies


def test_an_answer_that_broke_off_is_no_error_of_the_server():
    service = Service(breaks_off=True)
    assert service.ask(part(b""), GONE)[0] == 200


def test_what_is_no_request_passes():
    service = Service(key=b"secret")
    service.ask(kind="lifespan")
    assert service.bodies == ["lifespan"]


@pytest.mark.parametrize(
    ("authorization", "allowed"),
    [
        ("Bearer secret", True), ("bearer  secret ", True), ("BEARER secret", True), (None, False), ("Bearer", False),
        ("Bearer ", False),
        ("Bearer wrong", False), ("Bearer secret2", False), ("Basic secret", False), ("secret", False),
    ],
)  # fmt: skip
def test_the_key_is_asked_for(authorization, allowed):
    service = Service(key=b"secret")
    found = service.ask(part(b""), GONE, authorization=authorization)
    if allowed:
        assert found[0] == 200
    else:
        assert found[:2] == (401, "the key is missing or wrong: send it as Authorization: Bearer KEY")
        assert service.counted == [(PATH, 401)] and not service.bodies


@pytest.mark.parametrize(
    ("path", "asked"), [("/v1/models", True), ("/v1/x", True), ("/", False), ("/health", False), ("/v1", False)]
)
def test_where_the_key_is_asked_for(path, asked):
    assert Service(key=b"secret").ask(part(b""), GONE, path=path)[0] == (401 if asked else 200)
    assert Service().ask(part(b""), GONE, path=path)[0] == 200


def test_a_key_may_be_any_bytes():
    assert checks.is_allowed("Bearer \udcff", b"\xff")
    assert not checks.is_allowed("Bearer \udcff", b"\xfe")
    assert checks.is_allowed("whatever", b"")


def test_a_key_is_what_its_file_holds_and_an_empty_or_missing_file_is_refused(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"  a key \r\n")
    assert checks.read_key(str(path)) == b"a key"
    assert checks.read_key(None) == checks.read_key("") == b""
    path.write_bytes(b" \n")
    with pytest.raises(UserError, match=r"--api_key_file .*key is empty: put the key that clients must send into it"):
        checks.read_key(str(path))
    with pytest.raises(UserError, match=r"cannot read --api_key_file .*none: No such file or directory"):
        checks.read_key(str(tmp_path / "none"))


def test_the_limits_that_are_documented():
    assert checks.Limits() == checks.Limits(characters=4096, speeches=64, retry_after=2)
    assert (checks.LARGEST_BODY, checks.LONGEST_UPLOAD) == (65536, 20.0)


def test_a_body_that_is_too_large_in_all_is_not_read_to_its_end():
    """However small its parts are."""
    parts = iter([{"type": "http.request", "body": b"a" * 9000, "more_body": True}] * 9)

    async def receive():
        return next(parts)

    with pytest.raises(errors.RefusalError, match="65536 bytes at most") as refusal:
        asyncio.run(checks._read(receive))
    assert refusal.value.headers == {"Connection": "close"}  # else the rest of it would be taken for a request
    assert len(list(parts)) == 1  # nothing is read beyond the limit
