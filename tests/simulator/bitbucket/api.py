"""Everything under /2.0, and what the API host says to the rest.

Source for the paths, scopes and status codes: Atlassian's OpenAPI description
of 2026, corrected where live answers differ. Each route names its source.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping

from . import objects
from .exchange import TEXT, Answer, Call, decode_basic, json_answer
from .limits import Limits
from .oauth import OAuth, implied
from .query import BadQuery, page_of, trim
from .settings import Clock, Settings
from .world import REPOSITORY_ROLES, Workspace, World

# Wordings seen in 2026; clients are to match on the status.
EXPIRED_OLD = "Access token expired. Use your refresh token to obtain a new access token."
EXPIRED_NEW = "OAuth2 access token expired. Use your refresh token to obtain a new access token."
INVALID = "Token is invalid, expired, or not supported for this endpoint."
LACKS_SCOPE = "Your credentials lack one or more required privilege scopes."
GONE = "CHANGE-2770 - Functionality has been deprecated"
TOO_MANY = "Rate limit for this resource has been exceeded"
NO_API = ("There is no API hosted at this URL.\n\nFor information about our API's, please refer to the documentation at: "
          "https://developer.atlassian.com/bitbucket/api/2/reference/")
API_WORDS = frozenset(("user", "users", "workspaces", "repositories", "teams", "snippets", "pullrequests",
                       "addon", "hook_events", "1.0"))


@dataclass(frozen=True)
class Credentials:
    """Who asks. problem: the message of the 401 this request deserves."""

    account: str | None = None
    client: str | None = None
    scopes: frozenset[str] = frozenset()
    granted: tuple[str, ...] = ()
    api_token: bool = False
    problem: str | None = None


class Failure(Exception):
    """An API error to answer with."""

    def __init__(self, status: int, message: str, detail: Any = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.answer = json_answer(objects.error(message, detail), status, headers)


@dataclass(frozen=True)
class Route:
    """scopes are OAuth's, token_scopes those of API tokens, another vocabulary."""

    pattern: tuple[str, ...]
    handler: Callable[["Api", Call, Credentials, list[str]], Any]
    scopes: tuple[str, ...] = ()
    token_scopes: tuple[str, ...] = ()
    anonymous: bool = False


@dataclass
class Api:
    world: World
    oauth: OAuth
    settings: Settings
    clock: Clock
    limits: Limits = field(default_factory=Limits)

    def credentials(self, call: Call) -> Credentials:
        """An access token counts only as Authorization: Bearer (CHANGE-3052); one in
        the query or the body spoils the request."""
        if any(key == "access_token" for key, _ in call.query) or b"access_token=" in call.body:
            return Credentials(problem=INVALID)
        authorization = call.authorization()
        if authorization is None:
            return Credentials()
        scheme, text = authorization
        if scheme == "bearer":
            return self._bearer(text)
        return self._basic(text) if scheme == "basic" else Credentials(problem=INVALID)

    def _bearer(self, text: str) -> Credentials:
        token = self.oauth.access_tokens.get(text)
        if token is None:
            return self._fixed_bearer(text)
        if token.account not in self.world.accounts or token.revoked:
            return Credentials(token.account, token.client, problem=INVALID)
        problem = None
        if token.expires <= self.clock.now():
            problem = EXPIRED_NEW if self.settings.expired_message == "new" else EXPIRED_OLD
        return Credentials(token.account, token.client, implied(token.scopes), token.scopes, problem=problem)

    def _fixed_bearer(self, text: str) -> Credentials:
        """Repository, project and workspace access tokens (ATCTT…). API tokens are no
        bearers: 401."""
        if text.startswith("ATCTT"):
            for name, account in self.world.accounts.items():
                for token in account.get("access_tokens", ()):
                    if token["token"] == text:
                        return Credentials(name, None, implied(token["scopes"]), tuple(token["scopes"]))
        return Credentials(problem=INVALID)

    def _basic(self, text: str) -> Credentials:
        """Basic atlassian-email:api-token. With a user name it would be an app password,
        removed on 2026-07-28: 401."""
        pair = decode_basic(text)
        if pair and "@" in pair[0]:
            for name, account in self.world.accounts.items():
                confirmed = [e["email"].casefold() for e in account.get("emails", ()) if e.get("is_confirmed")]
                if pair[0].casefold() in confirmed:
                    for token in account.get("api_tokens", ()):
                        if hmac.compare_digest(token["token"].encode("utf-8", "replace"), pair[1].encode("utf-8", "replace")):
                            return Credentials(name, None, frozenset(token["scopes"]), tuple(token["scopes"]), True)
        return Credentials(problem=INVALID)

    def answer(self, call: Call, who: Credentials) -> Answer:
        try:
            return self._answer(call, who)
        except Failure as failure:
            return failure.answer
        except BadQuery as error:
            return json_answer(objects.error(str(error)), 400)

    def _answer(self, call: Call, who: Credentials) -> Answer:
        route, words = _find(call.segments[1:])
        if route is None:
            raise Failure(404, "Resource not found", NO_API)
        if route.handler is _gone:
            return _gone(self, call, who, words)
        if call.method not in ("GET", "HEAD"):
            raise Failure(405, "Method not allowed", headers={"Allow": "GET, HEAD"})
        if who.problem or (who.account is None and not route.anonymous):
            raise Failure(401, who.problem or INVALID)
        headers = self._count(call, who)
        required = route.token_scopes if who.api_token else route.scopes
        if who.account and not who.api_token:
            headers["X-OAuth-Scopes"] = ", ".join(who.granted)
            headers["X-Accepted-OAuth-Scopes"] = ", ".join(required)
        if who.account and not who.scopes.issuperset(required):
            raise Failure(403, LACKS_SCOPE, {"required": list(required), "granted": list(who.granted)}, headers)
        value = route.handler(self, call, who, words)
        return json_answer(trim(value, call.parameter("fields")), 200, headers)

    def _count(self, call: Call, who: Credentials) -> dict[str, str]:
        if who.account:
            allowed, headers = self.limits.take("user " + who.account, self.settings.quota, self.clock.now())
        else:
            allowed, headers = self.limits.take("address " + call.peer, self.settings.anonymous_quota, self.clock.now())
        if not allowed:
            if self.settings.retry_after is not None:
                headers["Retry-After"] = self.settings.retry_after
            raise TooMany(headers, self.settings.rate_limit_format)
        return headers

    def space(self, word: str) -> Workspace:
        workspace = self.world.find_workspace(word)
        if workspace is None:
            raise Failure(404, "Resource not found", f"No workspace with identifier '{word[:200]}'.")
        return workspace

    def role(self, space: Workspace, who: Credentials) -> str | None:
        return self.world.workspace_role(space, who.account) if who.account else None

    def me(self, who: Credentials) -> dict[str, Any]:
        return self.world.accounts[who.account or ""]

    def page(self, call: Call, values: list[Any], names: Mapping[str, str], pagelen: int = 10) -> dict[str, Any]:
        return page_of(call, values, names, pagelen, self.settings.paging == "bare")


class TooMany(Failure):
    """429, as JSON or as plain text; both were seen."""

    def __init__(self, headers: Mapping[str, str], form: str) -> None:
        super().__init__(429, TOO_MANY, headers=headers)
        if form == "text":
            self.answer = Answer(429, TOO_MANY.encode(), TEXT, headers)


# -- the resources

def _user(api: Api, call: Call, who: Credentials, words: list[str]) -> Any:
    return objects.own_user(api.me(who), call.origin)


def _emails(api: Api, call: Call, who: Credentials, words: list[str]) -> Any:
    values = [objects.email(entry, call.origin) for entry in api.me(who).get("emails", ())]
    names = {name: name for name in ("email", "is_primary", "is_confirmed")}
    return api.page(call, values, names)


def _email(api: Api, call: Call, who: Credentials, words: list[str]) -> Any:
    for entry in api.me(who).get("emails", ()):
        if entry["email"].casefold() == words[0].casefold():
            return objects.email(entry, call.origin)
    raise Failure(404, "Resource not found", "No such email address.")


def _my_workspaces(api: Api, call: Call, who: Credentials, words: list[str]) -> Any:
    """Workspaces accessible to the caller, also those where only a repository is
    shared (seen with outside collaborators, 2026-05-21): no proof of membership."""
    wanted = call.parameter("administrator")
    if wanted not in (None, "true", "false"):
        raise BadQuery("administrator is true or false")
    found = [(space, api.role(space, who)) for space in api.world.workspaces]
    values = [objects.workspace_access(space, role == "owner", call.origin) for space, role in found
              if role and (wanted is None or (role == "owner") == (wanted == "true"))]
    names = {"slug": "workspace.slug", "workspace.slug": "workspace.slug"}
    return api.page(call, values, names, 25)


def _my_permission(api: Api, call: Call, who: Credentials, words: list[str]) -> Any:
    """CHANGE-3022, 2026-01-16: the caller's effective role; 403 without access.
    What single-repository collaborators get is not established, hence a setting."""
    space = api.space(words[0])
    role = api.role(space, who)
    if role == "collaborator" and api.settings.collaborator_answer != "collaborator":
        role = None if api.settings.collaborator_answer == "403" else "member"
    if role is None:
        raise Failure(403, "Forbidden", "You do not have access to this workspace.")
    return objects.membership(space, api.me(who), role, call.origin)


_REPOSITORY_NAMES = {f"repository.{name}": f"repository.{name}" for name in ("full_name", "name", "uuid")}
_REPOSITORY_NAMES["permission"] = "permission"


def _my_repositories(api: Api, call: Call, who: Credentials, words: list[str]) -> Any:
    """Repositories the caller was granted; public ones without a grant are absent."""
    space = api.space(words[0])
    if api.role(space, who) is None:
        raise Failure(403, "Forbidden", "You do not have access to this workspace.")
    values = [objects.repository_permission(space, repository, api.me(who), role, call.origin)
              for repository, role in api.world.repositories_of(space, who.account or "")]
    return api.page(call, values, _REPOSITORY_NAMES)


def _workspace(api: Api, call: Call, who: Credentials, words: list[str]) -> Any:
    """Says nothing about membership: open workspaces are there for everybody."""
    space = api.space(words[0])
    if space.is_private and api.role(space, who) is None:
        raise Failure(404, "Resource not found", f"No workspace with identifier '{words[0][:200]}'.")
    return objects.workspace(space, call.origin)


def _member(api: Api, call: Call, who: Credentials, words: list[str]) -> Any:
    """404 for an unknown workspace or member and for no membership; permission is not
    promised here, so it is not sent."""
    space = api.space(words[0])
    name = api.world.find_account(words[1])
    if name is None or not api.world.is_member(space, name) or api.role(space, who) is None:
        raise Failure(404, "Resource not found", "No such member.")
    return objects.membership(space, api.world.accounts[name], None, call.origin)


_MEMBER_NAMES = {"permission": "permission", "user.uuid": "user.uuid", "user.account_id": "user.account_id",
                 "user.nickname": "user.nickname", "user.display_name": "user.display_name"}


def _permissions(api: Api, call: Call, who: Credentials, words: list[str]) -> Any:
    """Members with their roles; a stranger sees an empty list. The documented roles
    here are owner, collaborator and member, so create-project shows as member."""
    space = api.space(words[0])
    values = []
    if api.role(space, who) is not None:
        for name in api.world.accounts:
            role = api.world.workspace_role(space, name)
            if role:
                shown = "member" if role == "create-project" else role
                values.append(objects.membership(space, api.world.accounts[name], shown, call.origin))
    return api.page(call, values, _MEMBER_NAMES)


_ROLE_NEEDS = {"member": "read", "contributor": "write", "admin": "admin", "owner": "admin"}


def _repositories(api: Api, call: Call, who: Credentials, words: list[str]) -> Any:
    """role filters by explicit permission: member read, contributor write, admin admin."""
    space = api.space(words[0])
    role = call.parameter("role")
    if role is not None and role not in _ROLE_NEEDS:
        raise BadQuery("role is one of admin, contributor, member, owner")
    values = []
    for repository in space.repositories.values():
        mine = api.world.repository_role(space, repository, who.account or "")
        if _at_least(mine, _ROLE_NEEDS[role]) if role else mine or not repository.is_private:
            values.append(objects.repository(space, repository, call.origin))
    return api.page(call, values, {name: name for name in ("full_name", "name", "slug", "uuid", "is_private")})


def _at_least(have: str | None, need: str) -> bool:
    return have is not None and REPOSITORY_ROLES.index(have) >= REPOSITORY_ROLES.index(need)


def _repository(api: Api, call: Call, who: Credentials, words: list[str]) -> Any:
    """200 for every public repository, 403 for a private one without access."""
    space = api.space(words[0])
    repository = api.world.find_repository(space, words[1])
    if repository is None:
        raise Failure(404, "Resource not found", "You may not have access to this repository or it no longer exists in this workspace.")
    if repository.is_private and not api.world.repository_role(space, repository, who.account or ""):
        raise Failure(403, "Forbidden", "You do not have access to this repository.")
    return objects.repository(space, repository, call.origin)


def _gone(api: Api, call: Call, who: Credentials, words: list[str]) -> Answer:
    """CHANGE-2770: announced 2025-08-28, done 2026-04-14."""
    return json_answer(objects.error(GONE, "This endpoint has been removed.", {
        "announcement_url": "https://developer.atlassian.com/cloud/bitbucket/changelog/#CHANGE-2770"}), 410)


_USER, _SPACE, _REPO = ("read:user:bitbucket",), ("read:workspace:bitbucket",), ("read:repository:bitbucket",)
ROUTES = (
    Route(("user",), _user, ("account",), _USER),
    Route(("user", "emails"), _emails, ("email",), _USER),
    Route(("user", "emails", "*"), _email, ("email",), _USER),
    Route(("user", "workspaces"), _my_workspaces, ("account",), _SPACE),
    Route(("user", "workspaces", "*", "permission"), _my_permission, ("account",), _SPACE),
    Route(("user", "workspaces", "*", "permissions", "repositories"), _my_repositories, ("account", "repository"), _REPO),
    Route(("workspaces", "*"), _workspace, (), _SPACE, anonymous=True),
    Route(("workspaces", "*", "members", "*"), _member, ("account",), _SPACE),
    Route(("workspaces", "*", "permissions"), _permissions, ("account",), _SPACE),
    Route(("repositories", "*"), _repositories, ("repository",), _REPO, anonymous=True),
    Route(("repositories", "*", "*"), _repository, ("repository",), _REPO, anonymous=True),
    Route(("workspaces",), _gone),
    Route(("repositories",), _gone),
    Route(("user", "permissions", "workspaces"), _gone),
    Route(("user", "permissions", "repositories"), _gone),
)


def _find(segments: tuple[str, ...]) -> tuple[Route | None, list[str]]:
    """The route of a path, and the words its stars stand for."""
    for route in ROUTES:
        if len(route.pattern) == len(segments) and all(
                p == s or (p == "*" and s) for p, s in zip(route.pattern, segments)):
            return route, [s for p, s in zip(route.pattern, segments) if p == "*"]
    return None, []


def forbidden() -> Answer:
    """The API host without /2.0 in the path (seen, text certain)."""
    return json_answer(objects.error("Forbidden"), 403)
