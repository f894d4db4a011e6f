#!/usr/bin/python3
"""Make api_description.json from Atlassian's OpenAPI description of Bitbucket Cloud.

    tests/simulator/extract_api_description.py swagger.v3.json > tests/simulator/api_description.json

The description is published at https://developer.atlassian.com/cloud/bitbucket/swagger.v3.json.
Kept are the paths the simulator serves, their parameters, scopes, status codes and
schemas, and every schema those refer to. All prose is dropped. The output depends
on the input only.
"""

from __future__ import annotations

import json
import sys
from typing import Any

PATHS = (
    "/user", "/user/emails", "/user/emails/{email}", "/user/workspaces", "/user/workspaces/{workspace}/permission",
    "/user/workspaces/{workspace}/permissions/repositories", "/workspaces/{workspace}",
    "/workspaces/{workspace}/members/{member}", "/workspaces/{workspace}/permissions",
    "/repositories/{workspace}", "/repositories/{workspace}/{repo_slug}",
    "/workspaces", "/repositories", "/user/permissions/workspaces", "/user/permissions/repositories",
)
PROSE = ("description", "summary", "title", "example", "examples", "externalDocs")
REF = "#/components/schemas/"


def without_prose(value: Any, names: bool = False) -> Any:
    """value without prose; names: its keys are names of properties, not keywords."""
    if isinstance(value, list):
        return [without_prose(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: without_prose(item, key == "properties" and not names)
            for key, item in value.items() if names or key not in PROSE}


def operation(path: dict[str, Any]) -> dict[str, Any]:
    get = path["get"]
    scopes = [name for entry in get.get("security", []) for name in entry.get("oauth2", [])]
    token_scopes = [s for entry in get.get("x-atlassian-oauth2-scopes", []) for s in entry["scopes"]]
    return {
        "parameters": [{"name": p["name"], "in": p["in"], "required": p.get("required", False)}
                       for p in path.get("parameters", []) + get.get("parameters", [])],
        "deprecated": get.get("deprecated", False),
        "scopes": scopes, "token_scopes": token_scopes,
        "responses": {status: without_prose(answer.get("content", {}).get("application/json", {}).get("schema"))
                      for status, answer in get["responses"].items()},
    }


def references(value: Any) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(references, value)) if value else set()
    if not isinstance(value, dict):
        return set()
    found = {value["$ref"].removeprefix(REF)} if isinstance(value.get("$ref"), str) else set()
    return found.union(*(references(item) for item in value.values())) if value else found


def extract(description: dict[str, Any]) -> dict[str, Any]:
    paths = {path: {"get": operation(description["paths"][path])} for path in PATHS}
    schemas: dict[str, Any] = {}
    todo = references(paths) | {"user", "app_user"}
    while todo:
        name = todo.pop()
        if name not in schemas:
            schemas[name] = without_prose(description["components"]["schemas"][name])
            todo |= references(schemas[name])
    return {"paths": paths, "components": {"schemas": schemas}}


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    with open(sys.argv[1], encoding="utf-8") as file:
        result = extract(json.load(file))
    json.dump(result, sys.stdout, indent=1, sort_keys=True)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
