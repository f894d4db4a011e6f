"""An httpd with many live sessions: its store is filled through its file before it starts."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Sequence

import place


def store_bench(build: Path, *arguments: object) -> str:
    """What the program of that name prints. Errors: place.Unavailable when it was not built."""
    program = build / "tests" / "bench" / "store_bench"
    if not program.exists():
        raise place.Unavailable("store_bench is not built: make tests/bench/store_bench")
    done = subprocess.run([str(program), *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=300)
    if done.returncode:
        raise RuntimeError("store_bench: " + done.stderr)
    return done.stdout


def _session_key(httpd: place.Httpd, file: Path) -> str:
    """Start httpd with an empty store, so that it makes the key under which it believes a file."""
    httpd.main += f"AuthBitbucketSessionCache shm:{file}(1M)\n"
    httpd.start()
    httpd.stop()
    key_file = Path(f"{file}.key")
    if not key_file.exists():
        raise place.Unavailable("httpd keeps no key beside the file of the store")
    return key_file.read_text().split()[1]


def fill(httpd: place.Httpd, build: Path, sessions: int, used: int, directory: Path) -> list[str]:
    """Fill the store of an httpd that does not run yet. Returns Cookie headers of `used` of its
    sessions, chosen by chance. Errors: place.Unavailable."""
    file = directory / f"sessions-{sessions}"
    key = _session_key(httpd, file)
    told = json.loads(store_bench(build, "fill", file, sessions, place.CLIENT_ID, httpd.origin, key))
    httpd.main = httpd.main.replace("(1M)", f"({-(-told['segment_bytes'] // 2**20)}M)")
    return [f"bitbucket_session={line}" for line in store_bench(build, "cookies", sessions, used).split()]


def check(httpd: place.Httpd, cookies: Sequence[str]) -> None:
    """See that an httpd that runs has taken the sessions over. Errors: place.Unavailable."""
    try:
        place.repeat(httpd, [place.request_bytes(httpd, place.TEAM, cookies[0])], 1, 200)
    except RuntimeError:
        raise place.Unavailable("httpd did not take the sessions over: " + " ".join(httpd.said().split())) from None
