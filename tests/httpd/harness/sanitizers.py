"""What looks over httpd's shoulder: ABB_SANITIZE names it, and the module is built for it.

1         AddressSanitizer and UndefinedBehaviorSanitizer
thread    ThreadSanitizer
memcheck  valgrind, with any build
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

KIND = os.environ.get("ABB_SANITIZE", "")
KINDS = ("", "1", "thread", "memcheck")
if KIND not in KINDS:
    raise RuntimeError(f"ABB_SANITIZE={KIND}: there are only {', '.join(KINDS[1:])}")
# How much longer everything may take, in a way that tests with a time in them can use.
SLOWER = {"": 1, "1": 3, "thread": 3, "memcheck": 12}[KIND]
LIBRARIES = {"": None, "1": "libasan.so", "thread": "libtsan.so", "memcheck": None}
SUPPRESSIONS = Path(__file__).resolve().parents[2] / "races"


def library() -> str | None:
    """What httpd must load first. Errors: RuntimeError."""
    name = LIBRARIES[KIND]
    if not name:
        return None
    found = subprocess.run(["gcc", "-print-file-name=" + name], capture_output=True, text=True).stdout.strip()
    if not os.path.isabs(found):
        raise RuntimeError(f"ABB_SANITIZE={KIND}, but gcc has no {name}")
    return found


def command(reports: Path) -> list[str]:
    """What stands before httpd's own command."""
    if KIND != "memcheck":
        return []
    # Frames of modules that are unloaded before the end keep their names.
    return ["valgrind", "-q", "--keep-debuginfo=yes", "--num-callers=40", f"--log-file={reports}/report.%p",
            "--leak-check=full", "--show-leak-kinds=definite", "--errors-for-leak-kinds=definite",
            f"--suppressions={SUPPRESSIONS}/memcheck.supp"]


def environment(reports: Path) -> dict[str, str]:
    to = f"log_path={reports}/report"
    if KIND == "1":
        # httpd's own handler of fatal signals would end the process without saying where it was.
        handlers = ":".join(f"handle_{name}=2" for name in ("segv", "sigbus", "sigfpe", "sigill"))
        return {"ASAN_OPTIONS": f"detect_leaks=0:halt_on_error=1:abort_on_error=1:{handlers}:{to}",
                "UBSAN_OPTIONS": f"halt_on_error=1:print_stacktrace=1:{to}"}
    if KIND == "thread":
        # httpd and its libraries know nothing of ThreadSanitizer: their locks are seen, their accesses are not.
        return {"TSAN_OPTIONS": f"exitcode=0:ignore_noninstrumented_modules=1:die_after_fork=0:history_size=4:"
                                f"suppressions={SUPPRESSIONS}/thread.supp:{to}"}
    return {}


def reports(directory: Path) -> list[Path]:
    """valgrind makes a file for each process, and writes nothing if there is nothing."""
    return sorted(path for path in directory.glob("*") if path.stat().st_size)


def see_that_it_runs(pid: int) -> None:
    """Errors: RuntimeError when nothing looks over the shoulder of a server that has started."""
    sign = {"": "", "1": "libasan", "thread": "libtsan", "memcheck": "vgpreload_memcheck"}[KIND]
    if sign not in Path(f"/proc/{pid}/maps").read_text():
        raise RuntimeError(f"ABB_SANITIZE={KIND}, but httpd runs without it")
