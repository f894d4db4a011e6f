"""httpd's life: start, reload, stop. Ends what it started and nothing else."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Mapping, Sequence

from . import certificates, config, sanitizers
from .clock import Clock
from .simulator import Simulator

SANITIZED = bool(sanitizers.KIND)
START_SECONDS = 20 * sanitizers.SLOWER
STOP_SECONDS = 15 * (1 + SANITIZED) * (2 if sanitizers.KIND == "memcheck" else 1)


def web_user() -> str | None:
    """Whom httpd's children run as: only root may choose."""
    if os.getuid() != 0:
        return None
    pwd.getpwnam("www-data")
    return "www-data"


class Server:
    """A private httpd. Its directory is removed with it, unless ABB_KEEP_LOGS is set."""

    def __init__(self, hosts: Sequence[config.VirtualHost], simulator: Simulator | None = None, mpm: str = "event",
                 main: str = "", environment: Mapping[str, str] | None = None, clock: Clock | None = None,
                 preload: Sequence[Path] = ()) -> None:
        self.hosts = list(hosts)
        self.mpm = mpm
        self.root = Path(tempfile.mkdtemp(prefix="abb-httpd-"))
        self.root.chmod(0o755)
        self._environment = dict(environment or {})
        self._clock = clock
        self._preload = list(preload)
        self._process: subprocess.Popen[bytes] | None = None
        config.write_content(self.root)
        if any(host.tls for host in self.hosts):
            certificates.write(self.root / "conf" / "site", [host.name for host in self.hosts])
        self._simulator = simulator
        if simulator:
            main = config.bitbucket_text(simulator.authorize_url, simulator.token_url, simulator.api_url) + main
            for host in self.hosts:
                simulator.register(host.client_id, host.client_secret, host.callback_url, scopes=list(host.scopes))
        self.write_config(main)

    def write_config(self, main: str = "") -> None:
        self.config_file.write_text("\n".join([config.base_text(self.root, self.mpm, web_user()), main,
                                               *(host.text() for host in self.hosts)]) + "\n")

    # -- time

    def keep_clock(self) -> None:
        """A clock of its own, if it has none; before the start."""
        self._clock = self._clock or Clock(self.root)

    def let_time_pass(self) -> None:
        """What a server knows of Bitbucket's condition is forgotten: the breaker and the
        pauses of an earlier test."""
        if self._clock:
            self._clock.advance(1000)

    def now(self) -> float:
        """The time that this server believes in."""
        return time.time() + (self._clock.offset if self._clock else 0)

    # -- files

    @property
    def config_file(self) -> Path:
        return self.root / "conf" / "httpd.conf"

    @property
    def content(self) -> Path:
        return self.root / "content"

    @property
    def error_log(self) -> Path:
        return self.root / "logs" / "error.log"

    def log_files(self) -> list[Path]:
        return sorted((self.root / "logs").glob("*"))

    def sanitizer_reports(self) -> list[Path]:
        return sanitizers.reports(self._reports)

    @property
    def _reports(self) -> Path:
        return self.root / "sanitizer"

    # -- running the program

    def _full_environment(self) -> dict[str, str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("BITBUCKET_")}
        environment.update(sanitizers.environment(self._reports))
        preload = [library] if (library := sanitizers.library()) else []
        if self._clock:
            preload.append(str(self._clock.library))
            environment["ABB_TEST_CLOCK"] = str(self._clock.file)
        preload += map(str, self._preload)
        if preload:
            environment["LD_PRELOAD"] = " ".join(preload)
        return {**environment, "LC_ALL": "C.UTF-8", **self._environment}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run httpd to its end, as in run("-t")."""
        return subprocess.run([*self.command(), *arguments], env=self._full_environment(), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60 * sanitizers.SLOWER)

    def command(self) -> list[str]:
        """Runs httpd on this server's configuration."""
        return [*sanitizers.command(self._reports), str(config.httpd_program()), "-d", str(self.root), "-f", str(self.config_file)]

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def start(self) -> "Server":
        """Errors: RuntimeError with what httpd said."""
        starts = self._starts()
        with open(self.root / "logs" / "console", "ab") as console:
            self._process = subprocess.Popen([*self.command(), "-DFOREGROUND"], env=self._full_environment(),
                                             stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                                             start_new_session=True)
        try:
            self._await_starts(starts + 1)
            sanitizers.see_that_it_runs(self.pid)
        except BaseException:
            self.kill()
            raise
        return self

    def _starts(self) -> int:
        log = self.error_log.read_text(errors="replace") if self.error_log.exists() else ""
        return len(re.findall("resuming normal operations", log))

    def _await_starts(self, wanted: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while self._starts() < wanted or not self._accepts():
            if self._process and self._process.poll() is not None:
                raise RuntimeError("httpd ended:\n" + self.tail())
            if time.monotonic() > deadline:
                raise RuntimeError("httpd did not start in time:\n" + self.tail())
            time.sleep(0.02)
        self._await_threads()

    def _await_threads(self) -> None:
        """Children that are told to stop in their first milliseconds may crash, by a fault
        of mpm_event's own. So let all be complete; old ones of a graceful, and the daemon of
        mod_cgid, never are, hence the limit."""
        deadline = time.monotonic() + (0 if self.mpm == "prefork" else 1)
        while time.monotonic() < deadline:
            incomplete = [pid for pid in self.children() if _threads(pid) < config.THREADS_PER_CHILD]
            if len(incomplete) <= 1:
                return
            time.sleep(0.02)

    def _accepts(self) -> bool:
        try:
            for host in self.hosts:
                socket.create_connection(("127.0.0.1", host.port), 1).close()
        except OSError:
            return False
        return True

    def tail(self, lines: int = 40) -> str:
        texts = [path.read_text(errors="replace") for path in (self.root / "logs" / "console", self.error_log)
                 if path.exists()]
        return "\n".join("\n".join(text.splitlines()[-lines:]) for text in texts)

    def await_in_log(self, name: str, text: str, seconds: float = 10) -> str:
        """The log's content once `text` stands in it: httpd writes a request's line after the answer."""
        deadline = time.monotonic() + seconds
        while text not in (content := (self.root / "logs" / name).read_text()):
            assert time.monotonic() < deadline, f"{text!r} never came into {name}:\n{content}"
            time.sleep(0.02)
        return content

    def reload(self, how: signal.Signals = signal.SIGUSR1) -> None:
        """SIGUSR1 is graceful, SIGHUP restart."""
        starts = self._starts()
        os.kill(self.pid, how)
        self._await_starts(starts + 1)

    # -- processes

    def processes(self) -> list[int]:
        """All processes of this server: they share its process group."""
        return [pid for pid, group, _ in _all_processes() if group == self.pid]

    def children(self) -> list[int]:
        return [pid for pid, group, parent in _all_processes() if group == self.pid and parent == self.pid]

    def last_answering_process(self) -> int:
        """Whose number the access log tells last."""
        return int((self.root / "logs" / "access.log").read_text().splitlines()[-1].split()[0])

    def kill_children(self) -> None:
        """All at once; when others are there httpd has seen it."""
        before = set(self.children())
        for pid in before:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        deadline = time.monotonic() + START_SECONDS
        while before & set(self.children()) or not self.children():
            assert time.monotonic() < deadline, "httpd starts no other children"
            time.sleep(0.02)

    # -- end

    def kill_parent(self) -> int:
        """Kill the first process only. Returns the group of those that are left."""
        assert self._process
        group = self._process.pid
        self._process.kill()
        self._process.wait()
        self._process = None
        return group

    def stop(self) -> None:
        """Errors: RuntimeError when httpd ends badly, or when it or a process of its stays
        behind (they are ended then)."""
        if not self._process:
            return
        if self._process.poll() is None:
            self._await_closed_connections()
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
                raise RuntimeError("httpd did not stop:\n" + self.tail()) from None
        deadline = time.monotonic() + STOP_SECONDS
        while self.processes():
            if time.monotonic() > deadline:
                self.kill()
                raise RuntimeError("processes of httpd stayed behind")
            time.sleep(0.02)
        status = self._process.returncode
        self._process = None
        if status:
            raise RuntimeError(f"httpd ended with status {status}:\n" + self.tail())

    def _await_closed_connections(self) -> None:
        """A child told to stop looks through the sockets of its workers; when a worker of
        mpm_event is just then freeing the connection its client has closed, the child
        crashes: seen in cores at join_workers, in 3 of 100 stops under load."""
        ports = {f"{host.port:04X}" for host in self.hosts}
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline and _left_by_their_clients(ports):
            time.sleep(0.005)
        time.sleep(0.02)

    def kill(self) -> None:
        if self._process:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        if self._simulator:
            self._simulator.forget_consumers(host.client_id for host in self.hosts)
        if not os.environ.get("ABB_KEEP_LOGS"):
            shutil.rmtree(self.root, ignore_errors=True)


def _threads(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


def _left_by_their_clients(ports: set[str]) -> bool:
    """Whether a connection at one of these ports (hexadecimal) waits to be closed by httpd."""
    close_wait = "08"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == close_wait and fields[1].rpartition(":")[2] in ports:
            return True
    return False


def _all_processes() -> list[tuple[int, int, int]]:
    """Process, group and parent of all that live; zombies do not."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                found.append((int(entry.name), int(fields[2]), int(fields[1])))
    return found
