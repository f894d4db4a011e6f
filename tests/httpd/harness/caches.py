"""Redis and memcached as private processes, and what can befall them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

from .config import free_port

START_SECONDS = 20


class Cache:
    """A server on a port of its own, in memory only. Ends with stop()."""

    provider = ""
    program = ""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    # -- what each kind is

    def _command(self) -> list[str]:
        raise NotImplementedError

    def flush(self) -> None:
        raise NotImplementedError

    def dump(self) -> bytes:
        """Everything in it, names and values."""
        raise NotImplementedError

    # -- life

    @property
    def specification(self) -> str:
        """For AuthBitbucketSessionCache."""
        return f"{self.provider}:127.0.0.1:{self.port}"

    def start(self) -> "Cache":
        program = shutil.which(self.program)
        if not program:
            raise RuntimeError(f"{self.program} is not installed")
        with open(self.directory / f"{self.program}.{self.port}.out", "ab") as output:
            self._process = subprocess.Popen([program, *self._command()], stdin=subprocess.DEVNULL, stdout=output,
                                             stderr=output, cwd=self.directory)
        deadline = time.monotonic() + START_SECONDS
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.program} did not start")
            time.sleep(0.01)
        return self

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """At once, as a crash; also when it is frozen."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        assert self._process
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process
        os.kill(self._process.pid, signal.SIGCONT)

    # -- talking to it

    def ask(self, question: bytes, end: bytes) -> bytes:
        """What it answers, up to and with the end."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as wire:
            wire.sendall(question)
            answer = b""
            while not answer.endswith(end):
                piece = wire.recv(1 << 20)
                assert piece, f"{self.program} closed after {answer[:200]!r}"
                answer += piece
            return answer


class Redis(Cache):
    provider, program = "redis", "redis-server"

    def _command(self) -> list[str]:
        return ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]

    def flush(self) -> None:
        assert self.ask(b"FLUSHALL\r\n", b"\r\n") == b"+OK\r\n"

    def set_full(self, is_full: bool) -> None:
        """It takes nothing more, and keeps what it has."""
        limit = b"1" if is_full else b"0"
        assert self.ask(b"CONFIG SET maxmemory " + limit + b"\r\n", b"\r\n") == b"+OK\r\n"

    def keys(self) -> list[bytes]:
        return [line for line in self.ask(b"KEYS *\r\nPING\r\n", b"+PONG\r\n").split(b"\r\n") if b":" in line[1:]]

    def dump(self) -> bytes:
        keys = self.keys()
        values = b"".join(b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key) for key in keys)
        return b"\n".join(keys) + self.ask(values + b"PING\r\n", b"+PONG\r\n")


class Memcached(Cache):
    provider, program = "memcache", "memcached"

    def _command(self) -> list[str]:
        as_user = ["-u", "nobody"] if os.getuid() == 0 else []
        return ["-l", "127.0.0.1", "-p", str(self.port), "-U", "0", "-m", "64", *as_user]

    def flush(self) -> None:
        assert self.ask(b"flush_all\r\n", b"\r\n") == b"OK\r\n"

    def keys(self) -> list[bytes]:
        """The crawler leaves out what is just being used, so it is asked several times."""
        lines = [line for _ in range(5)
                 for line in self.ask(b"lru_crawler metadump hash\r\n", b"END\r\n").split(b"\n")]
        names = [line.split()[0].removeprefix(b"key=") for line in lines if line.startswith(b"key=")]
        return sorted({name.replace(b"%3A", b":") for name in names})

    def dump(self) -> bytes:
        keys = self.keys()
        return b"\n".join(keys) + b"".join(self.ask(b"get " + key + b"\r\n", b"END\r\n") for key in keys)


KINDS = {"redis": Redis, "memcache": Memcached}


class SlowLine:
    """A way to a cache on which everything takes so many seconds longer."""

    def __init__(self, cache: Cache, delay: float = 0.0) -> None:
        self.delay = delay
        self._cache = cache
        self._ended = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def specification(self) -> str:
        return f"{self._cache.provider}:127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while not self._ended:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._cache.port), 5)
            except OSError:
                continue
            threading.Thread(target=self._carry, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._carry, args=(server, client, False), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, is_slow: bool) -> None:
        source.settimeout(None)
        try:
            while piece := source.recv(1 << 16):
                if is_slow and self.delay:
                    time.sleep(self.delay)
                target.sendall(piece)
        except OSError:
            pass
        for wire in (source, target):
            try:
                wire.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def stop(self) -> None:
        self._ended = True
        self._listener.close()
