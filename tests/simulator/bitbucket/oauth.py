"""Consumers, authorization codes and tokens; the authorize and token endpoints.

Sources: support.atlassian.com "Use OAuth on Bitbucket Cloud"; CHANGE-3052
(2026-05-04: bearer header only, rotating refresh tokens, scope instead of
scopes, no implicit grant); live probes of August 2026 where marked "seen".
Who the browser is, browser.py decides; here an account is only a name.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Any, Iterable

from . import pages
from .exchange import Answer, BadRequest, Bounded, Call, decode_basic, json_answer, redirect, repeated, with_parameters
from .settings import Clock, Refused, Settings

MAX_CODES = 20_000
MAX_TOKENS = 50_000
MAX_CONSUMERS = 1_000
KNOWN_SCOPES = frozenset("""
    project project:admin project:write repository repository:write repository:admin repository:delete
    pullrequest pullrequest:write issue issue:write wiki webhook snippet snippet:write email account
    account:write pipeline pipeline:write pipeline:variable runner runner:write test test:write team team:write
    """.split())
# "Some scopes imply others; the :admin ones imply nothing" (rest/intro, "Scopes").
_IMPLIES = {"pullrequest": ("repository",), "pullrequest:write": ("pullrequest", "repository", "repository:write"),
            "repository:write": ("repository",), "project": ("repository",), "account:write": ("account",),
            "pipeline:write": ("pipeline",), "pipeline:variable": ("pipeline", "pipeline:write"),
            "runner:write": ("runner",), "team:write": ("team",), "snippet:write": ("snippet",)}


def implied(scopes: Iterable[str]) -> frozenset[str]:
    """The scopes and all they imply."""
    result: set[str] = set()
    todo = list(scopes)
    while todo:
        scope = todo.pop()
        if scope not in result:
            result.add(scope)
            todo.extend(_IMPLIES.get(scope, ()))
    return frozenset(result)


@dataclass(frozen=True)
class Consumer:
    """An OAuth consumer ("OAuth client" on the settings page since 2026-09).
    Bitbucket's has one callback URL; several are a convenience for tests."""

    key: str
    secret: str
    callback_urls: tuple[str, ...]
    scopes: tuple[str, ...] = ("account", "email", "repository")
    private: bool = True
    name: str = ""


@dataclass
class Code:
    client: str
    account: str
    scopes: tuple[str, ...]
    redirect_uri: str | None        # as sent to authorize
    callback: str                   # where the code went
    challenge: tuple[str, str] | None
    expires: float
    used: bool = False


@dataclass
class AccessToken:
    client: str
    account: str
    scopes: tuple[str, ...]
    expires: float
    revoked: bool = False


@dataclass
class RefreshToken:
    client: str
    account: str
    scopes: tuple[str, ...]
    expires: float
    dies: float | None = None       # set by its first use
    revoked: bool = False


@dataclass
class Request:
    """An authorize request that passed every check."""

    consumer: Consumer
    scopes: tuple[str, ...]
    callback: str
    redirect_uri: str | None
    state: str | None
    challenge: tuple[str, str] | None


def make_consumer(entry: Any) -> Consumer:
    """From JSON: key, secret, callback_url or callback_urls, scopes, private, name.
    Errors: Refused."""
    if not isinstance(entry, dict):
        raise Refused("a consumer is an object")
    urls = entry.get("callback_urls", [entry["callback_url"]] if entry.get("callback_url") else [])
    scopes = entry.get("scopes", list(Consumer.scopes))
    scopes = scopes.split() if isinstance(scopes, str) else scopes
    texts = (entry.get("key"), entry.get("secret"), entry.get("name", ""))
    if not all(isinstance(text, str) and len(text) <= 200 and text.isprintable() for text in texts) or not all(texts[:2]):
        raise Refused("a consumer has key and secret, printable texts of at most 200 characters")
    if not isinstance(urls, list) or not all(isinstance(u, str) and _is_url(u) for u in urls):
        raise Refused("callback_urls is a list of http or https URLs without spaces and controls")
    if not isinstance(scopes, list) or not all(isinstance(s, str) and s in KNOWN_SCOPES for s in scopes):
        raise Refused("scopes is a list of Bitbucket's scopes")
    if not isinstance(entry.get("private", True), bool):
        raise Refused("private is true or false")
    return Consumer(texts[0], texts[1], tuple(urls), tuple(scopes), entry.get("private", True), entry.get("name", ""))


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://")) and text.isprintable() and text.isascii() \
        and " " not in text and len(text) <= 2000


@dataclass
class OAuth:
    """Everything issued since the last reset."""

    clock: Clock
    settings: Settings
    consumers: dict[str, Consumer] = field(default_factory=dict)
    codes: Bounded[str, Code] = field(default_factory=lambda: Bounded(MAX_CODES))
    access_tokens: Bounded[str, AccessToken] = field(default_factory=lambda: Bounded(MAX_TOKENS))
    refresh_tokens: Bounded[str, RefreshToken] = field(default_factory=lambda: Bounded(MAX_TOKENS))
    consents: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    penalties: dict[str, float] = field(default_factory=dict)

    # -- authorize

    def check_authorize(self, call: Call) -> Request | Answer:
        """The request, or the answer that refuses it. As long as client and
        redirect_uri are not both good nothing is redirected (the manual)."""
        again = call.repeated()
        if again:   # RFC 6749 section 3.1: must not be included more than once
            return pages.message("Invalid request", f"The parameter {again[:60]} was sent more than once.", 400)
        consumer = self.consumers.get(call.parameter("client_id") or "")
        if consumer is None:
            return pages.message("Invalid client_id", "This integration is misconfigured. Contact the vendor for assistance.", 400)
        redirect_uri = call.parameter("redirect_uri")
        if not consumer.callback_urls:
            return pages.message("Invalid request", "No callback uri defined for the OAuth client.", 400)
        # Exact match only, seen 2026-08-09, although the manual lets it extend the registered URL.
        if redirect_uri is not None and redirect_uri not in consumer.callback_urls:
            return pages.message("Invalid redirect_uri", "This integration is misconfigured. Contact the vendor for assistance.", 400)
        callback = redirect_uri or consumer.callback_urls[0]
        state = call.parameter("state")
        if call.parameter("response_type") != "code":   # token: gone with CHANGE-3052
            return send_error(callback, state, "unsupported_response_type", "Only response_type=code is supported.")
        wanted = call.parameter("scope")
        scopes = tuple(dict.fromkeys(wanted.split())) if wanted and wanted.split() else consumer.scopes
        if not implied(consumer.scopes).issuperset(scopes):
            return send_error(callback, state, "invalid_scope", "The requested scope is not ticked on the OAuth client.")
        challenge = call.parameter("code_challenge")
        method = call.parameter("code_challenge_method") or "plain"
        return Request(consumer, scopes, callback, redirect_uri, state, (challenge, method) if challenge else None)

    def has_consent(self, account: str, request: Request) -> bool:
        return implied(self.consents.get((account, request.consumer.key), ())).issuperset(request.scopes)

    def grant(self, account: str, request: Request) -> Answer:
        """Remember the consent and send the browser back with a code."""
        key = (account, request.consumer.key)
        self.consents[key] = self.consents.get(key, frozenset()) | set(request.scopes)
        code = secrets.token_urlsafe(24)
        self.codes[code] = Code(request.consumer.key, account, request.scopes, request.redirect_uri, request.callback,
                                request.challenge, self.clock.now() + self.settings.code_lifetime)
        state = [] if request.state is None else [("state", request.state)]
        return redirect(with_parameters(request.callback, [("code", code), *state]))

    # -- token endpoint

    def token(self, call: Call) -> Answer:
        """POST /site/oauth2/access_token. It answers HTML where the client did not
        even look like one: another scheme than Basic, parameters in the query (seen)."""
        if call.method != "POST":
            answer = pages.message("Method not allowed", "Ask with POST.", 405)
            return Answer(405, answer.body, answer.content_type, {**answer.headers, "Allow": "POST"})
        authorization = call.authorization()
        if call.query or (authorization and authorization[0] != "basic"):
            return pages.message("Bad request", "The token endpoint could not understand this.", 400)
        try:
            pairs = call.form()
        except BadRequest as error:
            return _refuse("invalid_request", str(error))
        if repeated(pairs):
            return _refuse("invalid_request", "A parameter was sent more than once")
        form = dict(pairs)
        consumer = self._client(authorization[1] if authorization else None, form)
        if consumer is None:    # not invalid_client, as RFC 6749 has it (seen, and in the manual's forum)
            return _refuse("unauthorized_client", "Invalid OAuth client credentials")
        grant_type = form.get("grant_type")
        if grant_type == "authorization_code":
            return self._exchange(consumer, form)
        if grant_type == "refresh_token":
            return self._refresh(consumer, form)
        if grant_type == "client_credentials":
            return self._client_credentials(consumer)
        return _refuse("invalid_grant", f"Unsupported grant type: {str(grant_type)[:100]}")

    def _client(self, basic: str | None, form: dict[str, str]) -> Consumer | None:
        """By Basic (documented) or client_id and client_secret in the body (seen, 2026-08)."""
        pair = decode_basic(basic) if basic is not None else (form.get("client_id", ""), form.get("client_secret", ""))
        if pair is None or (basic is not None and form.get("client_id", pair[0]) != pair[0]):
            return None
        consumer = self.consumers.get(pair[0])
        good = consumer is not None and hmac.compare_digest(_bytes(consumer.secret), _bytes(pair[1]))
        return consumer if good else None

    def _exchange(self, consumer: Consumer, form: dict[str, str]) -> Answer:
        code = self.codes.get(form.get("code", ""))
        if code is None or code.client != consumer.key:
            return _refuse("invalid_grant", "The specified code is not valid.")
        if code.used or code.expires <= self.clock.now():
            return _refuse("invalid_grant", "The specified code is expired or was used.")
        sent = form.get("redirect_uri")
        if sent != code.redirect_uri and not (code.redirect_uri is None and sent == code.callback):
            return _refuse("invalid_grant", "redirect_uri differs from the one sent to authorize.")
        if self.settings.pkce == "checked" and not _verified(code.challenge, form.get("code_verifier")):
            return _refuse("invalid_grant", "code_verifier does not match.")
        code.used = True
        return self._issue(consumer, code.account, code.scopes, "authorization_code")

    def _refresh(self, consumer: Consumer, form: dict[str, str]) -> Answer:
        """A used refresh token works on for the overlap, then its reuse is answered
        unauthorized_client (CHANGE-3052; seen 2026-08-09)."""
        now = self.clock.now()
        token = self.refresh_tokens.get(form.get("refresh_token", ""))
        if token is None or token.client != consumer.key or token.revoked or token.expires <= now:
            return _refuse(self.settings.refresh_error, "Invalid refresh_token")
        if token.dies is not None and token.dies <= now:
            self.penalties[consumer.key] = now + self.settings.reuse_penalty
            return _refuse("unauthorized_client", "Invalid OAuth client credentials")
        if self.penalties.get(consumer.key, 0) > now:
            return _refuse("unauthorized_client", "Invalid OAuth client credentials")
        if token.dies is None:
            token.dies = now + self.settings.refresh_overlap
        return self._issue(consumer, token.account, token.scopes, "refresh_token")

    def _client_credentials(self, consumer: Consumer) -> Answer:
        """Private consumers with a callback URL only; since May 2026 an app_user and
        no refresh token (CHANGE-3052)."""
        if not consumer.callback_urls:
            return _refuse("invalid_request", "No callback uri defined for the OAuth client.")
        if not consumer.private:
            return _refuse("unauthorized_client", 'Cannot use client_credentials with a consumer marked as "public". '
                                                  "Calls for auto generated consumers should use urn:bitbucket:oauth2:jwt instead.")
        return self._issue(consumer, APP_USER, consumer.scopes, "client_credentials")

    def _issue(self, consumer: Consumer, account: str, scopes: tuple[str, ...], grant_type: str) -> Answer:
        settings, now = self.settings, self.clock.now()
        access = _new_token(settings.token_length)
        self.access_tokens[access] = AccessToken(consumer.key, account, scopes, now + settings.access_token_lifetime)
        answer: dict[str, Any] = {"access_token": access}
        if settings.send_scope_as != "none":
            answer[settings.send_scope_as] = ("," if settings.scope_separator == "comma" else " ").join(scopes)
        if settings.token_type is not None:
            answer["token_type"] = settings.token_type
        if settings.expires_in_format != "missing":
            seconds = int(settings.access_token_lifetime)
            answer["expires_in"] = str(seconds) if settings.expires_in_format == "string" else seconds
        answer["state"] = grant_type
        if grant_type != "client_credentials":
            refresh = _new_token(settings.token_length)
            self.refresh_tokens[refresh] = RefreshToken(consumer.key, account, scopes, now + settings.refresh_token_lifetime)
            answer["refresh_token"] = refresh
        return json_answer(answer, headers=_NO_STORE, content_type="application/json")

    def client_of(self, call: Call) -> tuple[str | None, str | None]:
        """Client and account a token request is about; nothing is checked or changed."""
        authorization = call.authorization()
        try:
            form = dict(call.form())
        except BadRequest:
            form = {}
        pair = decode_basic(authorization[1]) if authorization and authorization[0] == "basic" else None
        issued = self.codes.get(form.get("code", "")) or self.refresh_tokens.get(form.get("refresh_token", ""))
        return (pair[0] if pair else form.get("client_id")), (issued.account if issued else None)

    # -- for tests

    def end_tokens(self, kind: str, account: str | None, revoke: bool) -> int:
        """Expire, or revoke, tokens already issued. Returns how many."""
        count = 0
        tables = {"access": [self.access_tokens], "refresh": [self.refresh_tokens],
                  "all": [self.access_tokens, self.refresh_tokens]}[kind]
        for table in tables:
            for token in table.values():
                if account is None or token.account == account:
                    count += 1
                    token.expires = min(token.expires, self.clock.now())
                    token.revoked = token.revoked or revoke
        return count

    def issued_secrets(self) -> dict[str, Any]:
        return {"codes": list(self.codes), "access_tokens": list(self.access_tokens),
                "refresh_tokens": list(self.refresh_tokens),
                "client_secrets": [consumer.secret for consumer in self.consumers.values()],
                "dropped": self.codes.dropped + self.access_tokens.dropped + self.refresh_tokens.dropped}


APP_USER = "robot"      # who client credentials act as, when the world has it
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


def send_error(callback: str, state: str | None, error: str, description: str) -> Answer:
    """RFC 6749 section 4.1.2.1; Bitbucket's exact texts are not established."""
    pairs = [("error", error), ("error_description", description)]
    return redirect(with_parameters(callback, pairs if state is None else [*pairs, ("state", state)]))


def _refuse(error: str, description: str) -> Answer:
    """Errors of the token endpoint are 400 with the description first (seen)."""
    return json_answer({"error_description": description, "error": error}, 400, _NO_STORE, "application/json")


def _new_token(length: int) -> str:
    return secrets.token_urlsafe(length)[:length]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _verified(challenge: tuple[str, str] | None, verifier: str | None) -> bool:
    """RFC 7636 section 4.6."""
    if challenge is None:
        return verifier is None
    if verifier is None:
        return False
    value, method = challenge
    if method == "plain":
        return hmac.compare_digest(_bytes(value), _bytes(verifier))
    digest = base64.urlsafe_b64encode(hashlib.sha256(_bytes(verifier)).digest()).rstrip(b"=")
    return method == "S256" and hmac.compare_digest(digest, _bytes(value))
