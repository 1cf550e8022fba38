"""How the service starts: what it is told reaches its parts, it listens when its voice is there, it can be ended."""

import asyncio
import logging
import signal
import socket
from types import SimpleNamespace

import pytest
from command_lines import read

from common.program import UserError

main = pytest.importorskip("tools.serve.main", reason="requirement-serve.txt is not installed")
loading = pytest.importorskip("tools.serve.loading")
errors = pytest.importorskip("tools.serve.errors")


@pytest.mark.parametrize("workers", [1, 3])
def test_all_that_it_is_told_is_used(monkeypatch, workers):
    did = {}
    monkeypatch.setattr(main, "open_log", lambda *_, **__: None)
    monkeypatch.setattr(main, "read_key", lambda path: f"key of {path}")
    monkeypatch.setattr(main, "hints_for_both", lambda args: "hints")
    monkeypatch.setattr(main, "find_voices", lambda *given: did.setdefault("voices", given) and ["entry"])
    monkeypatch.setattr(main, "make_engines", lambda *given: did.setdefault("engines", given))
    monkeypatch.setattr(main, "open_port", lambda *given: did.setdefault("port", given) and "place")
    monkeypatch.setattr(main, "serve", lambda *given, **more: did.setdefault("serve", (given, more)))
    monkeypatch.setattr(main, "run_workers", lambda *given: did.setdefault("workers", given))
    options = [
        "--tacotron2=t",
        "--waveglow=w",
        "--host=0.0.0.0",
        "--port=9",
        "--api_key_file=k",
        f"--workers={workers}",
    ]
    args = read(monkeypatch, main, *options)
    monkeypatch.setattr(main, "read_arguments", lambda: args)
    main.main()
    decoding = loading.Decoding("torch", "force_float32", args.models_dir)
    assert (did["voices"], did["port"]) == (("", "t", "w", "hints"), ("0.0.0.0", 9))
    assert "engines" not in did
    own = {"args": args, "key": "key of k", "entries": ["entry"], "decoding": decoding}
    if workers == 1:
        assert did["serve"] == ((0, "place", *own.values()), {})
    else:
        count, place, work, seconds = did["workers"]
        assert (count, place, seconds) == (3, "place", 130)
        work(2, "place")
        assert did["serve"] == ((2, "place"), own)
    args.engine, args.voice, args.tacotron2, args.waveglow = "onnxruntime", "anna", None, None
    did.clear()
    main.main()
    assert did["voices"][:3] == ("anna", "", "")
    assert did["engines"] == (["entry"], loading.Decoding("onnxruntime", "force_float32", args.models_dir))


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_a_port_is_listened_at(host, family):
    try:
        place = main.open_port(host, 0)
    except UserError:
        pytest.skip("this machine has no such address")
    with place:
        assert place.family == family
        port = place.getsockname()[1]
        with socket.create_connection((host, port), timeout=60):
            pass
        with pytest.raises(
            UserError, match=rf"cannot listen on {host}:{port} \(Address already in use\): choose another"
        ):
            main.open_port(host, port)
    with pytest.raises(UserError, match=r"cannot listen on no such host:1 \(.*choose another --host or --port"):
        main.open_port("no such host", 1)


def test_sigterm_ends_it_while_it_loads(monkeypatch):
    handlers = {}
    monkeypatch.setattr(main, "signal", SimpleNamespace(signal=handlers.__setitem__, SIGTERM=signal.SIGTERM))
    monkeypatch.setattr(main, "voices_on", lambda *_: None)
    monkeypatch.setattr(main, "answer", lambda *given: given)
    ran = []
    monkeypatch.setattr(main.asyncio, "run", ran.append)
    logger = logging.getLogger("tacotron2.synthesizer")
    before = logger.level
    main.serve(0, "place", read(monkeypatch, main, "--device=cpu", "--queue=7"), b"key", [], loading.Decoding())
    logger.setLevel(before)
    with pytest.raises(SystemExit) as end:
        handlers[signal.SIGTERM](signal.SIGTERM, None)
    assert end.value.code == 0
    ((_, limits, key, place),) = ran
    assert (limits.speeches, limits.characters, key, place) == (7, 4096, b"key", "place")


class Shelf:
    """Voices, of which the default one may not be there."""

    default = "anna"

    def __init__(self, error=None):
        self.error, self.did = error, []

    def entry(self, name):
        return f"entry of {name}"

    async def speaker(self, entry):
        self.did.append(entry)
        if self.error:
            raise self.error

    def close(self):
        self.did.append("closed")


@pytest.mark.parametrize("fails", [False, True])
def test_the_service_listens_when_the_default_voice_is_there_and_closes_all_at_the_end(monkeypatch, caplog, fails):
    caplog.set_level("INFO")
    shelf, made = Shelf(), []

    class Server:
        async def serve(self, places):
            shelf.did.append(places)
            if fails:
                raise KeyboardInterrupt

    monkeypatch.setattr(main, "make_application", lambda *given: made.append(given) or "app")
    monkeypatch.setattr(main, "make_server", lambda *given: made.append(given) or Server())
    place = SimpleNamespace(getsockname=lambda: ("127.0.0.1", 8123))
    try:
        asyncio.run(main.answer(shelf, "limits", b"key", place))
    except KeyboardInterrupt:
        assert fails
    assert shelf.did == ["entry of anna", [place], "closed"]
    assert made == [(shelf, "limits", b"key"), ("app", 120)]
    assert "listening on http://127.0.0.1:8123" in caplog.messages


def test_a_default_voice_that_cannot_be_loaded_is_told(monkeypatch):
    shelf = Shelf(errors.RefusalError(500, "the voice anna cannot be loaded"))
    with pytest.raises(UserError, match=r"^the voice anna cannot be loaded$"):
        asyncio.run(main.answer(shelf, None, b"", None))
