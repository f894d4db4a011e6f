"""Other modules of Debian that keep sessions, set up as their manuals say, each with a visitor
who has signed in."""

from __future__ import annotations

import base64
import hashlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, ContextManager, Iterator, Mapping, Sequence

import place
from provider import CLIENT, SECRET, Provider, certify, granted

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
    # How else a request says who asks.
    headers: Mapping[str, str] = field(default_factory=dict)


def _session_cookie(httpd: place.Httpd, answer: place.Answer, browser: place.Browser) -> str:
    if answer.status != 200:
        raise RuntimeError(f"the sign-in failed: {answer!r}\n{httpd.said()}")
    return browser.jar.line(httpd.name, False)


PASSWORD = "a password"


def _password_file(httpd: place.Httpd) -> Path:
    """Of Ada alone, her password as a hash that costs next to nothing: no other is faster."""
    users = httpd.root / "conf" / "users"
    digest = base64.b64encode(hashlib.sha1(PASSWORD.encode()).digest()).decode()
    users.write_text(f"ada:{{SHA}}{digest}\n")
    return users


# -- mod_auth_basic: no session; name and password come with each request, and the file is read

BASIC = {"Authorization": "Basic " + base64.b64encode(f"ada:{PASSWORD}".encode()).decode()}


@contextmanager
def auth_basic(wrapper: Sequence[str]) -> Iterator[Visit]:
    httpd = place.Httpd(modules=("auth_basic", "authn_file"), wrapper=wrapper, site="")
    httpd.site = f"""{SITE}<Location /team>
AuthType Basic
AuthName "Measured"
AuthBasicProvider file
AuthUserFile "{_password_file(httpd)}"
Require valid-user
</Location>"""
    with httpd:
        yield httpd, []


# -- mod_auth_form: the session is a cookie, encrypted; the password file is read at each request


@contextmanager
def auth_form(wrapper: Sequence[str]) -> Iterator[Visit]:
    httpd = place.Httpd(modules=("request", "session", "session_cookie", "session_crypto", "authn_file", "auth_form"),
                        wrapper=wrapper, site="")
    form = f"""AuthType form
AuthName "Measured"
AuthFormProvider file
AuthUserFile "{_password_file(httpd)}"
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


# -- mod_auth_openidc

def openidc_text(provider: Provider, authorities: Path, httpd: place.Httpd, sessions: str) -> str:
    """Protects place.TEAM. sessions: the directives that say where they are kept."""
    return f"""{SITE}OIDCProviderIssuer {provider.origin}
OIDCProviderAuthorizationEndpoint {provider.origin}/authorize
OIDCProviderTokenEndpoint {provider.origin}/token
OIDCProviderUserInfoEndpoint {provider.origin}/userinfo
OIDCIDTokenSignedResponseAlg HS256
OIDCClientID {CLIENT}
OIDCClientSecret "{SECRET}"
OIDCRedirectURI {httpd.url("/team/return")}
OIDCCryptoPassphrase "a passphrase for measuring"
OIDCScope "openid email profile"
OIDCCABundlePath "{authorities}"
{sessions}
<Location /team>
AuthType openid-connect
Require valid-user
</Location>"""


def in_memory(sessions: int) -> str:
    return f"OIDCSessionType server-cache\nOIDCCacheType shm\nOIDCCacheShmMax {4 * sessions + 500}"


IN_COOKIE = "OIDCSessionType client-cookie"


@contextmanager
def _openidc(wrapper: Sequence[str], kept: str, sessions: int = 1) -> Iterator[Visit]:
    httpd = place.Httpd(modules=("auth_openidc",), wrapper=wrapper, site="")
    try:
        certificate = httpd.root / "conf" / "provider"
        authorities = certify(certificate)
        with Provider(certificate) as provider:
            httpd.site = openidc_text(provider, authorities, httpd, kept)
            httpd.start()
            yield httpd, [_sign_in_openidc(httpd) for _ in range(sessions)]
    finally:
        httpd.end()


def _sign_in_openidc(httpd: place.Httpd) -> str:
    browser = place.Browser()
    asked = browser.get(httpd.url(place.TEAM))
    assert asked.location, f"no redirect: {asked!r}"
    return _session_cookie(httpd, browser.walk(browser.get(granted(asked.location, "")))[-1], browser)


def openidc_in_memory(sessions: int) -> Callable[[Sequence[str]], ContextManager[Visit]]:
    return lambda wrapper: _openidc(wrapper, in_memory(sessions), sessions)


def openidc_in_cookie(wrapper: Sequence[str]) -> ContextManager[Visit]:
    return _openidc(wrapper, IN_COOKIE)


@contextmanager
def openidc_in_redis(wrapper: Sequence[str]) -> Iterator[Visit]:
    with place.cache("redis") as redis:
        kept = f"OIDCSessionType server-cache\nOIDCCacheType redis\nOIDCRedisCacheServer 127.0.0.1:{redis.port}"
        with _openidc(wrapper, kept) as visit:
            yield visit


PEERS = [
    Peer("auth_basic", "mod_auth_basic, {SHA} in a file of one user", auth_basic, BASIC),
    Peer("auth_form", "mod_auth_form, session in an encrypted cookie", auth_form),
    Peer("auth_openidc_1", "mod_auth_openidc, shared memory, 1 live session", openidc_in_memory(1)),
    Peer("auth_openidc_1000", "mod_auth_openidc, shared memory, 1,000 live sessions", openidc_in_memory(1000)),
    Peer("auth_openidc_cookie", "mod_auth_openidc, session in a cookie", openidc_in_cookie),
    Peer("auth_openidc_redis", "mod_auth_openidc, session in redis", openidc_in_redis),
]
