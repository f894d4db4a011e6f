"""Sign-ins: how many a second, how long each, and what httpd computes for one, against a Bitbucket
that answers at once or after 100 ms, beside mod_auth_openidc with a provider that does the same.

What is timed is the request that httpd spends on Bitbucket: from the browser's return until its
session is there.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator, Sequence
from urllib.parse import urlsplit

import peers
import place
from provider import Provider, certify, granted
from series import Result, Run
from wrk import computed, processors

DELAY_MS = 100
# Where nobody waits for a provider, more of them only wait for the processor.
AT_ONCE_FAST = 16
# Until each worker has its connections to the provider.
WARM_UP_SECONDS = 2
CALLBACK = "/bitbucket/callback"


@dataclass
class SignIns:
    """One kind of sign-in at one httpd, so many at the same time. busy: the part of their time for
    which browsers and provider computed themselves; near 1, they are what holds sign-ins up."""

    name: str
    title: str
    httpd: place.Httpd
    provider: Provider
    delay_ms: int
    at_once: int
    rates: list[float] = field(default_factory=list)
    microseconds: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    refused: int = 0

    def forget(self) -> None:
        """What was measured until now."""
        for figures in (self.rates, self.microseconds, self.seconds, self.busy):
            figures.clear()
        self.refused = 0


# -- browsers

class _Wire:
    """A browser's connection to httpd, kept open."""

    def __init__(self, httpd: place.Httpd) -> None:
        self._httpd = httpd
        self._host = f"{httpd.name}:{httpd.port}"

    async def __aenter__(self) -> "_Wire":
        await self._open()
        return self

    async def _open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._httpd.port)

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def get(self, target: str, cookies: str = "") -> tuple[int, str, str]:
        """Status, Location, and the cookies that came, as the browser sends them back."""
        lines = [f"GET {target} HTTP/1.1", f"Host: {self._host}", *(f"{k}: {v}" for k, v in place.LEAN_HEADERS.items())]
        head = await self._head("\r\n".join([*lines, *([f"Cookie: {cookies}"] if cookies else []), "", ""]).encode())
        headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in head[1:])]
        one = dict(headers)
        await self._reader.readexactly(int(one.get("content-length", 0)))
        came = "; ".join(value.partition(";")[0] for name, value in headers if name == "set-cookie")
        return int(head[0].split()[1]), one.get("location", ""), came

    async def _head(self, request: bytes) -> list[str]:
        """As a browser does, ask once more when httpd has closed the connection in the meantime: mpm_event closes idle
        ones when all its threads are busy."""
        for is_again in (False, True):
            try:
                self._writer.write(request)
                return (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            except (asyncio.IncompleteReadError, ConnectionError) as problem:
                if is_again or getattr(problem, "partial", b""):
                    raise RuntimeError(f"httpd closed the connection:\n{self._httpd.said()}") from None
                self._writer.close()
                await self._open()
        raise AssertionError("not reached")


async def _sign_in(wire: _Wire, kind: SignIns) -> None:
    status, location, cookies = await wire.get(place.TEAM)
    if status != 302:
        raise RuntimeError(f"{status} instead of a redirect to the sign-in:\n{kind.httpd.said()}")
    back = urlsplit(granted(location, kind.httpd.url(CALLBACK)))
    began = time.monotonic()
    status, location, came = await wire.get(f"{back.path}?{back.query}", cookies)
    if status in (302, 303) and location.endswith(place.TEAM) and came:
        kind.seconds.append(time.monotonic() - began)
    elif status == 503:
        kind.refused += 1
    else:
        raise RuntimeError(f"{kind.title}: {status} instead of a session:\n{kind.httpd.said()}")


async def _browser(kind: SignIns, end: float) -> None:
    """At least one sign-in, so that all of them have had one after any round."""
    async with _Wire(kind.httpd) as wire:
        await _sign_in(wire, kind)
        while time.monotonic() < end:
            await _sign_in(wire, kind)


async def _browsers(kind: SignIns, seconds: float) -> None:
    end = time.monotonic() + seconds
    await asyncio.gather(*(_browser(kind, end) for _ in range(kind.at_once)))


def measure(kind: SignIns, seconds: float) -> None:
    """One round. Errors: RuntimeError when a sign-in fails otherwise than for too many at once."""
    done, began = len(kind.seconds), time.monotonic()
    spent, spent_here = computed(kind.httpd), time.process_time() + kind.provider.computed()
    asyncio.run(asyncio.wait_for(_browsers(kind, seconds), seconds + 60))
    count, took = len(kind.seconds) - done, time.monotonic() - began
    if not count:
        raise RuntimeError(f"{kind.title}: no sign-in came to its end\n{kind.httpd.said()}")
    kind.rates.append(count / took)
    kind.microseconds.append((computed(kind.httpd) - spent) * 1e6 / count)
    kind.busy.append((time.process_time() + kind.provider.computed() - spent_here) / took / min(2, len(processors()[1])))


# -- who signs in where

@contextmanager
def _ours(run: Run, provider: Provider, authorities: Path) -> Iterator[place.Httpd]:
    """All workers may wait for Bitbucket, as they do with the module that it is compared with."""
    httpd = place.protected(run.simulator, wrapper=run.wrapper)
    httpd.main = place.config.bitbucket_text(provider.origin + "/site/oauth2/authorize",
                                             provider.origin + "/site/oauth2/access_token", provider.origin + "/2.0")
    httpd.main += f"AuthBitbucketCAFile {authorities}\nAuthBitbucketMaxLogins {httpd.workers}\n"
    with httpd:
        yield httpd


@contextmanager
def _openidc(run: Run, provider: Provider, authorities: Path) -> Iterator[place.Httpd]:
    """It asks for the account after the token, as this module does: two answers, one after the other."""
    httpd = place.Httpd(modules=("auth_openidc",), wrapper=run.wrapper, site="")
    httpd.site = peers.openidc_text(provider, authorities, httpd, peers.in_memory(10_000))
    with httpd:
        yield httpd


def _kinds(name: str, title: str, httpds: Sequence[place.Httpd], providers: Sequence[Provider],
           browsers: int) -> list[SignIns]:
    (fast, late), (now, later) = httpds, providers
    return [SignIns(f"{name}_0", f"{title}, answers at once", fast, now, 0, min(browsers, AT_ONCE_FAST)),
            SignIns(f"{name}_one", f"{title}, answers after {DELAY_MS} ms, one at a time", late, later, DELAY_MS, 1),
            SignIns(f"{name}_{DELAY_MS}", f"{title}, answers after {DELAY_MS} ms", late, later, DELAY_MS, browsers)]


def _result(kind: SignIns) -> Result:
    ordered = sorted(kind.seconds)
    return {"name": kind.name, "title": kind.title, "delay_ms": kind.delay_ms, "at_once": kind.at_once,
            "per_second": statistics.median(kind.rates), "cpu_us": statistics.median(kind.microseconds),
            "p50_ms": 1000 * statistics.median(ordered), "p99_ms": 1000 * ordered[len(ordered) * 99 // 100],
            "sign_ins": len(ordered), "busy": statistics.median(kind.busy), "refused": kind.refused}


def sign_ins(run: Run) -> list[Result]:
    """Sign-ins, and those of mod_auth_openidc."""
    results: list[Result] = []
    with ExitStack() as stack:
        directory = stack.enter_context(place.scratch())
        certificate = directory / "provider"
        authorities = certify(certificate)
        providers = [stack.enter_context(Provider(certificate, delay, run.client_wrapper)) for delay in (0, DELAY_MS)]
        ours = [stack.enter_context(_ours(run, each, authorities)) for each in providers]
        kinds = _kinds("ours", "this module", ours, providers, run.extent.browsers)
        try:
            if run.extent.peers is not None and "auth_openidc_1" not in run.extent.peers:
                raise place.Unavailable("not wanted in this run")
            theirs = [stack.enter_context(_openidc(run, each, authorities)) for each in providers]
            kinds += _kinds("openidc", "mod_auth_openidc", theirs, providers, run.extent.browsers)
        except place.Unavailable as reason:
            results.append({"name": "openidc", "title": "mod_auth_openidc", "skipped": str(reason)})
        for kind in kinds:
            measure(kind, WARM_UP_SECONDS if run.extent.warms_up else 0)
            kind.forget()
        for number in range(run.extent.sign_in_rounds):
            for kind in kinds if number % 2 == 0 else reversed(kinds):
                measure(kind, run.extent.sign_in_seconds)
        return [_result(kind) for kind in kinds] + results
