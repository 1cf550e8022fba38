"""Processes that start together: they meet at a store, say whom they wait for, and compare what must be the same."""

import json
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from torch.distributed import Store, TCPStore

from common.program import UserError, first_line, shown

SAY_AFTER = 30.0
"Seconds of waiting between two lines that say so."
POLL = 0.1
"Seconds between two looks at who has come."
CONNECTING = 5.0
"Seconds after which an address counts as not answering."
LONGEST_PARTING = 10.0
"Seconds in which the others have to read what they disagree on."
FIELDS_SHOWN = 3
"How many of the fields that differ are named; the others are only counted."


def connect(address: str, port: int, is_host: bool, limit: float, say: Callable[[str], None]) -> TCPStore:
    """The store at this address, which the process with ``is_host`` provides; UserError after ``limit`` seconds.

    As long as nobody answers there, ``say`` gets a line about it every half minute.
    """
    if not is_host:
        wait_for_answer(address, port, limit, say)
    try:
        return TCPStore(
            address, port, None, is_host, timedelta(seconds=limit), wait_for_workers=False, multi_tenant=True
        )
    except RuntimeError as error:
        raise UserError(f"no meeting at {address}:{port} (MASTER_ADDR, MASTER_PORT): {first_line(error)}") from error


def wait_for_answer(address: str, port: int, limit: float, say: Callable[[str], None]) -> None:
    """Wait until somebody listens there. torch's own waiting says nothing, or fills the terminal with its stack."""
    where = f"for the first process, at {address}:{port} (MASTER_ADDR, MASTER_PORT)"
    began, told = time.monotonic(), 0.0
    while True:
        try:
            return socket.create_connection((address, port), timeout=CONNECTING).close()
        except OSError as error:
            waited = time.monotonic() - began
            if waited >= limit:
                raise UserError(f"waited {limit:.0f} s {where}, which does not answer: {error}") from error
            if waited - told >= SAY_AFTER:
                told = waited
                say(f"waits {where}, for {waited:.0f} s so far, at most {limit:.0f} s: {error}")
            time.sleep(POLL)


def absent(
    store: Store, what: str, me: int, count: int, limit: float, tell: Callable[[list[int], float], None]
) -> list:
    """Which of ``count`` do not answer the call ``what`` within ``limit`` seconds; ``tell`` is told while this lasts.

    Nothing here waits inside the store, from which older PyTorch could not be called back.
    """
    store.add(f"{what}/{me}", 1)
    began, told = time.monotonic(), 0.0
    missing = list(range(count))
    while missing := [each for each in missing if not store.add(f"{what}/{each}", 0)]:
        waited = time.monotonic() - began
        if waited >= limit:
            break
        if waited - told >= SAY_AFTER:
            told = waited
            tell(missing, waited)
        time.sleep(POLL)
    return missing


def meet(
    store: Store, kind: str, me: int, count: int, facts: dict[str, Any], limit: float, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """The facts of all ``count`` processes of this kind (rank, machine), as soon as all are there.

    UserError after ``limit`` seconds, with the numbers of those that did not come.
    """

    def tell(missing: list[int], waited: float) -> None:
        said = f"{kind} {me} waits for {kind} {listed(missing)} of {count}"
        say(f"{said}, for {waited:.0f} s so far, at most {limit:.0f} s")

    store.set(f"facts/{me}", json.dumps(facts))
    if missing := absent(store, "here", me, count, limit, tell):
        raise UserError(
            f"{kind} {me} waited {limit:.0f} s for {kind} {listed(missing)} of {count}, which did not come: were all"
            " started? Variables of another launch (RANK, WORLD_SIZE) have the same effect: unset them"
        )
    return [json.loads(store.get(f"facts/{each}")) for each in range(count)]


def part(store: Store, me: int, count: int) -> None:
    """Wait until all ``count`` processes have come this far, or ``LONGEST_PARTING``: with the first one, or with its
    launcher, the store ends, and whoever had not read all of it yet would only learn that it has ended."""
    with suppress(RuntimeError):
        absent(store, "parts", me, count, LONGEST_PARTING, lambda *_: None)


def differing(everyones: list[dict[str, Any]], kind: str = "rank") -> list[str]:
    """The fields that are not the same for all: ``batch_size is 4 on rank 0, 2 on rank 1, 2``."""
    names = {name: None for facts in everyones for name in facts}  # a set in order
    found = []
    for name in names:
        who: dict[str, list[int]] = {}
        for number, facts in enumerate(everyones):
            who.setdefault(shown(facts[name]) if name in facts else "missing", []).append(number)
        if len(who) > 1:
            found.append(f"{name} is " + ", ".join(f"{value} on {kind} {listed(some)}" for value, some in who.items()))
    return found


def check_same(everyones: list[dict[str, Any]], advice: str) -> None:
    """UserError that names the fields that differ, and who has which value."""
    if found := differing(everyones):
        more = f"; and {len(found) - FIELDS_SHOWN} more" if len(found) > FIELDS_SHOWN else ""
        raise UserError(f"the processes disagree: {'; '.join(found[:FIELDS_SHOWN])}{more}: {advice}")


def listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
