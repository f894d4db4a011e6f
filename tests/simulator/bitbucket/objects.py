"""The JSON objects Bitbucket makes of accounts, workspaces and repositories.

Sources: the OpenAPI description of 2026 for the types and links; live answers
(August 2026) for what it leaves out, such as username on one's own user.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from .world import INTERNAL_FIELDS, Repository, Workspace

Object = dict[str, Any]


def own_user(account: Object, origin: str) -> Object:
    """GET /2.0/user. Carries username, seen in August 2026; never an e-mail."""
    shown = {key: value for key, value in account.items() if key not in INTERNAL_FIELDS}
    shown.setdefault("links", _user_links(account, origin))
    return shown


def other_user(account: Object, origin: str) -> Object:
    """A user inside other objects: username was dropped for GDPR in 2019."""
    names = ("type", "uuid", "account_id", "nickname", "display_name", "kind")
    shown = {key: account[key] for key in names if key in account}
    shown["links"] = account.get("links") or _user_links(account, origin)
    return shown


def _user_links(account: Object, origin: str) -> Object:
    """Some links of real users point to bitbucket.org/!api, not to the API host."""
    key = _quote(account.get("uuid", ""))
    return {"self": _href(f"{origin}/2.0/users/{key}"),
            "avatar": _href(f"{origin}/account/{key}/avatar/"),
            "html": _href(f"{origin}/{key}/"),
            "repositories": _href(f"{origin}/2.0/repositories/{key}"),
            "snippets": _href(f"{origin}/!api/2.0/snippets/{key}"),
            "hooks": _href(f"{origin}/!api/2.0/workspaces/{key}/hooks")}


def email(entry: Object, origin: str) -> Object:
    """An entry of GET /2.0/user/emails; the OpenAPI file has no schema for it."""
    return {"type": "email", **entry,
            "links": {"self": _href(f"{origin}/2.0/user/emails/{_quote(entry['email'])}")}}


def workspace(item: Workspace, origin: str) -> Object:
    base = f"{origin}/2.0/workspaces/{item.slug}"
    return {"type": "workspace", "uuid": item.uuid, "name": item.name, "slug": item.slug,
            "is_private": item.is_private, "is_privacy_enforced": False, "created_on": item.created_on,
            "links": {"self": _href(base), "html": _href(f"{origin}/{item.slug}/"),
                      "avatar": _href(f"{origin}/workspaces/{item.slug}/avatar/"),
                      "members": _href(f"{base}/members"), "projects": _href(f"{base}/projects"),
                      "repositories": _href(f"{origin}/2.0/repositories/{item.slug}")}}


def workspace_access(item: Workspace, administrator: bool, origin: str) -> Object:
    """An entry of GET /2.0/user/workspaces (CHANGE-3022, 2026-01-16): no role, no name."""
    return {"type": "workspace_access", "administrator": administrator,
            "workspace": {"type": "workspace_base", "uuid": item.uuid, "slug": item.slug,
                          "links": {"avatar": _href(f"{origin}/workspaces/{item.slug}/avatar/"),
                                    "self": _href(f"{origin}/2.0/workspaces/{item.slug}")}}}


def membership(item: Workspace, account: Object, permission: str | None, origin: str) -> Object:
    """permission is missing in the OpenAPI schema but in its own example."""
    shown: Object = {"type": "workspace_membership"}
    if permission:
        shown["permission"] = permission
    member = _quote(account.get("uuid", ""))
    shown.update({"user": other_user(account, origin), "workspace": workspace(item, origin),
                  "links": {"self": _href(f"{origin}/2.0/workspaces/{item.slug}/members/{member}")}})
    return shown


def repository(space: Workspace, item: Repository, origin: str) -> Object:
    """full_name is the string of Bitbucket's URLs, so it has the slug as shown."""
    path = f"{space.slug}/{item.slug}"
    base = f"{origin}/2.0/repositories/{path}"
    return {"type": "repository", "uuid": item.uuid, "full_name": path, "name": item.name,
            "slug": item.slug, "description": item.description, "is_private": item.is_private,
            "scm": "git", "fork_policy": "allow_forks", "has_issues": False, "has_wiki": False,
            "workspace": {"type": "workspace", "uuid": space.uuid, "name": space.name, "slug": space.slug},
            "links": {"self": _href(base), "html": _href(f"{origin}/{path}"),
                      "commits": _href(f"{base}/commits"), "hooks": _href(f"{base}/hooks")}}


def repository_permission(space: Workspace, item: Repository, account: Object, role: str, origin: str) -> Object:
    return {"type": "repository_permission", "permission": role,
            "user": other_user(account, origin),
            "repository": {"type": "repository", "uuid": item.uuid, "full_name": f"{space.slug}/{item.slug}",
                           "name": item.name,
                           "links": {"self": _href(f"{origin}/2.0/repositories/{space.slug}/{item.slug}"),
                                     "html": _href(f"{origin}/{space.slug}/{item.slug}")}}}


def error(message: str, detail: Any = None, data: Object | None = None) -> Object:
    """Every error of the API (rest/intro, "Standardized error responses"). detail is a
    text or, where scopes lack, an object, whatever the OpenAPI schema says."""
    inner: Object = {"message": message}
    if detail is not None:
        inner["detail"] = detail
    if data is not None:
        inner["data"] = data
    return {"type": "error", "error": inner}


def _quote(value: Any) -> str:
    """For a path; tests may give accounts values that are no text or have no UTF-8."""
    return quote(str(value), safe="@", errors="replace")


def _href(url: str) -> Object:
    return {"href": url}
