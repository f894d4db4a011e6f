"""Requests over one kept connection. A child remembers what cookies come to, never who may come in."""

from __future__ import annotations

import http.client
import socket

import pytest

from harness.client import TIMEOUT
from harness.config import VirtualHost, place
from harness.simulator import account


class Kept:
    """One connection to a host for several requests. Fails when httpd closes it in between."""

    def __init__(self, host: VirtualHost) -> None:
        self.connection = http.client.HTTPConnection(host.name, host.port, timeout=TIMEOUT)
        self.connection.sock = socket.create_connection(("127.0.0.1", host.port), TIMEOUT)
        self.wire = self.connection.sock

    def get(self, path: str, cookie: str | None = None, name: str | None = None) -> tuple[int, str]:
        headers = {"Accept": "*/*", **({"Cookie": "bitbucket_session=" + cookie} if cookie is not None else {})}
        self.connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
        for key, value in {"Host": name or self.connection.host, **headers}.items():
            self.connection.putheader(key, value)
        self.connection.endheaders()
        answer = self.connection.getresponse()
        body = answer.read().decode()
        assert self.connection.sock is self.wire, "the connection was closed"
        return answer.status, body

    def user(self, cookie: str | None) -> str | int:
        """Whom the application sees, or the status of a refusal."""
        status, body = self.get("/any/env.cgi", cookie)
        seen = dict(entry.split("=", 1) for entry in body.split("\0") if "=" in entry) if status == 200 else {}
        return seen.get("REMOTE_USER", status)


MARK, OLIVIA = account("mark")["username"], account("olivia")["username"]


def session_of(new_browser, host: VirtualHost, person: str) -> tuple[object, str]:
    browser = new_browser()
    assert browser.sign_in(host.url("/any/page.html"), person).status == 200
    return browser, browser.session_value()


@pytest.fixture
def kept(site):
    kept = Kept(site.quiet)
    yield kept
    kept.connection.close()


def test_people_share_a_connection(site, new_browser, kept):
    """As behind a proxy: each request is its own cookie's, whoever came before."""
    _, mark = session_of(new_browser, site.quiet, "mark")
    _, olivia = session_of(new_browser, site.quiet, "olivia")
    for cookie, user in [(mark, MARK), (mark, MARK), (olivia, OLIVIA), (None, 401), (mark, MARK),
                         ("A" * 43, 401), (olivia, OLIVIA), ("", 401), (olivia[:-1], 401), (olivia + "A", 401),
                         (olivia, OLIVIA), (olivia, OLIVIA)]:
        assert kept.user(cookie) == user


def test_values_that_differ_in_one_place(site, new_browser, kept):
    _, mark = session_of(new_browser, site.quiet, "mark")
    assert kept.user(mark) == MARK
    for i in range(len(mark)):
        other = mark[:i] + ("B" if mark[i] == "A" else "A") + mark[i + 1:]
        assert kept.user(other) == 401
        assert kept.user(mark) == MARK


def test_a_session_ends_under_a_kept_connection(site, new_browser, kept):
    browser, mark = session_of(new_browser, site.quiet, "mark")
    assert [kept.user(mark) for _ in range(3)] == [MARK] * 3
    done = browser.submit(browser.get(site.quiet.endpoint("logout")))
    assert done.status == 200
    assert [kept.user(mark) for _ in range(3)] == [401] * 3
    assert kept.get("/open-to-all", mark)[0] == 404, "an unprotected place is not concerned"


@pytest.mark.one_mpm
def test_two_hosts_over_one_connection(start_server, new_browser):
    """A cookie is good at its own host only, also right after it was good there."""
    host = VirtualHost(place("any", "Require valid-user"))
    other = [f"<VirtualHost 127.0.0.1:{host.port}>", "ServerName other.test",
             f"AuthBitbucketClientID {host.client_id}", f'AuthBitbucketClientSecret "{host.client_secret}"',
             f"AuthBitbucketCallbackURL http://127.0.0.1:{host.port}/bitbucket/callback",
             host.directives, "</VirtualHost>"]
    start_server(host, main="\n".join(other))
    _, mark = session_of(new_browser, host, "mark")
    kept = Kept(host)
    try:
        for _ in range(3):
            assert kept.get("/any/page.html", mark)[0] == 200
            assert kept.get("/any/page.html", mark, name="other.test")[0] == 401
    finally:
        kept.connection.close()
