"""Requests in a rolling hour.

Source: support.atlassian.com, "API request limits": 1,000 an hour for each user,
60 for each address without credentials. Headers as seen live: the reset is in
seconds left, not a point in time.
"""

from __future__ import annotations

from collections import deque

from .exchange import Bounded

HOUR = 3600


class Limits:
    """Counts per key, by second; the oldest keys are forgotten beyond a bound."""

    def __init__(self) -> None:
        self._counts: Bounded[str, deque[list[int]]] = Bounded(10_000)
        self._totals: dict[str, int] = {}

    def take(self, key: str, limit: int | None, now: float) -> tuple[bool, dict[str, str]]:
        """Count one request. Returns whether it is within the limit, and headers."""
        if limit is None:
            return True, {}
        second = int(now)
        counts = self._counts.get(key)
        if counts is None:
            counts = self._counts[key] = deque()
            self._totals[key] = 0
            if len(self._totals) > len(self._counts):
                self._totals = {k: v for k, v in self._totals.items() if k in self._counts}
        while counts and counts[0][0] <= second - HOUR:
            self._totals[key] -= counts.popleft()[1]
        allowed = self._totals[key] < limit
        if allowed:
            if counts and counts[-1][0] == second:
                counts[-1][1] += 1
            else:
                counts.append([second, 1])
            self._totals[key] += 1
        remaining = max(0, limit - self._totals[key])
        oldest = counts[0][0] if counts else second
        headers = {"X-RateLimit-Limit": f"{limit}, {limit};w={HOUR}",
                   "X-RateLimit-Remaining": str(remaining),
                   "X-RateLimit-Reset": str(max(1, oldest + HOUR - second))}
        if remaining * 5 < limit:
            headers["X-RateLimit-NearLimit"] = "true"
        return allowed, headers
