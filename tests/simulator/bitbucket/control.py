"""The JSON interface tests steer the simulator with, under /_control/.

A page of another site must not steer it through somebody's browser: requests
with a foreign Origin are refused.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from .browser import COOKIE
from .exchange import Answer, Call, json_answer
from .faults import route_matches
from .oauth import MAX_CONSUMERS, make_consumer
from .settings import Refused, change_settings, number

if TYPE_CHECKING:
    from .server import Simulator

Body = dict[str, Any]


def answer(simulator: "Simulator", call: Call) -> Answer:
    """All answers are JSON; what cannot be done says why in "error"."""
    try:
        origin = call.headers.get("Origin")
        if origin is not None and origin != call.origin:
            raise Refused("requests from pages of other sites are refused", 403)
        return json_answer(_route(simulator, call))
    except Refused as refused:
        return json_answer({"error": str(refused)}, refused.status)


def _route(simulator: "Simulator", call: Call) -> Any:
    words = call.segments[1:]
    found = False
    for (method, *pattern), handler in _ROUTES.items():
        if len(pattern) == len(words) and all(p == w or (p == "*" and w) for p, w in zip(pattern, words)):
            found = True
            if call.method == method:
                return handler(simulator, call, *[w for p, w in zip(pattern, words) if p == "*"])
    raise Refused("this path knows other methods", 405) if found else Refused("there is no such control; see GET /_control/", 404)


def _body(call: Call, *required: str) -> Body:
    try:
        value = json.loads(call.body or b"{}")
    except (ValueError, RecursionError) as problem:
        raise Refused("the body is not JSON") from problem
    if not isinstance(value, dict):
        raise Refused("the body is an object")
    for key in required:
        if key not in value:
            raise Refused(f"{key} is missing")
    return value


def _overview(simulator: "Simulator", call: Call) -> Any:
    return {"controls": [f"{method} /_control/{'/'.join(pattern)}" for method, *pattern in _ROUTES]}


def _add_fault(simulator: "Simulator", call: Call) -> Any:
    return {"id": simulator.faults.add(_body(call)).id}


def _list_faults(simulator: "Simulator", call: Call) -> Any:
    return {"faults": [fault.as_json() for fault in simulator.faults.faults]}


def _clear_faults(simulator: "Simulator", call: Call) -> Any:
    count = len(simulator.faults.faults)
    simulator.faults.faults.clear()
    return {"cleared": count}


def _remove_fault(simulator: "Simulator", call: Call, word: str) -> Any:
    if not word.isascii() or not word.isdigit() or len(word) > 9 or not simulator.faults.remove(int(word)):
        raise Refused("there is no such fault", 404)
    return {"cleared": 1}


def _list_calls(simulator: "Simulator", call: Call) -> Any:
    route, account = call.parameter("route"), call.parameter("account")
    entries = [entry for entry in simulator.calls.entries
               if (route is None or route_matches(route, entry.path)) and (account is None or entry.account == account)]
    return {"calls": [entry.as_json() for entry in entries], "dropped": simulator.calls.dropped,
            "under_way": simulator.calls.under_way}


def _clear_calls(simulator: "Simulator", call: Call) -> Any:
    count = len(simulator.calls.entries)
    simulator.calls.clear()
    return {"cleared": count}


def _world(simulator: "Simulator", call: Call) -> Any:
    consumers = [{k: v for k, v in vars(c).items() if k != "secret"} for c in simulator.oauth.consumers.values()]
    return {**simulator.world.as_json(), "consumers": consumers}


def _patch_account(simulator: "Simulator", call: Call, name: str) -> Any:
    return {name: simulator.world.patch_account(name, _body(call))}


def _membership(simulator: "Simulator", call: Call) -> Any:
    body = _body(call, "workspace", "account", "permission")
    simulator.world.set_membership(body["workspace"], body["account"], body["permission"])
    return body


def _repository_permission(simulator: "Simulator", call: Call) -> Any:
    body = _body(call, "repository", "account", "permission")
    simulator.world.set_repository_permission(body["repository"], body["account"], body["permission"])
    return body


def _rename_workspace(simulator: "Simulator", call: Call, word: str) -> Any:
    body = _body(call)
    workspace = simulator.world.rename_workspace(word, body.get("slug"), body.get("uuid"))
    return {"slug": workspace.slug, "uuid": workspace.uuid}


def _end_tokens(simulator: "Simulator", call: Call) -> Any:
    body = _body(call, "expire")
    if body["expire"] not in ("access", "refresh", "all"):
        raise Refused("expire is access, refresh or all")
    if body.get("account") is not None:
        simulator.world.account(body["account"])
    return {"ended": simulator.oauth.end_tokens(body["expire"], body.get("account"), body.get("revoke") is True)}


def _secrets(simulator: "Simulator", call: Call) -> Any:
    accounts = simulator.world.accounts.values()
    tokens = {key: [t["token"] for a in accounts for t in a.get(key, ())] for key in ("api_tokens", "access_tokens")}
    found = simulator.oauth.issued_secrets()
    found["api_tokens"] = tokens["api_tokens"]
    found["access_tokens"] += tokens["access_tokens"]
    return found


def _show_settings(simulator: "Simulator", call: Call) -> Any:
    return dataclasses.asdict(simulator.settings)


def _change_settings(simulator: "Simulator", call: Call) -> Any:
    simulator.use_settings(change_settings(simulator.settings, _body(call)))
    return dataclasses.asdict(simulator.settings)


def _show_clock(simulator: "Simulator", call: Call) -> Any:
    return {"now": simulator.clock.now(), "offset": simulator.clock.offset}


def _advance_clock(simulator: "Simulator", call: Call) -> Any:
    simulator.clock.offset += number(_body(call, "advance")["advance"], "advance", -(10**9), 10**9)
    return _show_clock(simulator, call)


def _reset(simulator: "Simulator", call: Call) -> Any:
    simulator.reset()
    return {"reset": True}


def _sign_in(simulator: "Simulator", call: Call) -> Any:
    """A browser cookie without the pages."""
    name = _body(call, "account")["account"]
    simulator.world.account(name)
    return {"cookie": {"name": COOKIE, "value": simulator.browsers.start(name)}}


def _add_consent(simulator: "Simulator", call: Call) -> Any:
    """As if the account had granted the consumer its scopes before."""
    body = _body(call, "account", "client_id")
    simulator.world.account(body["account"])
    consumer = simulator.oauth.consumers.get(body["client_id"]) if isinstance(body["client_id"], str) else None
    if consumer is None:
        raise Refused("there is no such consumer", 404)
    simulator.oauth.consents[body["account"], consumer.key] = frozenset(consumer.scopes)
    return {"scopes": list(consumer.scopes)}


def _clear_consents(simulator: "Simulator", call: Call) -> Any:
    count = len(simulator.oauth.consents)
    simulator.oauth.consents.clear()
    return {"cleared": count}


def _put_consumer(simulator: "Simulator", call: Call) -> Any:
    consumer = make_consumer(_body(call))
    if consumer.key not in simulator.oauth.consumers and len(simulator.oauth.consumers) >= MAX_CONSUMERS:
        raise Refused("there are too many consumers")
    simulator.oauth.consumers[consumer.key] = consumer
    return {"key": consumer.key, "callback_urls": list(consumer.callback_urls), "scopes": list(consumer.scopes),
            "private": consumer.private}


_ROUTES = {
    ("GET", ""): _overview,
    ("POST", "faults"): _add_fault,
    ("GET", "faults"): _list_faults,
    ("DELETE", "faults"): _clear_faults,
    ("DELETE", "faults", "*"): _remove_fault,
    ("GET", "calls"): _list_calls,
    ("DELETE", "calls"): _clear_calls,
    ("GET", "world"): _world,
    ("POST", "accounts", "*"): _patch_account,
    ("POST", "memberships"): _membership,
    ("POST", "repository-permissions"): _repository_permission,
    ("POST", "workspaces", "*"): _rename_workspace,
    ("POST", "tokens"): _end_tokens,
    ("GET", "secrets"): _secrets,
    ("GET", "settings"): _show_settings,
    ("POST", "settings"): _change_settings,
    ("GET", "clock"): _show_clock,
    ("POST", "clock"): _advance_clock,
    ("POST", "reset"): _reset,
    ("POST", "sign-in"): _sign_in,
    ("POST", "consents"): _add_consent,
    ("DELETE", "consents"): _clear_consents,
    ("POST", "consumers"): _put_consumer,
}
