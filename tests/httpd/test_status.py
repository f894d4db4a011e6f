"""The status page: each figure moves when its event happens, and each form can be read."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from harness import tags
from harness.client import NAVIGATION, SCRIPT, send
from harness.config import VirtualHost, modules_directory, place
from harness.simulator import account, permission_route
from harness.waiting import eventually
from test_api_token import basic, of

STATUS = '<Location "/status">\n    SetHandler bitbucket-status\n</Location>'
SERVER_STATUS = '<Location "/server-status">\n    SetHandler server-status\n</Location>'
SITE = "\n".join([
    place("any", "Require valid-user"), place("team", "Require bitbucket-workspace acme"),
    place("owners", "Require bitbucket-workspace acme:owner"),
    place("repository", "Require bitbucket-repository acme/site:write"),
    place("tool", "AuthBitbucketAPIToken On", "Require valid-user"),
    place("strangers", "AuthBitbucketUnauthenticated 403", "Require valid-user"),
    STATUS, SERVER_STATUS,
    '<Location "/private-status">\n    SetHandler bitbucket-status\n    Require all denied\n</Location>',
])
MAIN = f'LoadModule status_module "{modules_directory()}/mod_status.so"\nAuthBitbucketHTTPTimeout 1s 2s\n'
CALLS = ("token", "refresh", "user", "emails", "permission", "repositories", "members")
OUTCOMES = ("2xx", "3xx", "4xx", "5xx", "none")


@pytest.fixture
def host(start_server, mpm):
    host = VirtualHost(SITE)
    host.server = start_server(host, mpm=mpm, main=MAIN)
    return host


@pytest.fixture
def timed(start_server, clock):
    host = VirtualHost(SITE)
    host.server = start_server(host, clock=clock, main=MAIN + "AuthBitbucketMembershipMaxAge 5m 1h\n")
    return host


def ask(host, query: str = "", method: str = "GET", path: str = "/status"):
    return send(method, host.url(path) + (f"?{query}" if query else ""), NAVIGATION)


def state(host) -> dict:
    answer = ask(host, "json")
    assert (answer.status, answer.header("Content-Type")) == (200, "application/json")
    return answer.json


def flat(value, name: str = "") -> dict[str, float]:
    """Every number of a tree, by its path."""
    if isinstance(value, dict):
        return {path: number for key, part in value.items() for path, number in flat(part, f"{name}{key}.").items()}
    return {name.rstrip("."): value} if isinstance(value, (int, float)) else {}


class Watch:
    """What has moved since it was last asked."""

    def __init__(self, host) -> None:
        self.host, self.before = host, flat(state(host))

    def moved(self) -> dict[str, float]:
        before, self.before = self.before, flat(state(self.host))
        names = [name for name in self.before if name.startswith(("figures.", "calls.")) and ".seconds" not in name
                 and not name.startswith("figures.store_") and not name.endswith(("timestamp_seconds", "rate_limit_remaining"))]
        return {name.removeprefix("figures."): self.before[name] - before.get(name, 0) for name in names
                if self.before[name] != before.get(name, 0)}


# -- each figure moves when its event happens

def test_visitors(host, new_browser, logs):
    watch = Watch(host)
    browser = new_browser()
    browser.sign_in(host.url("/team/page.html"), "mark")
    assert watch.moved() == {"sign_ins_total": 1, "requests_total": 1, "calls.token.2xx": 1, "calls.user.2xx": 1,
                             "calls.emails.2xx": 1, "calls.permission.2xx": 1, "calls.repositories.2xx": 1}
    for _ in range(7):
        assert browser.get(host.url("/team/page.html")).status == 200
    assert watch.moved() == {"requests_total": 7}
    assert browser.get(host.url("/owners/page.html")).status == 403
    assert watch.moved() == {"requests_total": 1, "refusals_total": 1}
    assert new_browser().get(host.url("/strangers/page.html")).status == 403
    assert watch.moved() == {"refusals_total": 1}
    browser.submit(browser.get(host.endpoint("logout")))
    assert watch.moved() == {"sign_outs_total": 1}


@pytest.mark.one_mpm
def test_a_page_with_parts_is_one_request(host, browser):
    browser.sign_in(host.url("/any/page.html"), "mark")
    watch = Watch(host)
    assert browser.get(host.url("/any/include.shtml")).status == 200
    assert browser.get(host.url("/any/")).status == 200
    assert watch.moved() == {"requests_total": 2}


@pytest.mark.one_mpm
def test_sign_ins_that_fail(host, new_browser, simulator, logs):
    watch = Watch(host)
    browser = new_browser()
    browser.walk(browser.get(host.url("/any/page.html"), NAVIGATION), "mark", consents=False)
    assert watch.moved() == {"sign_ins_failed_total.cancelled": 1}
    assert new_browser().get(host.endpoint("callback") + "?state=x", NAVIGATION).status == 400
    assert watch.moved() == {"sign_ins_failed_total.input": 1}
    simulator.fault("token", status=500, times=1)
    logs.allow(tags.ANSWERED)
    browser = new_browser()
    callback = browser.walk_to_callback(host.url("/any/page.html"), "mark")
    assert browser.get(callback).status == 503
    assert watch.moved() == {"sign_ins_failed_total.upstream": 1, "calls.token.5xx": 1}


@pytest.mark.one_mpm
def test_credentials(host, logs):
    watch = Watch(host)
    assert ask_tool(host, of("mark")) == 200
    assert watch.moved() == {"requests_total": 1, "credentials_total.accepted": 1, "rechecks_total.done": 1,
                             "rechecks_waited_total": 1, "calls.emails.2xx": 1, "calls.user.2xx": 2}
    assert ask_tool(host, of("mark")) == 200
    assert watch.moved() == {"requests_total": 1}
    assert ask_tool(host, basic("mark@acme.example", "wrong")) == 401
    assert watch.moved() == {"credentials_total.refused": 1, "calls.user.4xx": 1}
    statuses = [ask_tool(host, basic("mark@acme.example", f"wrong-{i}")) for i in range(30)]
    throttled = statuses.count(429)
    assert throttled > 0 and watch.moved()["credentials_total.throttled"] == throttled


def ask_tool(host, headers) -> int:
    return send("GET", host.url("/tool/page.html"), headers).status


def test_re_checks(timed, browser, simulator, clock, logs):
    browser.sign_in(timed.url("/team/page.html"), "mark")
    watch = Watch(timed)
    clock.advance(400)
    assert browser.get(timed.url("/team/page.html")).status == 200
    eventually(lambda: state(timed)["figures"]["rechecks_total"]["done"] == 1)
    assert watch.moved() == {"requests_total": 1, "rechecks_total.done": 1, "calls.user.2xx": 1, "calls.emails.2xx": 1,
                             "calls.permission.2xx": 1}
    simulator.fault("user", status=500, headers={"X-RateLimit-Remaining": "12"})
    logs.allow(tags.NOT_RENEWED)
    clock.advance(400)
    assert browser.get(timed.url("/team/page.html")).status == 200
    eventually(lambda: state(timed)["figures"]["rechecks_total"]["failed"] == 1)
    moved = watch.moved()
    assert moved["calls.user.5xx"] == 2, "a question without an answer is sent once more"
    assert state(timed)["figures"]["rate_limit_remaining"] == 12
    simulator.clear_faults()
    simulator.end_tokens("all")
    clock.advance(4000)
    watch.moved()
    assert browser.get(timed.url("/team/page.html"), NAVIGATION).status == 302
    moved = watch.moved()
    assert moved["sessions_ended_total"] == 1 and moved["rechecks_waited_total"] >= 1 and moved["calls.refresh.4xx"] == 1


@pytest.mark.one_mpm
def test_the_breaker(host, new_browser, simulator, logs):
    logs.allow(tags.ANSWERED)
    logs.allow(tags.BROKEN)
    simulator.fault("token", status=503)
    began = state(host)["figures"]
    assert began["circuit_open"] == 0 and began["circuit_changed_timestamp_seconds"] == began["start_time_seconds"]
    for _ in range(5):
        browser = new_browser()
        assert browser.get(browser.walk_to_callback(host.url("/any/page.html"), "mark")).status == 503
    figures = state(host)["figures"]
    assert figures["circuit_open"] == 1
    assert "Bitbucket does not answer since" in ask(host).text


@pytest.mark.one_mpm
def test_a_withdrawn_endpoint(host, browser, simulator, logs):
    text = "<b>CHANGE-9999</b> - \"gone\""
    simulator.fault(permission_route("acme"), status=410, json={"type": "error", "error": {"message": text}})
    logs.expect(tags.CHANGED)
    assert state(host)["change"] is None
    browser.sign_in(host.url("/team/page.html"), "mark")
    assert "CHANGE-9999" in state(host)["change"]
    assert "<b>CHANGE" not in ask(host).text and "CHANGE-9999" in ask(host).text
    assert state(host)["calls"]["members"]["2xx"] >= 1


# -- forms

class Strict(HTMLParser):
    """Every element is closed where it should be."""

    VOID = {"meta", "br", "hr", "link", "input"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open and self.open.pop() == tag, tag


def test_the_page(host, browser):
    browser.sign_in(host.url("/team/page.html"), "mark")
    answer = ask(host)
    assert (answer.status, answer.header("Content-Type")) == (200, "text/html; charset=utf-8")
    assert "no-store" in answer.header("Cache-Control") and answer.header("X-Content-Type-Options") == "nosniff"
    policy = answer.header("Content-Security-Policy")
    assert "default-src 'none'" in policy and "script" not in policy and "unsafe" not in policy
    page = Strict()
    page.feed(answer.text)
    page.close()
    assert page.open == [] and page.seen.count("svg") == 6 and "script" not in page.seen and "rect" in page.seen
    assert not re.search(r'\s(style|on\w+)=', answer.text)
    for form in ("", "auto", "json", "prometheus"):
        told = ask(host, form).text
        for secret in ("mark", "Miller", "acme", "127.0.0.1", host.client_id, host.client_secret):
            assert secret not in told, (form, secret)


@pytest.mark.one_mpm
def test_lines(host, browser):
    browser.sign_in(host.url("/team/page.html"), "mark")
    answer = ask(host, "auto")
    assert answer.header("Content-Type") == "text/plain; charset=utf-8"
    lines = dict(re.fullmatch(r"(Bitbucket[A-Za-z0-9]+): ([0-9.]+)", line).groups() for line in answer.text.splitlines())
    assert len(lines) == len(answer.text.splitlines())
    assert lines["BitbucketSignIns"] == "1" and lines["BitbucketSignInsFailedRateLimit"] == "0"
    assert lines["BitbucketCallsToken2xx"] == "1" and 0 < float(lines["BitbucketSecondsTokenP99"]) < 2


@pytest.mark.one_mpm
def test_the_last_hour(timed, new_browser, clock):
    for _ in range(2):
        new_browser().sign_in(timed.url("/any/page.html"), "mark")
        clock.advance(600)
    new_browser().sign_in(timed.url("/any/page.html"), "mark")
    hour = state(timed)["last_hour"]
    assert {name: len(values) for name, values in hour.items()} == dict.fromkeys(
        ("sign_ins", "requests", "rechecks", "calls", "call_milliseconds"), 60)
    assert sum(hour["sign_ins"]) == 3 and hour["sign_ins"][59] == 1 and hour["sign_ins"][49] == hour["sign_ins"][39] == 1
    assert sum(hour["calls"]) >= 9
    clock.advance(3600)
    assert sum(state(timed)["last_hour"]["sign_ins"]) == 0
    assert state(timed)["figures"]["sign_ins_total"] == 3


def rows(host, heading: str) -> dict[str, list[str]]:
    """The table of a section of the page, by the first word of each row."""
    section = ask(host).text.partition(f"<h2>{heading}</h2>")[2].partition("</section>")[0]
    return {name: re.findall("<td>([^<]*)</td>", cells)
            for name, cells in re.findall(r'<tr><th scope="row">(\w+)</th>(.*?)</tr>', section)}


def lines_of(host) -> dict[str, int]:
    """How many points each line of the plot has."""
    return {kind: len(re.findall("[ML]", path)) for kind, path in re.findall('<path class="([a-z]+)" d="([^"]*)"/>', ask(host).text)}


def test_how_long_calls_of_the_last_hour_took(timed, new_browser, simulator, clock):
    """A slow hour does not darken the next one; since the start it counts."""
    assert "Nobody called" in ask(timed).text and lines_of(timed) == {"most": 0, "half": 0}
    simulator.fault("user", delay=0.6)
    new_browser().sign_in(timed.url("/any/page.html"), "mark")
    simulator.clear_faults()
    user = state(timed)["calls"]["user"]
    assert user["seconds_last_hour"]["count"] == user["seconds_since_start"]["count"] == 1
    assert user["seconds_last_hour"]["p50"] == user["seconds_since_start"]["p50"] > 0.5
    clock.advance(3700)
    for _ in range(2):
        new_browser().sign_in(timed.url("/any/page.html"), "mark")
        clock.advance(600)
    user = state(timed)["calls"]["user"]
    assert user["seconds_since_start"]["count"] == 3 and user["seconds_since_start"]["p99"] > 0.5
    assert user["seconds_last_hour"]["count"] == 2 and user["seconds_last_hour"]["p50"] <= user["seconds_last_hour"]["p99"] < 0.5
    count, *shares = rows(timed, "Calls of the last hour")["user"]
    assert count == "2" and all(share.endswith(" ms") for share in shares)
    assert rows(timed, "Calls of the last hour")["members"] == ["0", "-", "-", "-"]
    assert rows(timed, "Answers to calls since the start")["user"] == ["3", "0", "0", "0", "0"]
    assert lines_of(timed) == {"most": 2, "half": 2} and "Nobody called" not in ask(timed).text
    counted = "bitbucket_call_duration_seconds_count", (("call", "user"),)
    durations = read_prometheus(ask(timed, "prometheus").text)["bitbucket_call_duration_seconds"]["samples"]
    assert durations[counted] == 3
    clock.advance(3600)
    user = state(timed)["calls"]["user"]
    assert user["seconds_last_hour"] == {"count": 0, "p50": None, "p90": None, "p99": None}
    assert user["seconds_since_start"]["count"] == 3 and "Nobody called" in ask(timed).text


NAME, LABELS = r"[a-zA-Z_:][a-zA-Z0-9_:]*", r'\{(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*",?)*\}'


def read_prometheus(text: str) -> dict[str, dict]:
    """The text format 0.0.4, read more strictly than it asks for. Metric -> type, samples."""
    assert text.endswith("\n")
    metrics: dict[str, dict] = {}
    current = ""
    for line in text[:-1].split("\n"):
        if found := re.fullmatch(rf"# HELP ({NAME}) (\S.*)", line):
            current = found[1]
            assert current not in metrics, "all samples of a metric stand together"
            metrics[current] = {"samples": {}}
        elif found := re.fullmatch(rf"# TYPE ({NAME}) (counter|gauge|histogram)", line):
            assert found[1] == current and "type" not in metrics[current] and not metrics[current]["samples"]
            metrics[current]["type"] = found[2]
        else:
            found = re.fullmatch(rf"({NAME})({LABELS})? ([0-9]+(?:\.[0-9]+)?)", line)
            assert found, line
            name, kind = found[1], metrics[current]["type"]
            assert name in ([current + end for end in ("_bucket", "_sum", "_count")] if kind == "histogram" else [current])
            labels = tuple(re.findall(r'(\w+)="([^"]*)"', found[2] or ""))
            assert (name, labels) not in metrics[current]["samples"], line
            metrics[current]["samples"][name, labels] = float(found[3])
    return metrics


@pytest.mark.one_mpm
def test_prometheus(host, browser):
    browser.sign_in(host.url("/team/page.html"), "mark")
    answer = ask(host, "prometheus=")
    assert answer.header("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
    metrics = read_prometheus(answer.text)
    for name, metric in metrics.items():
        assert name.startswith("bitbucket_") and metric["samples"], name
        assert (metric["type"] == "counter") == name.endswith("_total"), name
    assert metrics["bitbucket_sign_ins_total"]["samples"] == {("bitbucket_sign_ins_total", ()): 1}
    calls = metrics["bitbucket_calls_total"]["samples"]
    assert set(calls) == {("bitbucket_calls_total", (("call", call), ("outcome", outcome))) for call in CALLS for outcome in OUTCOMES}
    durations = metrics["bitbucket_call_duration_seconds"]
    assert durations["type"] == "histogram"
    for call in CALLS:
        buckets = [(float(labels[1][1]), count) for (name, labels), count in durations["samples"].items()
                   if name.endswith("_bucket") and labels[0] == ("call", call)]
        bounds, counts = zip(*buckets)
        assert list(bounds) == sorted(set(bounds)) and bounds[-1] == float("inf") and list(counts) == sorted(counts)
        total = durations["samples"]["bitbucket_call_duration_seconds_count", (("call", call),)]
        assert counts[-1] == total == sum(calls["bitbucket_calls_total", (("call", call), ("outcome", o))] for o in OUTCOMES)
        assert (durations["samples"]["bitbucket_call_duration_seconds_sum", (("call", call),)] > 0) == (total > 0)


# -- who asks, and how

@pytest.mark.one_mpm
@pytest.mark.parametrize("query", ["refresh=1", "JSON", "json&x", "auto=1", "auto==", "%6ason", "prometheus%00", "<script>", "x" * 5000])
def test_a_wrong_query(host, query):
    answer = ask(host, query)
    assert answer.status == 400 and query not in answer.text and "prometheus" in answer.text


@pytest.mark.one_mpm
def test_methods_and_rules(host):
    answer = ask(host, method="HEAD")
    assert (answer.status, answer.body) == (200, b"") and "no-store" in answer.header("Cache-Control")
    for method in ("POST", "PUT", "DELETE"):
        assert ask(host, method=method).status == 405
    assert ask(host, path="/private-status").status == 403


@pytest.mark.one_mpm
def test_a_server_without_sites(start_server):
    host = VirtualHost(STATUS, configured=False)
    start_server(host)
    assert ask(host, "json").status == 404


def test_it_outlives_graceful(host, browser):
    browser.sign_in(host.url("/team/page.html"), "mark")
    before = state(host)["figures"]
    host.server.reload()
    assert browser.get(host.url("/team/page.html")).status == 200
    after = state(host)["figures"]
    assert (before["graceful_restarts_total"], after["graceful_restarts_total"]) == (0, 1)
    assert after["start_time_seconds"] == before["start_time_seconds"]
    assert (after["sign_ins_total"], after["requests_total"]) == (1, before["requests_total"] + 1)
    assert after["store_records"] == before["store_records"] >= 1
    assert state(host)["calls"]["user"]["seconds_last_hour"]["count"] == 1


@pytest.mark.one_mpm
def test_mod_status(host, browser):
    browser.sign_in(host.url("/team/page.html"), "mark")
    page = ask(host, path="/server-status").text
    assert "<h2>Sign-in with Bitbucket</h2>" in page and "<dt>Sign-ins completed: 1</dt>" in page
    lines = ask(host, "auto", path="/server-status").text.splitlines()
    assert "BitbucketSignIns: 1" in lines and any(line.startswith("Total Accesses") for line in lines)
