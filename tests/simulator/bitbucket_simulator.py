#!/usr/bin/python3
"""Bitbucket Cloud for tests and demonstrations: OAuth 2.0 and the API behind it.

    tests/simulator/bitbucket_simulator.py --port 7990

See README.md beside this file.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import ipaddress
import json
import os
import signal
import ssl
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bitbucket.oauth import Consumer, make_consumer  # noqa: E402
from bitbucket.server import Simulator, ignore_bad_targets, make_server  # noqa: E402
from bitbucket.settings import Refused  # noqa: E402
from bitbucket.world import make_world  # noqa: E402

DEFAULT_WORLD = Path(__file__).resolve().parent / "bitbucket" / "default_world.json"
DEFAULT_CONSUMER = {"key": "demo-consumer-key", "secret": "demo-consumer-secret", "name": "Demo site",
                    "callback_url": "http://localhost:8080/bitbucket/callback"}


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A Bitbucket Cloud for tests and demonstrations.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--port-file", type=Path, help="file to write the port to")
    parser.add_argument("--client-id", help="key of the consumer")
    parser.add_argument("--client-secret", help="secret of the consumer")
    parser.add_argument("--callback-url", action="append", help="callback URL of the consumer; may be repeated")
    parser.add_argument("--consumer", action="append", type=Path, default=[], metavar="FILE.json",
                        help="consumers: one object or a list of objects")
    parser.add_argument("--tls-certificate", type=Path)
    parser.add_argument("--tls-key", type=Path)
    parser.add_argument("--seed-file", type=Path, default=DEFAULT_WORLD, help="accounts and workspaces")
    parser.add_argument("--public", action="store_true", help="allow an address others can reach")
    options = parser.parse_args(argv)
    if not 0 <= options.port <= 65535:
        parser.error("--port is a number from 0 to 65535")
    if bool(options.tls_certificate) != bool(options.tls_key):
        parser.error("--tls-certificate and --tls-key go together")
    if options.host == "localhost":     # two addresses would get two ports
        options.host = "127.0.0.1"
    if not options.public and not _is_loopback(options.host):
        parser.error(f"{options.host} is not a loopback address; --public allows it. "
                     "Everybody who reaches the simulator can steer it")
    return options


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_seed(path: Path) -> dict[str, Any]:
    """Errors: Refused, OSError."""
    seed = _load(path)
    make_world(seed)
    return seed


def load_consumers(options: argparse.Namespace, seed: dict[str, Any]) -> list[Consumer]:
    """From the command line, --consumer files and the seed; the demo one if there is
    none. Errors: Refused, OSError."""
    entries: list[Any] = []
    for value in [_load(path) for path in options.consumer] + [seed.get("consumers", [])]:
        entries += value if isinstance(value, list) else [value]
    if options.client_id or options.client_secret or options.callback_url or not entries:
        entry: dict[str, Any] = dict(DEFAULT_CONSUMER)
        if options.client_id:
            entry.update(key=options.client_id, name="")
        if options.client_secret:
            entry["secret"] = options.client_secret
        if options.callback_url:
            entry["callback_urls"] = options.callback_url
        entries.append(entry)
    return [make_consumer(entry) for entry in entries]


def _load(path: Path) -> Any:
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as problem:
        raise Refused(f"{path} is not JSON") from problem
    if not isinstance(value, (dict, list)):
        raise Refused(f"{path} holds neither an object nor a list")
    return value


def write_port(path: Path, port: int) -> None:
    """Atomically: a reader sees the whole number or no file."""
    handle, name = tempfile.mkstemp(dir=path.resolve().parent, prefix=path.name)
    with os.fdopen(handle, "w") as file:
        file.write(f"{port}\n")
    os.replace(name, path)


def tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    if not options.tls_certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.tls_certificate, options.tls_key)
    return context


async def serve(options: argparse.Namespace) -> None:
    seed = load_seed(options.seed_file)
    simulator = Simulator(seed, load_consumers(options, seed))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(ignore_bad_targets)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = make_server(simulator)
    context = tls(options)
    listener = await loop.create_server(server, options.host, options.port, ssl=context, backlog=1024)
    port = listener.sockets[0].getsockname()[1]
    host = f"[{options.host}]" if ":" in options.host else options.host
    if options.port_file:
        write_port(options.port_file, port)
    print(f"Bitbucket simulator on {'https' if context else 'http'}://{host}:{port}", flush=True)
    await stop.wait()
    listener.close()
    simulator.closing.set()
    await server.shutdown(1)


def main() -> int:
    options = arguments(sys.argv[1:])
    gc.set_threshold(50_000, 50, 100)   # the long call log makes frequent collections slow
    try:
        asyncio.run(serve(options))
    except (Refused, OSError) as problem:
        print(f"bitbucket_simulator: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
