"""What gcov counted in a build, for each room: lines and branches, and what was not reached.

Usage: count_coverage.py BUILD MISSED. Writes the lines that were not reached to the file MISSED.
Exits with 1 when a room of foreign bytes has too few.
"""

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

LINES_MIN = 95.0

# Rooms that read what strangers, Bitbucket, files or caches say.
FOREIGN = {
    "account", "authz", "cookie", "credential", "draft", "form", "hub", "identity", "pack", "page",
    "record", "reply", "session", "store", "store_file", "text", "ticket",
}

# Rooms of several files.
PARTS = ("store_file", "store", "bitbucket")


def room_of(file: str) -> str:
    name = Path(file).stem
    return next((room for room in PARTS if name == room or name.startswith(room + "_")), name)


def read_counts(build: Path):
    """(file, line) -> count, and (file, line, branch) -> count, over all objects."""
    lines, branches = defaultdict(int), defaultdict(int)
    notes = sorted(build.glob("src/.libs/*.gcda")) or sorted(build.glob("src/*.gcda"))
    for note in notes:
        told = subprocess.run(["gcov", "--json-format", "--stdout", "-b", note.name], cwd=note.parent,
                              check=True, capture_output=True, text=True).stdout
        for file in (file for line in told.splitlines() for file in json.loads(line)["files"]):
            if not re.search(r"(^|/)src/[a-z_0-9]+\.c$", file["file"]):
                continue
            name = Path(file["file"]).name
            for line in file["lines"]:
                lines[name, line["line_number"]] += line["count"]
                for i, branch in enumerate(line["branches"]):
                    branches[name, line["line_number"], i] += branch["count"]
    return lines, branches


def share(counts) -> float:
    return 100.0 * sum(1 for count in counts if count) / len(counts) if counts else 100.0


def main() -> int:
    lines, branches = read_counts(Path(sys.argv[1]))
    if not lines:
        print("nothing was counted")
        return 1
    too_few = []
    print(f"{'room':<14} {'lines':>7} {'reached':>8} {'branches':>9} {'reached':>8}")
    for room in sorted({room_of(file) for file, _ in lines}):
        of_lines = [count for (file, _), count in lines.items() if room_of(file) == room]
        of_branches = [count for (file, *_), count in branches.items() if room_of(file) == room]
        reached = share(of_lines)
        is_foreign = room in FOREIGN
        if is_foreign and reached < LINES_MIN:
            too_few.append(room)
        print(f"{room:<14} {len(of_lines):7} {reached:7.1f}% {len(of_branches):9} "
              f"{share(of_branches):7.1f}%{'  reads foreign bytes' if is_foreign else ''}")
    missed = sorted(place for place, count in lines.items() if not count)
    Path(sys.argv[2]).write_text("".join(f"src/{file}:{line}\n" for file, line in missed))
    if too_few:
        print(f"less than {LINES_MIN:.0f} % of the lines of: {', '.join(too_few)}")
    return 1 if too_few else 0


if __name__ == "__main__":
    sys.exit(main())
