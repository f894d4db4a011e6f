"""httpd with a disk that is watched, and can break."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("disk.c")


@dataclass
class Sync:
    at: float
    process: int
    failed: bool


class Disk:
    def __init__(self, directory: Path) -> None:
        self.library = directory / "disk.so"
        self._notes = directory / "disk"
        self._broken = directory / "disk.broken"
        if not self.library.exists():
            subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(self.library), str(SOURCE), "-ldl"], check=True)
        self._notes.write_bytes(b"")
        self._notes.chmod(0o666)
        self.mend()

    @property
    def environment(self) -> dict[str, str]:
        return {"ABB_TEST_DISK": str(self._notes)}

    def syncs(self) -> list[Sync]:
        """Each time that all changes of a file were asked to the disk."""
        return [Sync(float(at), int(process), result != "0")
                for at, process, result in (line.split() for line in self._notes.read_text().splitlines())]

    def await_syncs(self, more: int, seconds: float = 10) -> list[Sync]:
        """So many more than there are now. Errors: AssertionError."""
        before = len(self.syncs())
        deadline = time.monotonic() + seconds
        while len(self.syncs()) < before + more:
            assert time.monotonic() < deadline, f"{len(self.syncs()) - before} of {more} in {seconds} s"
            time.sleep(0.02)
        return self.syncs()[before:]

    def break_down(self) -> None:
        self._broken.touch()

    def mend(self) -> None:
        self._broken.unlink(missing_ok=True)
