"""Accounts, workspaces, memberships, repositories: what is true in this Bitbucket.

Knows nothing of HTTP or JSON answers. Accounts are named by a word of ours
("mark") that never appears in an answer; their other fields are what
GET /2.0/user shows, except the ones in INTERNAL_FIELDS.
"""

from __future__ import annotations

import copy
import hashlib
import re
import uuid
from dataclasses import dataclass, field
from typing import Any, Iterator

from .settings import Refused

WORKSPACE_ROLES = ("collaborator", "member", "create-project", "owner")
REPOSITORY_ROLES = ("read", "write", "admin")
INTERNAL_FIELDS = ("about", "emails", "api_tokens", "access_tokens")
MAX_ACCOUNTS = 10_000

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,63}")
_UUID = re.compile(r"\{[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\}")


@dataclass
class Repository:
    slug: str
    uuid: str
    name: str
    is_private: bool
    description: str
    permissions: dict[str, str]             # account name -> read, write, admin


@dataclass
class Workspace:
    slug: str                               # as shown; compared without regard to case
    uuid: str
    name: str
    is_private: bool
    created_on: str
    members: dict[str, str]                 # account name -> role
    repositories: dict[str, Repository]     # by lower-case slug


@dataclass
class World:
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    workspaces: list[Workspace] = field(default_factory=list)

    # -- reading

    def account(self, name: Any) -> dict[str, Any]:
        """Errors: Refused."""
        if not isinstance(name, str) or name not in self.accounts:
            raise Refused(f"there is no account {_short(name)}", 404)
        return self.accounts[name]

    def find_workspace(self, word: str) -> Workspace | None:
        """By slug in any case or by {uuid}: the API takes both in its paths
        (OpenAPI description of {workspace}); objects may show capitals."""
        by_uuid = word.startswith("{")
        for workspace in self.workspaces:
            if (workspace.uuid if by_uuid else workspace.slug).casefold() == word.casefold():
                return workspace
        return None

    def find_account(self, word: str) -> str | None:
        """Name of the account with this {uuid} or account_id. User names do not
        find anybody since 2019."""
        for name, account in self.accounts.items():
            if word and word in (account.get("account_id"), account.get("uuid")):
                return name
        return None

    def find_repository(self, workspace: Workspace, word: str) -> Repository | None:
        if word.startswith("{"):
            return next((r for r in workspace.repositories.values() if r.uuid.casefold() == word.casefold()), None)
        return workspace.repositories.get(word.casefold())

    def workspace_role(self, workspace: Workspace, account: str) -> str | None:
        """The role set, else collaborator for a grant on a single repository."""
        role = workspace.members.get(account)
        if role is None and any(account in r.permissions for r in workspace.repositories.values()):
            return "collaborator"
        return role

    def is_member(self, workspace: Workspace, account: str) -> bool:
        return workspace.members.get(account, "collaborator") != "collaborator"

    def repository_role(self, workspace: Workspace, repository: Repository, account: str) -> str | None:
        """The grant; owners of the workspace administer all its repositories."""
        if workspace.members.get(account) == "owner":
            return "admin"
        return repository.permissions.get(account)

    def repositories_of(self, workspace: Workspace, account: str) -> Iterator[tuple[Repository, str]]:
        for repository in workspace.repositories.values():
            role = self.repository_role(workspace, repository, account)
            if role:
                yield repository, role

    # -- changing; every method raises Refused and then has changed nothing

    def patch_account(self, name: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Set fields of an account, null removes one. With "create": true an
        unknown account is made, with an identity derived from its name."""
        changes = dict(changes)
        if changes.pop("create", False) is True and name not in self.accounts:
            if len(self.accounts) >= MAX_ACCOUNTS:
                raise Refused("there are too many accounts")
            if not _NAME.fullmatch(name):
                raise Refused("an account name is letters, digits, dot, dash and underscore")
            account = _new_account(name)
        else:
            account = copy.deepcopy(self.account(name))
        for key, value in changes.items():
            if value is None:
                account.pop(key, None)
            else:
                account[key] = value
        _check_account(name, account)
        self.accounts[name] = account
        return account

    def set_membership(self, workspace: str, account: str, role: str | None) -> None:
        if role is not None and role not in WORKSPACE_ROLES:
            raise Refused(f"permission is one of {', '.join(WORKSPACE_ROLES)} or null")
        self.account(account)
        _set(self._workspace(workspace).members, account, role)

    def set_repository_permission(self, full_name: str, account: str, role: str | None) -> None:
        if role is not None and role not in REPOSITORY_ROLES:
            raise Refused(f"permission is one of {', '.join(REPOSITORY_ROLES)} or null")
        self.account(account)
        slug, _, name = full_name.partition("/") if isinstance(full_name, str) else ("", "", "")
        repository = self.find_repository(self._workspace(slug), name)
        if repository is None:
            raise Refused(f"there is no repository {_short(full_name)}", 404)
        _set(repository.permissions, account, role)

    def rename_workspace(self, word: str, slug: Any = None, new_uuid: Any = None) -> Workspace:
        """Slugs can change at Bitbucket, UUIDs cannot: another uuid is another
        workspace that took the old slug."""
        workspace = self._workspace(word)
        if slug is not None and (not isinstance(slug, str) or not _NAME.fullmatch(slug)):
            raise Refused("slug is letters, digits, dot, dash and underscore")
        if new_uuid is not None and (not isinstance(new_uuid, str) or not _UUID.fullmatch(new_uuid)):
            raise Refused("uuid is a UUID in curly braces")
        for other in (slug, new_uuid):
            if other and self.find_workspace(other) not in (None, workspace):
                raise Refused(f"{other} is taken", 409)
        workspace.slug = slug or workspace.slug
        workspace.uuid = new_uuid or workspace.uuid
        return workspace

    def _workspace(self, word: Any) -> Workspace:
        workspace = self.find_workspace(word) if isinstance(word, str) else None
        if workspace is None:
            raise Refused(f"there is no workspace {_short(word)}", 404)
        return workspace

    def as_json(self) -> dict[str, Any]:
        """In the form of a seed file."""
        return {"accounts": self.accounts,
                "workspaces": [{**vars(w), "repositories": [vars(r) for r in w.repositories.values()]}
                               for w in self.workspaces]}


def make_world(seed: dict[str, Any]) -> World:
    """The world a seed file tells of. Errors: Refused."""
    world = World()
    for name, account in _dict(seed, "accounts").items():
        if not _NAME.fullmatch(name) or len(world.accounts) >= MAX_ACCOUNTS:
            raise Refused(f"account name {_short(name)} cannot be used")
        _check_account(name, account)
        world.accounts[name] = copy.deepcopy(account)
    for entry in _list(seed, "workspaces"):
        world.workspaces.append(_make_workspace(world, entry))
    return world


def _make_workspace(world: World, entry: Any) -> Workspace:
    slug, key = _text(entry, "slug"), _uuid(entry, "uuid")
    if not _NAME.fullmatch(slug) or world.find_workspace(slug) or world.find_workspace(key):
        raise Refused(f"workspace slug or uuid {_short(slug)} cannot be used")
    workspace = Workspace(slug, key, entry.get("name", slug), entry.get("is_private") is True,
                          entry.get("created_on", "2018-01-01T00:00:00.000000+00:00"), {}, {})
    world.workspaces.append(workspace)
    try:
        for account, role in _dict(entry, "members").items():
            world.set_membership(key, account, role)
        for item in _list(entry, "repositories"):
            name = _text(item, "slug")
            workspace.repositories[name.casefold()] = Repository(
                name, _uuid(item, "uuid"), item.get("name", name), item.get("is_private") is not False,
                item.get("description", ""), {})
            for account, role in _dict(item, "permissions").items():
                world.set_repository_permission(f"{key}/{name}", account, role)
    finally:
        world.workspaces.pop()
    return workspace


def _new_account(name: str) -> dict[str, Any]:
    return {"about": "Made by a test", "type": "user",
            "uuid": "{%s}" % uuid.uuid5(uuid.NAMESPACE_URL, "simulated account " + name),
            "account_id": hashlib.sha256(name.encode()).hexdigest()[:24],
            "username": name, "nickname": name, "display_name": name,
            "account_status": "active", "created_on": "2026-01-01T00:00:00.000000+00:00",
            "emails": [{"email": f"{name}@accounts.example", "is_primary": True, "is_confirmed": True}]}


def _check_account(name: str, account: Any) -> None:
    """What the simulator itself reads must have its type; the rest is the test's
    business, so that answers with strange types can be made."""
    if not isinstance(account, dict):
        raise Refused(f"account {name} is an object")
    if not isinstance(account.get("about", ""), str):
        raise Refused("about is a text")
    emails = account.get("emails", [])
    if not isinstance(emails, list) or not all(isinstance(e, dict) and isinstance(e.get("email"), str) for e in emails):
        raise Refused("emails is a list of objects with email, is_primary, is_confirmed")
    for key in ("api_tokens", "access_tokens"):
        tokens = account.get(key, [])
        if not isinstance(tokens, list) or not all(
                isinstance(t, dict) and isinstance(t.get("token"), str) and t["token"]
                and isinstance(t.get("scopes"), list) and all(isinstance(s, str) for s in t["scopes"])
                for t in tokens):
            raise Refused(f"{key} is a list of objects with token and scopes")


def _set(table: dict[str, str], key: str, value: str | None) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value


def _short(value: Any) -> str:
    return repr(value)[:80]


def _dict(entry: Any, key: str) -> dict[str, Any]:
    value = entry.get(key, {}) if isinstance(entry, dict) else None
    if not isinstance(value, dict):
        raise Refused(f"{key} is an object")
    return value


def _list(entry: Any, key: str) -> list[Any]:
    value = entry.get(key, []) if isinstance(entry, dict) else None
    if not isinstance(value, list):
        raise Refused(f"{key} is a list")
    return value


def _text(entry: Any, key: str) -> str:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, str) or not value:
        raise Refused(f"{key} is a text")
    return value


def _uuid(entry: Any, key: str) -> str:
    value = _text(entry, key)
    if not _UUID.fullmatch(value):
        raise Refused(f"{key} is a UUID in curly braces")
    return value
