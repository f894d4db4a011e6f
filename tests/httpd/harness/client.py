"""A browser without a screen: sends exactly what it is told, keeps cookies by the rules
of RFC 6265bis, follows redirects one by one and fills in the simulator's forms.

It stands on http.client because the usual libraries rewrite addresses, which is what
several tests are about. Every host name leads to this machine.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any, Callable, Mapping
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

TIMEOUT = 60
NAVIGATION = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "Sec-Fetch-Mode": "navigate",
              "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "none", "User-Agent": "Mozilla/5.0 (test)"}
SCRIPT = {"Accept": "*/*", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin"}
TICKET = "bitbucket_session_ticket_"
SESSION = re.compile(r"^(__Host-|__Secure-)?bitbucket_session$")


# -- cookies

@dataclass
class SetCookie:
    """One Set-Cookie line. attributes have lower-case names; those without value are ""."""

    name: str
    value: str
    attributes: dict[str, str]

    @property
    def deletes(self) -> bool:
        return self.attributes.get("max-age") == "0"


def parse_set_cookie(line: str) -> SetCookie:
    pair, *rest = [part.strip() for part in line.split(";")]
    name, _, value = pair.partition("=")
    attributes = {}
    for part in rest:
        key, _, text = part.partition("=")
        assert key.lower() not in attributes, f"attribute {key} comes twice: {line}"
        attributes[key.lower()] = text
    return SetCookie(name, value, attributes)


@dataclass
class Jar:
    """Cookies by host, as browsers keep them: for all ports, refusing what browsers refuse."""

    cookies: dict[tuple[str, str], SetCookie] = field(default_factory=dict)
    blocks_all: bool = False

    def take(self, host: str, is_secure: bool, cookie: SetCookie) -> None:
        attributes = cookie.attributes
        if cookie.name.startswith("__Host-"):
            assert "secure" in attributes and attributes.get("path") == "/" and "domain" not in attributes
        if cookie.name.startswith("__Secure-"):
            assert "secure" in attributes
        if self.blocks_all or ("secure" in attributes and not is_secure):
            return
        if cookie.deletes:
            self.cookies.pop((host, cookie.name), None)
        else:
            self.cookies[host, cookie.name] = cookie

    def line(self, host: str, is_secure: bool) -> str:
        return "; ".join(f"{name}={cookie.value}" for (owner, name), cookie in self.cookies.items()
                         if owner == host and (is_secure or "secure" not in cookie.attributes))

    def named(self, host: str, part: str) -> dict[str, str]:
        """Cookies of a host whose names hold a part."""
        return {name: cookie.value for (owner, name), cookie in self.cookies.items() if owner == host and part in name}


# -- answers

@dataclass
class Answer:
    url: str
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value; several lines joined by a comma, None without any."""
        values = self.header_lines(name)
        return ", ".join(values) if values else None

    def header_lines(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def location(self) -> str | None:
        return self.header("Location")

    @property
    def location_query(self) -> dict[str, str]:
        pairs = parse_qsl(urlsplit(self.location or "").query, keep_blank_values=True, strict_parsing=True)
        assert len(dict(pairs)) == len(pairs), f"a parameter comes twice: {self.location}"
        return dict(pairs)

    @property
    def set_cookies(self) -> list[SetCookie]:
        return [parse_set_cookie(line) for line in self.header_lines("Set-Cookie")]

    @property
    def tickets(self) -> list[SetCookie]:
        """Cookies of sign-in attempts that this answer gives."""
        return [cookie for cookie in self.set_cookies if TICKET in cookie.name and not cookie.deletes]

    @property
    def session_cookie(self) -> SetCookie | None:
        return next((c for c in self.set_cookies if SESSION.match(c.name) and not c.deletes), None)

    @property
    def reference(self) -> str | None:
        found = re.search(r'class="reference">Reference <code>([^<]+)</code>', self.text)
        return found.group(1) if found else None

    @property
    def environment(self) -> dict[str, str]:
        """What env.cgi printed."""
        return dict(entry.split("=", 1) for entry in self.text.split("\0") if entry)

    @property
    def forms(self) -> list["Form"]:
        return _Page.of(self.text).forms

    @property
    def links(self) -> dict[str, str]:
        """Addresses by label."""
        return _Page.of(self.text).links

    def __repr__(self) -> str:
        return f"<{self.status} {self.url} {self.location or ''} {self.text[:300]!r}>"


@dataclass
class Form:
    action: str
    method: str
    fields: dict[str, str]
    buttons: list[tuple[str, str]]


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.links: dict[str, str] = {}
        self._href: str | None = None
        self._label = ""

    @classmethod
    def of(cls, text: str) -> "_Page":
        page = cls()
        page.feed(text)
        return page

    def handle_starttag(self, tag: str, pairs: list[tuple[str, str | None]]) -> None:
        attributes = {key: value or "" for key, value in pairs}
        if tag == "form":
            self.forms.append(Form(attributes.get("action", ""), attributes.get("method", "get").upper(), {}, []))
        elif tag == "input" and self.forms and "name" in attributes:
            self.forms[-1].fields[attributes["name"]] = attributes.get("value", "")
        elif tag == "button" and self.forms:
            self.forms[-1].buttons.append((attributes.get("name", ""), attributes.get("value", "")))
        elif tag == "a":
            self._href, self._label = attributes.get("href"), ""

    def handle_data(self, data: str) -> None:
        self._label += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._href is not None:
            self.links[self._label.strip()] = self._href
            self._href = None


# -- one request

def connect(url: str) -> tuple[http.client.HTTPConnection, str]:
    """A connection to this machine for a URL, and the target to ask for."""
    parts = urlsplit(url)
    target = (parts.path or "/") + ("?" + parts.query if "?" in url.split("#")[0] else "")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    connection = http.client.HTTPConnection(parts.hostname or "", port, timeout=TIMEOUT)
    connection.sock = socket.create_connection(("127.0.0.1", port), TIMEOUT)
    if parts.scheme == "https":
        context = ssl._create_unverified_context()
        connection.sock = context.wrap_socket(connection.sock, server_hostname=parts.hostname)
    return connection, target


def send(method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
    """One request as it is, on a connection of its own."""
    connection, target = connect(url)
    try:
        parts = urlsplit(url)
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": parts.netloc, "Connection": "close", **headers}.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        try:
            answer = connection.getresponse()
        except http.client.RemoteDisconnected:
            raise AssertionError(f"no answer to {method} {url}: the connection was closed") from None
        return Answer(url, answer.status, answer.getheaders(), answer.read())
    finally:
        connection.close()


def send_bytes(port: int, data: bytes) -> bytes:
    """Bytes that no library would send, and all that comes back."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as wire:
        wire.settimeout(TIMEOUT)
        wire.sendall(data)
        wire.shutdown(socket.SHUT_WR)
        received = b""
        while piece := wire.recv(65536):
            received += piece
    return received


# -- a browser

class TooManySteps(AssertionError):
    pass


class Browser:
    """remember is told every secret this browser is given, so that logs can be searched."""

    def __init__(self, remember: Callable[[str], None] = lambda secret: None) -> None:
        self.jar = Jar()
        self._remember = remember

    def request(self, method: str, url: str, headers: Mapping[str, str] | None = None,
                form: Mapping[str, str] | None = None, body: bytes | None = None) -> Answer:
        """One request with this browser's cookies; nothing is followed. Without headers a
        navigation."""
        parts = urlsplit(url)
        all_headers = dict(NAVIGATION if headers is None else headers)
        is_secure = parts.scheme == "https"
        cookies = self.jar.line(parts.hostname or "", is_secure)
        if cookies and "Cookie" not in all_headers:
            all_headers["Cookie"] = cookies
        if form is not None:
            body = urlencode(form).encode()
            all_headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        answer = send(method, url, all_headers, body)
        self._keep(parts.hostname or "", is_secure, answer)
        return answer

    def _keep(self, host: str, is_secure: bool, answer: Answer) -> None:
        for cookie in answer.set_cookies:
            if "bitbucket_session" in cookie.name and cookie.value:
                self._remember(cookie.value)
            self.jar.take(host, is_secure, cookie)
        if b'name="token"' in answer.body:
            for form in answer.forms:
                if form.fields.get("token"):
                    self._remember(form.fields["token"])

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        return self.request("GET", url, headers)

    def follow(self, answer: Answer) -> Answer:
        """The next step of a redirect."""
        assert answer.location, f"no redirect: {answer!r}"
        return self.get(urljoin(answer.url, answer.location))

    def submit(self, answer: Answer, button: tuple[str, str] | None = None, number: int = 0) -> Answer:
        """Send a form of a page, with one of its buttons."""
        form = answer.forms[number]
        fields = {**form.fields, **({button[0]: button[1]} if button and button[0] else {})}
        url = urljoin(answer.url, form.action or answer.url)
        return self.request(form.method, url, {**NAVIGATION, "Sec-Fetch-Site": "same-origin"}, fields)

    def click(self, answer: Answer, label: str) -> Answer:
        return self.get(urljoin(answer.url, answer.links[label]))

    # -- people

    def walk(self, answer: Answer, person: str | None = None, consents: bool = True) -> list[Answer]:
        """Go on as a person would: follow redirects, pick the account, grant (or deny)
        access. Returns every answer on the way; the last one leads nowhere by itself."""
        steps = [answer]
        while len(steps) < 30:
            here = steps[-1]
            if here.status in (301, 302, 303, 307) and here.location:
                steps.append(self.follow(here))
            elif 'action="/account/signin"' in here.text:
                assert person, "the simulator asks who it is"
                steps.append(self.submit(here, ("account", person)))
            elif '"decision"' in here.text:
                steps.append(self.submit(here, ("decision", "grant" if consents else "cancel")))
            else:
                return steps
        raise TooManySteps("\n".join(map(repr, steps)))

    def sign_in(self, url: str, person: str) -> Answer:
        """Open a page, sign in, end at the page."""
        return self.walk(self.get(url), person)[-1]

    def walk_to_callback(self, url: str, person: str | None = None, consents: bool = True) -> str:
        """Open a page and go on until Bitbucket sends the browser back. Returns the
        callback's URL, not yet asked for."""
        answer = self.get(url)
        for _ in range(12):
            if answer.location and re.search(r"[?&]state=", answer.location) and "client_id=" not in answer.location:
                return answer.location
            if answer.location:
                answer = self.follow(answer)
            elif 'action="/account/signin"' in answer.text:
                assert person, "the simulator asks who it is"
                answer = self.submit(answer, ("account", person))
            elif '"decision"' in answer.text:
                answer = self.submit(answer, ("decision", "grant" if consents else "cancel"))
            else:
                break
        raise TooManySteps(f"no way to the callback: {answer!r}")

    def session_value(self, host: str = "localhost") -> str | None:
        return next((v for n, v in self.jar.named(host, "bitbucket_session").items() if SESSION.match(n)), None)

    def lose_session(self) -> None:
        """As if this browser did not keep the session's cookie."""
        for key in [key for key in self.jar.cookies if key[1].endswith("bitbucket_session")]:
            del self.jar.cookies[key]

    def ticket_names(self, host: str = "localhost") -> list[str]:
        return list(self.jar.named(host, TICKET))
