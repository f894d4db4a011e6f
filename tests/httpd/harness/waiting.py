"""Waiting for what is done in the background."""

from __future__ import annotations

import time
from typing import Callable, TypeVar

Value = TypeVar("Value")


def eventually(condition: Callable[[], Value], seconds: float = 10) -> Value:
    """What the condition says as soon as that is true of anything; fails when it takes longer."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it does not come to that"
        time.sleep(0.02)
    return value
