"""What belongs to the whole machine, of which a stopped httpd leaves nothing."""

from __future__ import annotations

import os
from pathlib import Path


def system_objects() -> dict[str, list[str]]:
    """Shared memory, semaphores and queues."""
    found = {f"ipcs {name}": sorted(line.split()[1] for line in Path("/proc/sysvipc", name).read_text().splitlines()[1:])
             for name in ("shm", "sem", "msg")}
    return {**found, "/dev/shm": sorted(os.listdir("/dev/shm"))}
