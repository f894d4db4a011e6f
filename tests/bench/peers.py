"""Other modules of Debian that keep sessions, set up as their manuals say, each with a visitor
who has signed in."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import ssl
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, ContextManager, Iterator, Sequence
from urllib.parse import parse_qs, urlencode, urlsplit

import place
from harness import certificates  # place has made it known

Visit = tuple[place.Httpd, list[str]]
SITE = """Alias /open "${CONTENT}"
Alias /team "${CONTENT}"
"""


@dataclass
class Peer:
    name: str
    title: str
    # An httpd that protects place.TEAM, and Cookie headers of those who have signed in.
    open: Callable[[Sequence[str]], ContextManager[Visit]]


def _session_cookie(httpd: place.Httpd, answer: place.Answer, browser: place.Browser) -> str:
    if answer.status != 200:
        raise RuntimeError(f"the sign-in failed: {answer!r}\n{httpd.said()}")
    return browser.jar.line(httpd.name, False)


# -- mod_auth_form: the session is a cookie, encrypted; the password file is read at each request

PASSWORD = "a password"


@contextmanager
def auth_form(wrapper: Sequence[str]) -> Iterator[Visit]:
    httpd = place.Httpd(modules=("request", "session", "session_cookie", "session_crypto", "authn_file", "auth_form"),
                        wrapper=wrapper, site="")
    users = httpd.root / "conf" / "users"
    digest = base64.b64encode(hashlib.sha1(PASSWORD.encode()).digest()).decode()
    users.write_text(f"ada:{{SHA}}{digest}\n")
    form = f"""AuthType form
AuthName "Measured"
AuthFormProvider file
AuthUserFile "{users}"
Session On
SessionCookieName session path=/
SessionCryptoPassphrase "a secret for measuring"
"""
    httpd.site = f"""{SITE}<Location /team>
{form}Require valid-user
</Location>
<Location /sign-in>
{form}SetHandler form-login-handler
AuthFormLoginSuccessLocation {httpd.url(place.TEAM)}
</Location>"""
    with httpd:
        browser = place.Browser()
        answer = browser.request("POST", httpd.url("/sign-in"),
                                 form={"httpd_username": "ada", "httpd_password": PASSWORD})
        yield httpd, [_session_cookie(httpd, browser.walk(answer)[-1], browser)]


# -- mod_auth_openidc, its sessions in its shared memory

CLIENT, SECRET = "measured", "a secret of the measured client, long enough for a hash"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _signed(claims: dict[str, object]) -> str:
    parts = [_base64url(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    signature = hmac.new(SECRET.encode(), ".".join(parts).encode(), hashlib.sha256).digest()
    return ".".join([*parts, _base64url(signature)])


class Provider(http.server.ThreadingHTTPServer):
    """The least that is an OpenID provider, over TLS as the module demands: everybody is Ada."""

    daemon_threads = True

    def __init__(self, certificate: Path) -> None:
        super().__init__(("127.0.0.1", 0), _ProviderRequest)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{certificate}.crt", f"{certificate}.key")
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.issuer = f"https://127.0.0.1:{self.server_port}"
        self.nonces: dict[str, str] = {}

    def __enter__(self) -> "Provider":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _ProviderRequest(http.server.BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        code = f"code-{len(self.server.nonces)}"
        self.server.nonces[code] = query.get("nonce", "")
        self.send_response(302)
        self.send_header("Location", query["redirect_uri"] + "?" + urlencode({"code": code, "state": query["state"]}))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        now = int(time.time())
        claims = {"iss": self.server.issuer, "sub": "9a01f37b-b1b2-40c5-8c5e-1a39f4b5e645", "aud": CLIENT, "iat": now,
                  "exp": now + 3600, "nonce": self.server.nonces.pop(form["code"][0]), "email": "ada@acme.example",
                  "name": "Ada", "preferred_username": "ada"}
        body = json.dumps({"access_token": "x" * 43, "token_type": "Bearer", "expires_in": 3600,
                           "id_token": _signed(claims)}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _openidc_text(provider: Provider, httpd: place.Httpd, sessions: int) -> str:
    return f"""{SITE}OIDCProviderIssuer {provider.issuer}
OIDCProviderAuthorizationEndpoint {provider.issuer}/authorize
OIDCProviderTokenEndpoint {provider.issuer}/token
OIDCSSLValidateServer Off
OIDCIDTokenSignedResponseAlg HS256
OIDCClientID {CLIENT}
OIDCClientSecret "{SECRET}"
OIDCRedirectURI {httpd.url("/team/return")}
OIDCCryptoPassphrase "a passphrase for measuring"
OIDCScope "openid email profile"
OIDCSessionType server-cache
OIDCCacheType shm
OIDCCacheShmMax {4 * sessions + 500}
<Location /team>
AuthType openid-connect
Require valid-user
</Location>"""


def auth_openidc(sessions: int) -> Callable[[Sequence[str]], ContextManager[Visit]]:
    @contextmanager
    def opened(wrapper: Sequence[str]) -> Iterator[Visit]:
        httpd = place.Httpd(modules=("auth_openidc",), wrapper=wrapper, site="")
        certificates.write(httpd.root / "conf" / "provider", ["localhost"])
        with Provider(httpd.root / "conf" / "provider") as provider:
            httpd.site = _openidc_text(provider, httpd, sessions)
            with httpd:
                yield httpd, [_sign_in_openidc(httpd) for _ in range(sessions)]
    return opened


def _sign_in_openidc(httpd: place.Httpd) -> str:
    browser = place.Browser()
    return _session_cookie(httpd, browser.walk(browser.get(httpd.url(place.TEAM)))[-1], browser)


PEERS = [
    Peer("auth_form", "mod_auth_form, session in an encrypted cookie", auth_form),
    Peer("auth_openidc_1", "mod_auth_openidc, shared memory, 1 live session", auth_openidc(1)),
    Peer("auth_openidc_1000", "mod_auth_openidc, shared memory, 1,000 live sessions", auth_openidc(1000)),
]
