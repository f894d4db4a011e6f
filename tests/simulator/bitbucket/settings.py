"""The knobs tests turn, each with what Bitbucket does as its default, and the clock."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import Any


class Refused(Exception):
    """What a control request asked cannot be done; the text is for its sender."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Settings:
    """Defaults are what Bitbucket Cloud was seen to do in 2026.

    code_lifetime           RFC 6749 section 4.1.2 recommends at most ten minutes.
    access_token_lifetime   the manual says one hour; every answer seen says 7200
                            (still in August 2026).
    refresh_token_lifetime  unused refresh tokens die after three months
                            (CHANGE-3052, 2026-05-04).
    refresh_overlap         a used refresh token dies "about 10 minutes" later
                            (Atlassian engineer, August 2026); 0: at once.
    reuse_penalty           seconds for which all refreshes of a client are refused
                            after one of its dead tokens was reused; seen once, "for
                            some minutes" (2026-08-09), so off unless asked for.
    token_length            new tokens are often over 2,500 characters (August 2026).
    refresh_error           error code for an unknown refresh token: both were seen.
    expired_message         "old" or "new" wording of the 401, both in use in 2026.
    send_scope_as           "scope" since 2026-05-04, "scopes" before (CHANGE-3052).
    quota, anonymous_quota  requests in a rolling hour per user, and per address
                            without credentials (api-request-limits page); None: no limit.
    rate_limit_format       429 comes as JSON or as plain text; both were seen.
    retry_after             value of Retry-After on 429; None: missing, as often seen.
    paging                  "bare" sends only values and next, all that is promised
                            (rest/intro, "Pagination").
    collaborator_answer     what user/workspaces/{w}/permission says to somebody who
                            only shares single repositories: not established.
    pkce                    whether a code_verifier is checked: not established.
    auto_account            authorize signs this account in and grants without pages.
    """

    code_lifetime: float = 600
    access_token_lifetime: float = 7200
    refresh_token_lifetime: float = 90 * 86400
    refresh_overlap: float = 600
    reuse_penalty: float = 0
    token_length: int = 2600
    refresh_error: str = "invalid_grant"
    expired_message: str = "old"
    send_scope_as: str = "scope"
    scope_separator: str = "space"
    expires_in_format: str = "number"
    token_type: str | None = "bearer"
    quota: int | None = 1000
    anonymous_quota: int | None = 60
    rate_limit_format: str = "json"
    retry_after: str | None = None
    paging: str = "full"
    collaborator_answer: str = "collaborator"
    pkce: str = "ignored"
    auto_account: str | None = None


_CHOICES = {
    "refresh_error": ("invalid_grant", "invalid_request"),
    "expired_message": ("old", "new"),
    "send_scope_as": ("scope", "scopes", "none"),
    "scope_separator": ("space", "comma"),
    "expires_in_format": ("number", "string", "missing"),
    "rate_limit_format": ("json", "text"),
    "paging": ("full", "bare"),
    "collaborator_answer": ("collaborator", "member", "403"),
    "pkce": ("ignored", "checked"),
}
_RANGES = {
    "code_lifetime": (0, 86400), "access_token_lifetime": (0, 10**8),
    "refresh_token_lifetime": (0, 10**9), "refresh_overlap": (0, 10**8),
    "reuse_penalty": (0, 86400), "token_length": (16, 32768),
    "quota": (0, 10**9), "anonymous_quota": (0, 10**9),
}
_WHOLE = ("token_length", "quota", "anonymous_quota")
_MAY_BE_NULL = ("token_type", "quota", "anonymous_quota", "retry_after", "auto_account")


def change_settings(settings: Settings, wanted: dict[str, Any]) -> Settings:
    """A copy with the wanted values. Errors: Refused, and nothing is changed."""
    return dataclasses.replace(settings, **{name: _check(name, value) for name, value in wanted.items()})


def _check(name: str, value: Any) -> Any:
    if name not in {field.name for field in dataclasses.fields(Settings)}:
        raise Refused(f"there is no setting {name!r}")
    if value is None:
        if name in _MAY_BE_NULL:
            return None
        raise Refused(f"{name} cannot be null")
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise Refused(f"{name} is one of {', '.join(_CHOICES[name])}")
        return value
    if name in _RANGES:
        low, high = _RANGES[name]
        return number(value, name, low, high, whole=name in _WHOLE)
    if name == "retry_after" and isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or len(value) > 200 or not value.isprintable() or not value.isascii():
        raise Refused(f"{name} is a short ASCII text or null")
    return value


def number(value: Any, name: str, low: float, high: float, whole: bool = False) -> Any:
    """value when it is a number within bounds. Errors: Refused."""
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value) or not low <= value <= high:
        raise Refused(f"{name} is a {'whole ' if whole else ''}number from {low} to {high}")
    return value


class Clock:
    """Unix time that tests can push forth and back."""

    def __init__(self) -> None:
        self.offset = 0.0

    def now(self) -> float:
        return time.time() + self.offset
