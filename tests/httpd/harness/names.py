"""httpd with a name server that does not answer about one name."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("names.c")
LOST = "lost.example.com"
# How long it takes until such a question comes back without an answer.
SECONDS = 20


class Names:
    def __init__(self, directory: Path) -> None:
        self.library = directory / "names.so"
        self._notes = directory / "names"
        if not self.library.exists():
            subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(self.library), str(SOURCE), "-ldl"], check=True)
        self._notes.write_bytes(b"")
        self._notes.chmod(0o666)

    @property
    def environment(self) -> dict[str, str]:
        return {"ABB_TEST_NAMES": str(self._notes)}

    def questions(self) -> int:
        """How often the name was asked for."""
        return len(self._notes.read_text().splitlines())
