#!/usr/bin/python3
"""Print the simulator's accounts as a table for the front page. Argument: its world file."""

import html
import json
import pathlib
import sys

WORKSPACE = "acme"


def row(name, account, roles):
    cells = (account.get("about", ""), roles.get(name, "none"))
    shown = html.escape(account.get("display_name", name))
    return f"<tr><th>{shown}</th>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"


def main():
    world = json.loads(pathlib.Path(sys.argv[1]).read_text())
    roles = next(w["members"] for w in world["workspaces"] if w["slug"] == WORKSPACE)
    rows = "\n".join(row(name, account, roles) for name, account in world["accounts"].items())
    print(f"<table><thead><tr><th>Name</th><th>What for</th><th>Role in {WORKSPACE}</th></tr></thead>\n<tbody>\n{rows}\n</tbody></table>")


main()
