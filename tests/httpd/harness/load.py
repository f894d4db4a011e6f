"""Many requests at once, counted and timed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from typing import Mapping, Sequence
from urllib.parse import urlsplit

import aiohttp


@dataclass
class Outcome:
    statuses: Counter[int]
    seconds: float
    slowest: float

    def __str__(self) -> str:
        count = sum(self.statuses.values())
        return (f"{count} requests in {self.seconds:.2f} s, {count / self.seconds:.0f} per second, "
                f"slowest {self.slowest * 1000:.0f} ms, {dict(self.statuses)}")


def at_once(urls: Sequence[str], headers: Mapping[str, str]) -> Outcome:
    """Ask for all at the same time, each on a connection of its own. Status 0 is a
    connection that failed."""
    return asyncio.run(_at_once(urls, headers))


async def _at_once(urls: Sequence[str], headers: Mapping[str, str]) -> Outcome:
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    timeout = aiohttp.ClientTimeout(total=60)
    slowest = 0.0
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as client:
        async def one(url: str) -> int:
            nonlocal slowest
            parts = urlsplit(url)
            here = f"{parts.scheme}://127.0.0.1:{parts.port}{parts.path}"
            started = time.monotonic()
            try:
                async with client.get(here, headers={"Host": parts.netloc, **headers}, allow_redirects=False) as answer:
                    await answer.read()
                    return answer.status
            except (aiohttp.ClientError, asyncio.TimeoutError, OSError):
                return 0
            finally:
                slowest = max(slowest, time.monotonic() - started)

        started = time.monotonic()
        statuses = await asyncio.gather(*(one(url) for url in urls))
        return Outcome(Counter(statuses), time.monotonic() - started, slowest)
