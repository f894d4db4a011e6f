"""The C interface: an example module built against the installed header alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness import config
from harness.config import VirtualHost, place
from harness.simulator import account, uuid_of

pytestmark = pytest.mark.one_mpm
EXAMPLE = Path(__file__).resolve().parents[1] / "example" / "mod_example_who.c"
WHO = "SetHandler example-who"


@pytest.fixture(scope="module")
def module(scratch) -> Path:
    """Installed into a directory of its own, with nothing else of the project in reach."""
    root, work = scratch / "installed", scratch / "who"
    work.mkdir()
    shutil.copy(EXAMPLE, work)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    subprocess.run(["make", "-C", os.environ["ABB_BUILD_DIR"], "install", f"DESTDIR={root}"], check=True,
                   capture_output=True, env=environment, timeout=120)
    header = root / config.apxs("INCLUDEDIR").lstrip("/") / "mod_auth_bitbucket.h"
    assert [path.name for path in header.parent.iterdir()] == [header.name]
    subprocess.run(["apxs", "-Wc,-Wall", "-Wc,-Wextra", "-Wc,-Wno-unused-parameter", "-Wc,-Wno-missing-field-initializers",
                    "-Wc,-Werror", f"-I{header.parent}", "-c", "mod_example_who.c"], cwd=work, check=True,
                   capture_output=True, timeout=120)
    return work / ".libs" / "mod_example_who.so"


def lines_of(answer) -> dict[str, str]:
    assert answer.status == 200
    return dict(line.split("=", 1) for line in answer.text.splitlines())


def test_it_says_who_it_is(start_server, browser, module, clock):
    host = VirtualHost("\n".join([
        place("who", WHO, "AuthBitbucketPass none", "Require bitbucket-workspace acme"),
        place("team", "Require bitbucket-workspace globex"),
        place("strangers", WHO, "AuthBitbucketUnauthenticated pass", "Require all granted"),
        place("ruled-strangers", WHO, "AuthBitbucketUnauthenticated pass", "Require expr true"),
        place("open", WHO, auth=False), "ErrorDocument 403 /open/x"]))
    start_server(host, clock=clock, main=f"LoadModule example_who_module {module}\nAuthBitbucketSessionTimeout 1h 8h\n")
    for path in ("/strangers/x", "/ruled-strangers/x", "/open/x"):
        assert browser.get(host.url(path)).text == "nobody\n"
    browser.sign_in(host.url("/who/page.html"), "zoe")
    refused = browser.get(host.url("/team/page.html"))
    assert refused.status == 403 and refused.text == "nobody\n"
    clock.advance(120)
    seen = lines_of(browser.get(host.url("/who/page.html")))
    zoe = account("zoe")
    assert {**seen, "avatar_url": "", "profile_url": "", "row": ""} == {
        **seen, "uuid": uuid_of("zoe"), "account_id": zoe["account_id"], "username": zoe["username"],
        "nickname": zoe["nickname"], "display_name": zoe["display_name"], "first_name": "Zoë",
        "email": "zoe@acme.example", "email_confirmed": "yes", "avatar_url": "", "profile_url": "", "row": ""}
    assert seen["avatar_url"].endswith("/avatar/") and uuid_of("zoe") in seen["profile_url"]
    assert seen["last_name"] == zoe["display_name"].split(" ", 1)[1]
    rows = [line for line in browser.get(host.url("/who/page.html")).text.splitlines() if line.startswith("row=")]
    assert re.fullmatch(r"row=acme [0-9a-f-]{36} member", rows[0]) and "row=globex - none" in rows
    for name, age in {"row_age": 120, "signed_in": 120, "age": 120, "expires": -3600, "ends": 120 - 8 * 3600}.items():
        assert abs(int(seen[name]) - age) <= 61, (name, seen[name])
    assert "uuid=" + uuid_of("zoe") in browser.get(host.url("/strangers/x")).text
    assert browser.get(host.url("/open/x")).text == "nobody\n"


def test_an_address_that_is_not_confirmed_is_none(start_server, browser, module):
    host = VirtualHost(place("who", WHO, "Require valid-user"))
    start_server(host, main=f"LoadModule example_who_module {module}\n")
    seen = lines_of(browser.sign_in(host.url("/who/x"), "una"))
    assert "email" not in seen and seen["email_confirmed"] == "no"


def test_without_this_module(start_server, browser, module):
    host = VirtualHost(place("who", WHO, auth=False), configured=False)
    server = start_server.prepare(host)
    text = server.config_file.read_text()
    text = re.sub(r"(?m)^(LoadModule auth_bitbucket_module|AuthBitbucket|LogLevel).*$", "", text)
    server.config_file.write_text(text + f"LoadModule example_who_module {module}\n"
                                  "<Location /who>\nSetHandler example-who\n</Location>\n")
    server.start()
    assert browser.get(host.url("/who/x")).text == "no mod_auth_bitbucket\n"
