"""Who a browser is at the simulator: sign-in, consent, sign-out.

Bitbucket keeps a browser signed in with a cookie of its own, so that a later
authorize answers at once. Here a person picks an account from a list instead
of typing a password.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from urllib.parse import quote

from . import pages
from .exchange import Answer, Bounded, Call, redirect
from .oauth import OAuth, Request, send_error
from .settings import Settings
from .world import World

COOKIE = "simulator_sign_in"
AUTHORIZE = "/site/oauth2/authorize"


@dataclass
class SignedIn:
    account: str
    csrf: str


@dataclass
class Browsers:
    """The browsers signed in, by cookie."""

    world: World
    oauth: OAuth
    settings: Settings
    sessions: Bounded[str, SignedIn] = field(default_factory=lambda: Bounded(10_000))

    def account_of(self, call: Call) -> str | None:
        session = self._session(call)
        return session.account if session else self._automatic()

    def _session(self, call: Call) -> SignedIn | None:
        session = self.sessions.get(call.cookie(COOKIE) or "")
        return session if session and session.account in self.world.accounts else None

    def _automatic(self) -> str | None:
        name = self.settings.auto_account
        return name if name in self.world.accounts else None

    def start(self, account: str) -> str:
        """Value of the cookie of a browser newly signed in."""
        value = secrets.token_urlsafe(24)
        self.sessions[value] = SignedIn(account, secrets.token_urlsafe(16))
        return value

    # -- pages

    def authorize(self, call: Call) -> Answer:
        request = self.oauth.check_authorize(call)
        if isinstance(request, Answer):
            return request
        session, here = self._session(call), _here(call)
        if session is None and self._automatic():
            return self.oauth.grant(str(self._automatic()), request)
        if call.method == "POST":
            return self._decide(call, request, session)
        if session is None:
            return redirect(f"/account/signin?next={quote(here, safe='')}")
        if self.oauth.has_consent(session.account, request):
            return self.oauth.grant(session.account, request)
        return pages.consent(self.world.accounts[session.account], request.consumer.name or request.consumer.key,
                             request.scopes, here, session.csrf, request.callback)

    def _decide(self, call: Call, request: Request, session: SignedIn | None) -> Answer:
        form = dict(call.form())
        if session is None or form.get("csrf") != session.csrf:
            return pages.message("Try again", "This form belongs to another sign-in. Go back and start once more.", 403)
        if form.get("decision") == "grant":
            return self.oauth.grant(session.account, request)
        if form.get("decision") == "cancel":    # the exact text is not established
            return send_error(request.callback, request.state, "access_denied", "The user denied access to the application.")
        return pages.message("Bad request", "Grant access or cancel.", 400)

    def sign_in(self, call: Call, secure: bool) -> Answer:
        if call.method != "POST":
            after = _local(call.parameter("next"))
            return pages.sign_in(self.world.accounts, after, self._consumer_in(after))
        form = dict(call.form())
        account = form.get("account", "")
        if account not in self.world.accounts:
            return pages.message("Nobody", "There is no such account.", 400)
        self.sessions.pop(call.cookie(COOKIE) or "", None)
        cookie = f"{COOKIE}={self.start(account)}; Path=/; HttpOnly; SameSite=Lax{'; Secure' if secure else ''}"
        return redirect(_local(form.get("next")), {"Set-Cookie": cookie})

    def sign_out(self, call: Call) -> Answer:
        session = self._session(call)
        if call.method != "POST":
            return pages.sign_out(self.world.accounts[session.account] if session else None)
        self.sessions.pop(call.cookie(COOKIE) or "", None)
        return redirect("/account/signout", {"Set-Cookie": f"{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"})

    def home(self, call: Call) -> Answer:
        account = self.account_of(call)
        return pages.home(self.world.accounts[account] if account else None,
                          [(c.key, c.callback_urls) for c in self.oauth.consumers.values()])

    def avatar(self, key: str) -> Answer:
        name = self.world.find_account(key)
        return pages.avatar(self.world.accounts[name] if name else {})

    def _consumer_in(self, after: str) -> str | None:
        for consumer in self.oauth.consumers.values():
            if f"client_id={quote(consumer.key, safe='')}" in after.partition("?")[2].split("&"):
                return consumer.name or consumer.key
        return None


def _here(call: Call) -> str:
    return AUTHORIZE + "?" + call.query_text


def _local(path: str | None) -> str:
    """Sign-in goes on to authorize or to the start page, nowhere else."""
    if path and path.startswith(AUTHORIZE + "?") and path.isprintable() and path.isascii():
        return path
    return "/"
