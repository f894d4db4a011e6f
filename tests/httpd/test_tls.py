"""Bitbucket over https, as it really is: the certificate is checked, also through a proxy."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from harness import certificates, tags
from harness.config import VirtualHost, place
from harness.server import SANITIZED
from harness.simulator import Simulator


@pytest.fixture(scope="module")
def secure_simulators(scratch):
    """By the name in their certificates."""
    started = {}
    for name in ("127.0.0.1", "bitbucket.example"):
        directory = scratch / name
        directory.mkdir()
        certificates.write(directory / "api", [name])
        started[name] = Simulator(directory, "--tls-certificate", f"{directory}/api.crt", "--tls-key", f"{directory}/api.key",
                                  scheme="https").start(), directory / "api.crt"
    yield started
    for simulator, _ in started.values():
        simulator.stop()


@pytest.fixture
def sign_in(start_server, browser, secure_simulators):
    def sign_in(name: str, trusted: bool):
        simulator, authority = secure_simulators[name]
        simulator.reset()
        host = VirtualHost((f"AuthBitbucketCAFile {authority}\n" if trusted else "") + place("any", "Require valid-user"))
        start_server(host, simulator=simulator)
        return browser.sign_in(host.url("/any/page.html"), "mark"), simulator
    return sign_in


def test_a_good_certificate(sign_in):
    answer, simulator = sign_in("127.0.0.1", True)
    assert answer.status == 200
    assert len(simulator.asked()) == 3


def private_kilobytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:"))


@pytest.mark.parametrize("others, limit", [(False, 700), (True, 2000)], ids=["few authorities", "a file of all of them"])
def test_what_a_crowd_leaves_in_a_child(start_server, clock, new_browser, secure_simulators, scratch, figure, others, limit):
    """Its connections are kept, with what libcurl and OpenSSL hold for them, while they can be of use."""
    simulator, authority = secure_simulators["127.0.0.1"]
    simulator.reset()
    bundle = scratch / f"authorities-{others}.crt"
    bundle.write_text(authority.read_text() + (Path("/etc/ssl/certs/ca-certificates.crt").read_text() if others else ""))
    host = VirtualHost(f"AuthBitbucketCAFile {bundle}\nAuthBitbucketMaxLogins 200\n" + place("any", "Require valid-user"))
    server = start_server(host, simulator=simulator, clock=clock)

    def descriptors() -> int:
        return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in before)

    def sign_in() -> None:
        codes.append(new_browser().sign_in(host.url("/any/page.html"), "mark").status)

    codes: list[int] = []
    sign_in()
    before = {pid: private_kilobytes(pid) for pid in server.children()}
    simulator.fault("token", delay=1.5)
    people = [threading.Thread(target=sign_in) for _ in range(40)]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert codes == [200] * 41
    grown = sum(max(0, private_kilobytes(pid) - before[pid]) for pid in server.children() if pid in before) / 40
    figure("private memory for each of a crowd", grown, "kB")
    # Sanitizers keep for a while what was given back.
    assert grown < limit * (20 if SANITIZED else 1), f"{grown:.0f} kB each"
    kept = descriptors()
    assert kept > 80
    clock.advance(120)
    simulator.reset()
    for _ in range(100):
        sign_in()
        if descriptors() < kept / 2:
            break
    assert descriptors() < kept / 2, f"{descriptors()} of {kept}"


def test_an_unknown_authority(sign_in, logs):
    logs.expect(tags.ANSWERED, "certificate")
    answer, simulator = sign_in("127.0.0.1", False)
    assert answer.status == 503 and answer.reference
    assert simulator.asked() == [], "no byte of a request is sent"


def test_the_certificate_of_another_name(sign_in, logs):
    logs.expect(tags.ANSWERED)
    answer, simulator = sign_in("bitbucket.example", True)
    assert answer.status == 503
    assert simulator.asked() == []


def test_an_expired_certificate(start_server, browser, scratch, logs, figure):
    """Also when it signs itself and is named as an authority."""
    logs.expect(tags.ANSWERED, "expired")
    directory = scratch / "expired"
    directory.mkdir()
    certificates.write_expired(directory / "api", "127.0.0.1")
    simulator = Simulator(directory, "--tls-certificate", f"{directory}/api.crt", "--tls-key", f"{directory}/api.key",
                          scheme="https").start()
    try:
        host = VirtualHost(f"AuthBitbucketCAFile {directory}/api.crt\n" + place("any", "Require valid-user"))
        start_server(host, simulator=simulator)
        started = time.monotonic()
        answer = browser.sign_in(host.url("/any/page.html"), "mark")
        seconds = time.monotonic() - started
        figure("page 503 after", 1000 * seconds, "ms")
        assert seconds < 5
        assert answer.status == 503 and answer.reference
        assert simulator.asked() == []
    finally:
        simulator.stop()


def offered_versions(hello: bytes) -> set[int]:
    """Versions in the supported_versions extension of a ClientHello (RFC 8446, 4.2.1), in one record."""
    at = 5 + 4 + 2 + 32
    at += 1 + hello[at]
    at += 2 + int.from_bytes(hello[at:at + 2], "big")
    at += 1 + hello[at]
    end = at + 2 + int.from_bytes(hello[at:at + 2], "big")
    at += 2
    while at < end:
        kind, length = int.from_bytes(hello[at:at + 2], "big"), int.from_bytes(hello[at + 2:at + 4], "big")
        if kind == 43:
            listed = hello[at + 5:at + 4 + length]
            return {int.from_bytes(listed[i:i + 2], "big") for i in range(0, len(listed), 2)}
        at += 4 + length
    return set()


def test_nothing_older_than_tls_1_2_is_offered(start_server, browser, logs):
    """Somebody who listens sees what is offered, and hangs up."""
    logs.expect(tags.ANSWERED)
    hellos = []

    def listen() -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            with connection:
                hellos.append(connection.recv(65536))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            origin = f"https://127.0.0.1:{listener.getsockname()[1]}"
            host = VirtualHost(f"AuthBitbucketTokenURL {origin}/token\n" + place("any", "Require valid-user"))
            start_server(host)
            assert browser.sign_in(host.url("/any/page.html"), "mark").status == 503
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
    assert hellos and all(hello[0] == 22 for hello in hellos)
    assert {frozenset(offered_versions(hello)) for hello in hellos} == {frozenset({0x0303, 0x0304})}


def test_a_proxy(start_server, browser, simulator):
    """httpd itself is the proxy; its log tells what went through it."""
    proxy = VirtualHost("ProxyRequests On\nCustomLog logs/proxy.log \"%r\"\n<Proxy *>\nRequire ip 127.0.0.1\n</Proxy>",
                        name="proxy.example.test", configured=False)
    host = VirtualHost(f"AuthBitbucketProxy http://127.0.0.1:{proxy.port}\n" + place("any", "Require valid-user"))
    server = start_server(host, proxy)
    assert browser.sign_in(host.url("/any/page.html"), "mark").status == 200
    log = (server.root / "logs" / "proxy.log").read_text()
    assert f"POST {simulator.token_url}" in log and f"GET {simulator.api_url}/user " in log


def test_proxy_variables_of_the_environment_are_not_obeyed(start_server, browser):
    """Only the directive counts."""
    host = VirtualHost(place("any", "Require valid-user"))
    start_server(host, environment={"http_proxy": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1",
                                    "ALL_PROXY": "http://127.0.0.1:1", "all_proxy": "http://127.0.0.1:1"})
    assert browser.sign_in(host.url("/any/page.html"), "mark").status == 200


def test_a_proxy_that_is_not_there(start_server, browser, logs):
    logs.expect(tags.ANSWERED)
    host = VirtualHost("AuthBitbucketProxy http://127.0.0.1:1\n" + place("any", "Require valid-user"))
    start_server(host)
    assert browser.sign_in(host.url("/any/page.html"), "mark").status == 503
