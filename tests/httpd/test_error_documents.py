"""ErrorDocument in all its forms, for all the statuses that the module answers with."""

from __future__ import annotations

import pytest

from harness import tags
from harness.client import NAVIGATION, SCRIPT
from harness.config import VirtualHost, place
from harness.fixtures import lasting, wanted_mpms
from harness.server import Server

STATUSES = (400, 401, 403, 500, 503)
ERRORS = ('error=%{reqenv:BITBUCKET_ERROR} id=%{reqenv:BITBUCKET_ERROR_ID} status=%{REQUEST_STATUS}')


def documents(target: str, quoted: bool = False) -> str:
    return "\n".join(f'ErrorDocument {status} "{target}"' if quoted else f"ErrorDocument {status} {target}" for status in STATUSES)


FORMS = {
    "a program": documents("/errors/error.cgi"),
    "a page with SSI": documents("/errors/error.shtml"),
    "a page": documents("/errors/error.html"),
    "a program with a query": documents("/errors/error.cgi?reason=%{reqenv:BITBUCKET_ERROR}"),
    "a directory": documents("/errors/"),
    "a rewritten address": documents("/errors/rewritten"),
    "a text": documents("sorry", quoted=True),
    "a text with an expression": documents(ERRORS, quoted=True),
    "an address elsewhere": documents("https://help.example/%{reqenv:BITBUCKET_ERROR}/%{reqenv:BITBUCKET_ERROR_ID}"),
    "default": documents("/errors/error.cgi") + '\n<Location "/">\n' + documents("default") + "\n</Location>",
    "of the place": '<Location "/">\n' + documents("/errors/error.cgi") + "\n</Location>",
    "behind a rule of its own": documents("/closed/error.html"),
    "that is not there": documents("/errors/absent.html"),
}
# Forms from which the reference can be read.
TELLING = {"a program", "a page with SSI", "a directory", "a rewritten address", "a text with an expression", "of the place",
           "a program with a query"}
# Endpoints are answered before httpd looks into sections: for them the documents outside hold.
AT_ENDPOINTS = {"default": "a program", "of the place": "default"}

SITE = "\n".join([
    'Alias "/errors" "${CONTENT}/errors"', '<Location "/errors">', "Require all granted", "</Location>",
    place("any", "Require valid-user"), place("team", "Require bitbucket-workspace acme"),
    place("strangers-403", "AuthBitbucketUnauthenticated 403", "Require valid-user"),
    place("late", "Require bitbucket-workspace %{env:LATE}", "SetEnvIf Request_URI . LATE=globex"),
    'Alias "/closed" "${CONTENT}/errors"', '<Location "/closed">', "AuthType Bitbucket",
    "Require bitbucket-workspace acme:owner", "</Location>",
])


@pytest.fixture(scope="module")
def hosts(shared_simulator):
    hosts = {form: VirtualHost(lines + "\n" + SITE) for form, lines in FORMS.items()}
    server = Server(list(hosts.values()), shared_simulator, wanted_mpms()[0])
    errors = server.content / "errors"
    errors.mkdir()
    for name, text in (("error.cgi", (server.content / "error.cgi").read_text() + "\ncat > /dev/null\n"),
                       ("error.html", "<p>A page about errors</p>"),
                       ("error.shtml", 'error=<!--#echo var="BITBUCKET_ERROR" --> id=<!--#echo var="BITBUCKET_ERROR_ID" --> '
                                       'status=<!--#echo var="REDIRECT_STATUS" -->'),
                       (".htaccess", "DirectoryIndex error.cgi\nRewriteEngine On\nRewriteRule ^rewritten$ /errors/error.cgi [L]\n")):
        (errors / name).write_text(text)
        (errors / name).chmod(0o755)
    with lasting(server):
        yield hosts


# -- ways to each status

def unauthenticated(host, browser, simulator, logs):
    return browser.get(host.url("/any/page.html"), SCRIPT), "unauthenticated", None


def stranger_403(host, browser, simulator, logs):
    return browser.get(host.url("/strangers-403/page.html")), "unauthenticated", "ABB0110"


def refused(host, browser, simulator, logs):
    callback = browser.walk_to_callback(host.url("/team/page.html"), "oscar")
    browser.get(callback)
    return browser.get(host.url("/team/page.html")), "forbidden", tags.REFUSED


def undecided(host, browser, simulator, logs):
    """A rule that Bitbucket is asked about now, in vain."""
    browser.get(browser.walk_to_callback(host.url("/any/page.html"), "mark"))
    logs.expect(tags.ANSWERED)
    simulator.fault("permission", status=500)
    return browser.get(host.url("/late/page.html")), "upstream", tags.ANSWERED


def cancelled(host, browser, simulator, logs):
    return browser.get(browser.walk_to_callback(host.url("/any/page.html"), "mark", consents=False)), "cancelled", tags.ANSWERED


def incomplete(host, browser, simulator, logs):
    return browser.get(host.endpoint("callback")), "input", tags.ANSWERED


def unavailable(host, browser, simulator, logs):
    logs.expect(tags.ANSWERED)
    callback = browser.walk_to_callback(host.url("/any/page.html"), "mark")
    simulator.fault("token", status=503)
    return browser.get(callback), "upstream", tags.ANSWERED


def wrong_client(host, browser, simulator, logs):
    state = browser.get(host.url("/any/page.html")).location_query["state"]
    return browser.get(host.endpoint("callback") + f"?error=unauthorized_client&state={state}"), "client", tags.ANSWERED


WAYS = {unauthenticated: 401, stranger_403: 403, refused: 403, undecided: 503, cancelled: 403, incomplete: 400, unavailable: 503,
        wrong_client: 500}


def reference_in_log(logs, tag: str | None) -> str | None:
    """None where the log need say nothing. The document itself may be refused after that."""
    found = [line.text.rpartition("reference=")[2] for line in logs.lines(tag) if tag and "reference=" in line.text]
    assert bool(found) == bool(tag), found
    return found[0] if found else None


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_for_every_answer(hosts, log_watch, browser, simulator, logs, form, way):
    answer, word, tag = way(hosts[form], browser, simulator, logs)
    status, reference = WAYS[way], reference_in_log(logs, tag)
    is_endpoint = answer.url.startswith(hosts[form].endpoint(""))
    form = AT_ENDPOINTS.get(form, form) if is_endpoint else form
    assert "test page" not in answer.text.lower() and "plain data" not in answer.text, "what is protected never follows"
    if form == "an address elsewhere" and status != 401:
        assert (answer.status, answer.location) == (302, f"https://help.example/{word}/{reference}")
        return
    assert answer.status == status and answer.location is None
    if form in TELLING:
        told = dict(part.split("=", 1) for part in answer.text.split())
        assert (told["error"], told["status"]) == (word, str(status))
        assert told["id"] == reference or (not reference and len(told["id"]) == 10)
        assert answer.header("Content-Security-Policy") is None, "that is for our own pages"
    elif form == "default":
        # One of httpd's own pages would say nothing of what happened.
        assert answer.reference and answer.reference == (reference or answer.reference)
    elif form == "an address elsewhere":
        # httpd takes none for 401, says so at the start, and it is as if there was no such line.
        assert answer.links["Sign in"].startswith(hosts[form].endpoint("login"))
    elif form == "a text":
        assert answer.text == "sorry"
    elif form == "a page":
        assert answer.text == "<p>A page about errors</p>"
    assert (answer.header("Retry-After") is not None) == (status == 503)
    assert (answer.header("WWW-Authenticate") is not None) == (status == 401)


def test_a_document_behind_a_rule_stays_behind_it(hosts, log_watch, new_browser):
    """Neither a stranger nor somebody refused is shown it; who may see it, is."""
    host = hosts["behind a rule of its own"]
    assert "about errors" not in new_browser().get(host.url("/any/page.html"), SCRIPT).text
    for person, path, shown in (("oscar", "/team/page.html", False), ("olivia", "/late/page.html", True)):
        browser = new_browser()
        browser.get(browser.walk_to_callback(host.url("/any/page.html"), person))
        answer = browser.get(host.url(path))
        assert (answer.status, "about errors" in answer.text) == (403, shown)


def test_json_is_not_replaced(hosts, log_watch, browser):
    answer = browser.get(hosts["a program"].url("/any/page.html"), {"Accept": "application/json"})
    assert answer.status == 401 and answer.json["error"] == "unauthenticated"


def test_head_and_post(hosts, log_watch, browser):
    host = hosts["a program"]
    head = browser.request("HEAD", host.url("/any/page.html"), SCRIPT)
    assert (head.status, head.body) == (401, b"")
    post = browser.request("POST", host.url("/any/env.cgi"), NAVIGATION, {"a": "1"})
    assert post.status == 401 and "error=unauthenticated" in post.text


def test_no_error_of_an_earlier_answer_sticks(hosts, log_watch, browser):
    """A page that is shown says nothing of errors, though an error document was made before."""
    host = hosts["a program"]
    browser.get(host.url("/any/page.html"), SCRIPT)
    answer = browser.sign_in(host.url("/any/env.cgi"), "mark")
    assert not any("BITBUCKET_ERROR" in key for key in answer.environment)
    missing = browser.get(host.url("/any/absent.html"))
    assert missing.status == 404 and "error=" not in missing.text
