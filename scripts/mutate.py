"""Mutants: small wrong changes of the code that a test must notice. scripts/mutants says how to use it.

In tests/mutants/mutants.txt a mutant is a block of lines:

    == NAME
    FILE                  the file that is changed
    A sentence            what is wrong then
    unit t_ROOM           tests, tried in this order until one fails
    httpd test_FILE       perhaps with -k WORD
    - text                stands in the file exactly once ...
    + text                ... and is replaced by this; several lines, and several pairs, may follow
"""

import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
TABLE = TOP / "tests/mutants/mutants.txt"
REPORT = TOP / "docs/testing-mutants.md"
BUILD = TOP / "build/mutants"
CHANGED = BUILD / "changed"
RESULTS = BUILD / "results.json"

UNIT_SECONDS = 300
HTTPD_SECONDS = 900


class Trouble(Exception):
    """A mutant cannot be tried; says why."""


@dataclass
class Mutant:
    name: str
    file: str
    wrong: str
    tests: list[str] = field(default_factory=list)
    pairs: list[tuple[str, str]] = field(default_factory=list)

    def digest(self) -> str:
        """Of all but its words."""
        return hashlib.sha256(repr((self.file, self.tests, self.pairs)).encode()).hexdigest()

    def apply(self, text: str) -> str:
        for old, new in self.pairs:
            if text.count(old) != 1:
                raise Trouble(f"{self.name}: {self.file} holds {text.count(old)} times: {old.splitlines()[0]}")
            text = text.replace(old, new)
        return text


# -- the table

def read_pairs(lines: list[str]) -> list[tuple[str, str]]:
    pairs, old, new = [], [], []
    for line in [*lines, "- "]:
        if line.startswith("-") and old and (new or line == "- "):
            pairs.append(("\n".join(old), "\n".join(new)))
            old, new = [], []
        (old if line.startswith("-") else new).append(line[2:])
    return pairs


def read_mutant(block: str) -> Mutant:
    name, file, wrong, *rest = block.strip("\n").splitlines()
    tests = [line for line in rest if re.match(r"(unit|httpd) ", line)]
    changes = [line for line in rest if re.match(r"[-+]( |$)", line)]
    if not tests or not changes or len(tests) + len(changes) != len(rest):
        raise Trouble(f"the block of the mutant {name} cannot be read")
    return Mutant(name.strip(), file, wrong, tests, read_pairs(changes))


def read_table(text: str) -> list[Mutant]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [read_mutant(block) for block in re.split(r"^== ", "\n".join(lines), flags=re.M)[1:]]


# -- building

def run(*command) -> str:
    done = subprocess.run(command, cwd=BUILD, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise Trouble("\n".join([shlex.join(map(str, command)), *done.stdout.splitlines()[-20:]]))
    return done.stdout


@cache
def variable(name: str) -> list[str]:
    """What the Makefile says."""
    text = run("make", "-s", "--no-print-directory", f"--eval=print: ; @printf '%s' '$({name})'", "print")
    # A define with quotes came through the shell above.
    return [word.replace("\\", "") for word in text.split()]


def object_of(file: str) -> str:
    """How libtool calls the object of a file of the module; automake's name of it will do, too."""
    path = Path(file)
    return str(path.parent / ".libs" / f"mod_auth_bitbucket_la-{path.stem.removeprefix('mod_auth_bitbucket_la-')}.o")


def compile_changed(mutant: Mutant) -> Path:
    """The object of the changed file, which stands where no build sees it."""
    source = CHANGED / Path(mutant.file).name
    source.write_text(mutant.apply((TOP / mutant.file).read_text()))
    library = "libcore_la" if mutant.file in variable("libcore_la_SOURCES") else "mod_auth_bitbucket_la"
    flags = [*variable(f"{library}_CPPFLAGS"), *variable("AM_CFLAGS"), *variable("CFLAGS"), "-fPIC", f"-I{TOP / 'src'}"]
    run("gcc", *flags, "-c", "-o", str(CHANGED / "changed.o"), str(source))
    return CHANGED / "changed.o"


def link_unit(name: str, changed: tuple[Path, ...]) -> None:
    """A changed object stands before the library, so that the linker leaves its like there."""
    program = f"tests_unit_{name}"
    objects = variable(f"{program}_OBJECTS")
    run("make", "-s", *objects)
    run("gcc", "-o", str(CHANGED / name), *variable(f"{program}_LDFLAGS"), *objects, *map(str, changed),
        ".libs/libsocache.a", ".libs/libcore.a", *[word for word in variable("LDADD") if not word.endswith(".la")],
        *variable("libcore_la_LIBADD"), *variable("LIBS"))


def link_module(file: str, changed: tuple[Path, ...]) -> None:
    target = CHANGED / ".libs/mod_auth_bitbucket.so"
    target.parent.mkdir(exist_ok=True)
    objects = [object_of(name) for name in variable("mod_auth_bitbucket_la_OBJECTS")]
    run("gcc", "-shared", "-o", str(target), "-Wl,--version-script=.libs/mod_auth_bitbucket.ver",
        *[name for name in objects if not changed or name != object_of(file)], *map(str, changed),
        ".libs/libsocache.a", ".libs/libcore.a", *variable("libcore_la_LIBADD"), *variable("LIBS"))


# -- tests

def run_in_time(command: list[str], limit: int, **more) -> tuple[int | None, str]:
    """The exit status, None when it ran out of time, and what it printed. Nothing stays behind."""
    log = CHANGED / "log"
    with log.open("wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True, **more)
        try:
            status = child.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if child.poll() is None:
                # The harness ends its servers when it is asked to.
                os.killpg(child.pid, signal.SIGINT)
                try:
                    child.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    os.killpg(child.pid, signal.SIGKILL)
                    child.wait()
    return status, log.read_text(errors="replace")


def run_unit(name: str) -> str | None:
    """What noticed, or None when all tests passed."""
    environment = {**os.environ, "CMOCKA_MESSAGE_OUTPUT": "TAP", "srcdir": str(TOP), "builddir": str(BUILD)}
    status, output = run_in_time([str(CHANGED / name)], UNIT_SECONDS, cwd=BUILD, env=environment)
    failed = re.search(r"^not ok \d+ - (\w+)", output, re.M)
    if status == 0:
        return None
    return failed[1] if failed else "it did not end" if status is None else f"it ended with {status}"


def run_httpd(words: list[str]) -> str | None:
    environment = {**os.environ, "ABB_BUILD_DIR": str(CHANGED), "ABB_MPMS": "event"}
    command = [sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", f"tests/httpd/{words[0]}.py", *words[1:],
               "-x", "-q", "--tb=line"]
    status, output = run_in_time(command, HTTPD_SECONDS, cwd=TOP, env=environment)
    failed = re.search(r"^(?:FAILED|ERROR) \S+?::(\w+)", output, re.M)
    if status == 0:
        return None
    if status is not None and not failed:
        raise Trouble("\n".join([shlex.join(command), *output.splitlines()[-20:]]))
    return failed[1] if failed else "it did not end"


def run_test(test: str, file: str = "", changed: tuple[Path, ...] = ()) -> str | None:
    """What noticed that `file` is what `changed` makes of it, or None."""
    kind, *words = shlex.split(test)
    if kind == "unit":
        link_unit(words[0], changed)
        noticed = run_unit(words[0])
    else:
        link_module(file, changed)
        noticed = run_httpd(words)
    return f"{words[0]}: {noticed}" if noticed else None


# -- mutants

def tell(word: str, name: str, rest: str, started: float) -> None:
    print(f"{word:<9} {name:<34} {rest} ({time.monotonic() - started:.0f} s)", flush=True)


def digest_of_tree() -> str:
    """Of what the tests depend on."""
    digest = hashlib.sha256()
    for folder in ("include", "src", "tests/unit", "tests/httpd", "tests/simulator"):
        for path in sorted(path for path in (TOP / folder).rglob("*") if path.is_file()):
            digest.update(f"{path} {path.stat().st_mtime_ns}".encode())
    return digest.hexdigest()


def check_tests(mutants: list[Mutant], results: dict) -> None:
    """A test that fails in any case would notice nothing."""
    tree, good = digest_of_tree(), results["good"]
    for test in dict.fromkeys(test for mutant in mutants for test in mutant.tests):
        if good.get(test) == tree:
            continue
        started = time.monotonic()
        if failed := run_test(test):
            raise Trouble(f"{failed}: it fails without any mutant")
        good[test] = tree
        RESULTS.write_text(json.dumps(results, indent=1))
        tell("passes", test, "", started)


def try_mutant(mutant: Mutant) -> str | None:
    """What noticed it, or None: it survived."""
    changed = (compile_changed(mutant),)
    return next((noticed for test in mutant.tests if (noticed := run_test(test, mutant.file, changed))), None)


def try_all(mutants: list[Mutant], results: dict) -> int:
    """How many were not noticed."""
    bad = 0
    for mutant in mutants:
        started = time.monotonic()
        try:
            noticed = try_mutant(mutant)
        except Trouble as trouble:
            bad += 1
            tell("TROUBLE", mutant.name, str(trouble), started)
            continue
        results["mutants"][mutant.name] = [mutant.digest(), noticed]
        RESULTS.write_text(json.dumps(results, indent=1))
        bad += noticed is None
        tell("killed" if noticed else "SURVIVED", mutant.name, noticed or mutant.wrong, started)
    return bad


# -- the report

def row(mutant: Mutant, results: dict) -> str:
    digest, noticed = results["mutants"].get(mutant.name, [None, None])
    if digest != mutant.digest():
        raise Trouble(f"{mutant.name} has not been tried as it is now")
    program, _, what = (noticed or ": nothing").partition(": ")
    where = f"`unit/{program}.c` " if program.startswith("t_") else f"`httpd/{program}.py` " if program else ""
    test = where + (f"`{what}`" if re.fullmatch(r"\w+", what) and program else f"**{what}**")
    return f"| `{mutant.name}` | `{Path(mutant.file).name}` | {mutant.wrong} | {test} |"


def write_report(mutants: list[Mutant], results: dict) -> None:
    before, heading, _ = REPORT.read_text().partition("## The mutants\n")
    if not heading:
        raise Trouble(f"{REPORT.name} has no heading 'The mutants'")
    rows = [row(mutant, results) for mutant in mutants]
    killed = sum(not line.endswith("| **nothing** |") for line in rows)
    REPORT.write_text("\n".join([f"{before}{heading}", f"{killed} of {len(rows)} are noticed.", "",
                                 "| Mutant | File | What is wrong then | The test that notices first |",
                                 "|---|---|---|---|", *rows, ""]))


def main(words: list[str]) -> int:
    mutants = read_table(TABLE.read_text())
    if words == ["--list"]:
        print("\n".join(mutant.name for mutant in mutants))
        return 0
    names = [word for word in words if word != "--report"]
    unknown = set(names) - {mutant.name for mutant in mutants}
    if unknown:
        raise Trouble(f"There is no mutant '{min(unknown)}'; scripts/mutants --list shows those there are.")
    chosen = [mutant for mutant in mutants if not names or mutant.name in names]
    CHANGED.mkdir(exist_ok=True)
    results = {"good": {}, "mutants": {}, **(json.loads(RESULTS.read_text()) if RESULTS.is_file() else {})}
    check_tests(chosen, results)
    bad = try_all(chosen, results)
    print(f"{len(chosen) - bad} of {len(chosen)} mutants noticed")
    if "--report" in words:
        write_report(mutants, results)
    return 1 if bad else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Trouble as trouble:
        sys.exit(str(trouble))
