"""httpd in another time: sessions grow old in a moment.

A little library, compiled once per run, shifts what gettimeofday() tells httpd by
what a file says at that instant.
"""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    def __init__(self, directory: Path) -> None:
        self.library = directory / "clock.so"
        self.file = directory / "clock"
        self.offset = 0
        if not self.library.exists():
            subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(self.library), str(SOURCE)], check=True)
            self.file.write_bytes(struct.pack("=q", 0))
            self.file.chmod(0o644)

    def set(self, seconds: int) -> None:
        """So far from the real time, at once, in all processes."""
        self.offset = seconds
        handle = os.open(self.file, os.O_WRONLY)
        try:
            os.pwrite(handle, struct.pack("=q", seconds), 0)
        finally:
            os.close(handle)

    def advance(self, seconds: int) -> None:
        self.set(self.offset + seconds)
