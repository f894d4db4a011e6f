"""How often the session store was looked into, read from a session file while httpd runs.

The file is mapped by all processes, so reading it shows what they have counted.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("figures.c")
TOP = Path(__file__).resolve().parents[3]


class Figures:
    """directory is for the little program that tells the layout, compiled once per run."""

    def __init__(self, directory: Path) -> None:
        program = directory / "figures"
        if not program.exists():
            apr = subprocess.run(["apr-1-config", "--includes", "--cppflags"], capture_output=True, text=True, check=True)
            subprocess.run(["gcc", "-o", str(program), f"-I{TOP}/include", f"-I{TOP}/src", *apr.stdout.split(), str(SOURCE)],
                           check=True)
        told = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout
        self._offset, self._count, self._size = map(int, told.split())

    def lookups(self, file: Path) -> tuple[int, int]:
        """Hits and misses so far."""
        with open(file, "rb") as image:
            image.seek(self._offset)
            stripes = image.read(self._count * self._size)
        starts = range(0, len(stripes), self._size)
        return (sum(int.from_bytes(stripes[at:at + 8], "little") for at in starts),
                sum(int.from_bytes(stripes[at + 8:at + 16], "little") for at in starts))
