"""One OAuth client, one callback, many sites: the hub hands sign-ins on."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from harness import tags
from harness.client import NAVIGATION, SCRIPT, Answer, Browser
from harness.config import VirtualHost, free_port, place

KEY = "session-key-of-both-machines-0123456789"
PLACES = "\n".join([place("any", "Require valid-user"), place("team", "Require bitbucket-workspace acme")])
STATE = "A" * 44


def own(host: VirtualHost, name: str) -> str:
    """An endpoint at the site itself."""
    return f"{host.origin}/bitbucket/{name}"


def of_client(hub: VirtualHost, name: str, directives: str = PLACES, **more) -> VirtualHost:
    """A site whose callback is the hub's."""
    return VirtualHost(directives, name=name, client_id=hub.client_id, client_secret=hub.client_secret,
                       **{"callback": own(hub, "callback"), **more})


def make_hosts(tls: bool = False) -> tuple[VirtualHost, VirtualHost, VirtualHost]:
    """A hub and two sites of names that have nothing in common."""
    hub = VirtualHost(name="sso.localhost", tls=tls)
    hub.callback = own(hub, "callback")
    wiki, shop = of_client(hub, "wiki.localhost", tls=tls), of_client(hub, "shop.localhost", tls=tls)
    hub.directives = f"AuthBitbucketCallbackFor {wiki.origin} {shop.origin}\n{PLACES}"
    return hub, wiki, shop


@pytest.fixture
def hosts(start_server, clock):
    three = make_hosts()
    start_server(*three, clock=clock)
    return three


def handover_of(browser: Browser, host: VirtualHost, person: str = "mark", consents: bool = True) -> str:
    """The address at the site that the hub sends the browser to, not yet asked for."""
    callback = browser.walk_to_callback(host.url("/any/page.html?a=1"), person, consents)
    assert callback.startswith(host.callback_url + "?")
    answer = browser.get(callback)
    assert answer.status == 303 and answer.set_cookies == [] and answer.header("Cache-Control") == "no-store"
    assert answer.location.startswith(own(host, "callback") + "?handover=")
    return answer.location


def is_in(browser: Browser, host: VirtualHost) -> bool:
    return browser.get(host.url("/any/page.html"), SCRIPT).status == 200


# -- signing in

@pytest.mark.parametrize("tls", [False, True])
def test_each_site_signs_in_for_itself(start_server, browser, simulator, tls):
    hub, wiki, shop = make_hosts(tls)
    start_server(hub, wiki, shop)
    name = ("__Host-" if tls else "") + "bitbucket_session"
    for host in (wiki, shop, hub):
        simulator.forget_calls()
        page = browser.sign_in(host.url("/any/page.html?x=%C3%A9"), "mark")
        assert page.status == 200 and page.url == host.url("/any/page.html?x=%C3%A9")
        assert browser.jar.named(host.name, name).get(name)
        assert simulator.asked().count("token") == 1
    sessions = {browser.session_value(host.name) for host in (hub, wiki, shop)}
    assert len(sessions) == 3, "a session of its own at each"


def test_a_sign_in_asks_as_little_as_ever(hosts, browser, simulator):
    """The workspace of the requested place is asked about at once, as without a hub."""
    _, wiki, _ = hosts
    straight = handed = None
    for host in (hosts[0], wiki):
        simulator.forget_calls()
        assert browser.sign_in(host.url("/team/page.html"), "mark").status == 200
        straight, handed = handed, sorted(simulator.asked())
    assert straight == handed


def test_endpoints_are_the_sites_own(hosts, browser):
    hub, wiki, _ = hosts
    browser.sign_in(wiki.url("/any/page.html"), "mark")
    assert browser.get(own(wiki, "userinfo")).json["username"] == "mark_miller"
    assert browser.get(own(hub, "userinfo")).status == 401
    page = browser.get(own(wiki, "logout"))
    assert browser.submit(page).status == 200 and not is_in(browser, wiki)
    again = browser.walk(browser.get(own(wiki, "login") + "?return=/team/page.html"), "mark")[-1]
    assert again.status == 200 and again.url == wiki.url("/team/page.html")


def test_errors_of_bitbucket_are_told_at_the_site(hosts, browser, simulator):
    _, wiki, _ = hosts
    answer = browser.get(handover_of(browser, wiki, consents=False))
    assert answer.status == 403 and answer.reference and answer.url.startswith(wiki.origin)
    assert simulator.asked() == []


def test_two_tabs_and_a_repeated_address(hosts, browser, simulator):
    _, wiki, _ = hosts
    first, second = handover_of(browser, wiki), handover_of(browser, wiki)
    assert browser.get(first).location == "/any/page.html?a=1"
    simulator.forget_calls()
    assert browser.get(second).location == "/any/page.html?a=1", "the other tab goes on"
    assert browser.get(first).location == "/any/page.html?a=1", "the back button does"
    assert simulator.asked() == []


def test_servers_that_share_a_key(start_server, browser, simulator):
    """Hub and site on two machines: the key is all that they share."""
    shared = f"AuthBitbucketSessionKey {KEY}\n"
    hub = VirtualHost(name="sso.localhost")
    hub.callback = own(hub, "callback")
    wiki = of_client(hub, "wiki.localhost")
    wiki.callback = f"{own(hub, 'callback')} {wiki.origin}"
    hub.directives = f"AuthBitbucketCallbackFor {wiki.origin}\n"
    start_server(hub, main=shared)
    start_server(wiki, main=shared)
    page = browser.sign_in(wiki.url("/any/page.html"), "mark")
    assert page.status == 200 and page.url == wiki.url("/any/page.html")


# -- attacks

def test_replay_after_signing_out(hosts, browser, simulator):
    _, wiki, _ = hosts
    address = handover_of(browser, wiki)
    browser.get(address)
    browser.submit(browser.get(own(wiki, "logout")))
    simulator.forget_calls()
    answer = browser.get(address)
    assert answer.session_cookie is None and not is_in(browser, wiki)
    assert simulator.asked() == []


def test_stolen(hosts, browser, new_browser, simulator):
    """In another browser it is of no use, and stays of use in its own."""
    _, wiki, _ = hosts
    address = handover_of(browser, wiki)
    thief = new_browser()
    for _ in range(2):
        assert thief.get(address).session_cookie is None
    assert simulator.asked() == []
    assert browser.get(address).session_cookie


def test_at_another_site(hosts, browser, simulator):
    """With the attempt's cookie copied there, too."""
    hub, wiki, shop = hosts
    address = handover_of(browser, wiki)
    cookie = {**NAVIGATION, "Cookie": browser.jar.line(wiki.name, False)}
    for host in (shop, hub):
        answer = browser.get(address.replace(wiki.origin, host.origin), cookie)
        assert answer.status == 400 and answer.session_cookie is None, host.name
    assert simulator.asked() == []


def test_changed(hosts, browser, simulator):
    _, wiki, _ = hosts
    address = handover_of(browser, wiki)
    start = address.index("=") + 1
    for place_ in (start, start + 20, (start + len(address)) // 2, len(address) - 2):
        for other in "AB-":
            changed = address[:place_] + other + address[place_ + 1:]
            if changed != address:
                answer = browser.get(changed)
                assert answer.status == 400 and answer.session_cookie is None
    for changed in (address[:-4], address + "AAAA", address[:start], address + "&" + address[start - 9:]):
        assert browser.get(changed).session_cookie is None
    assert simulator.asked() == []
    assert browser.get(address).session_cookie


def test_a_code_that_comes_straight(hosts, browser, simulator):
    """What the hub was sent, sent to the site: it takes nothing that was not handed on."""
    _, wiki, _ = hosts
    callback = browser.walk_to_callback(wiki.url("/any/page.html"), "mark")
    query = dict(parse_qsl(urlsplit(callback).query))
    for state in (query["state"], query["state"][:44]):
        answer = browser.get(own(wiki, "callback") + "?" + urlencode({**query, "state": state}))
        assert answer.status == 400 and answer.session_cookie is None
    assert simulator.asked() == []


@pytest.mark.parametrize("query", [
    f"state={STATE}AAAAAAAAAAAA&code=x", f"state={STATE}!!!!!!!!!!!!&code=x", f"state={STATE}%2f%2fevil.com%2f%2f&code=x",
    f"state={STATE}AAAAAAAAAAAA&code=x&code=y", f"state={STATE}AAAAAAAAAAAA&error=x&code=y", "handover=AAAA",
])
def test_the_hub_sends_nobody_elsewhere(hosts, browser, simulator, query):
    hub, _, _ = hosts
    answer = browser.get(own(hub, "callback") + "?" + query)
    assert answer.status == 400 and answer.location is None and answer.reference
    assert simulator.asked() == []


def test_a_site_that_is_not_named(hosts, browser, logs):
    """As when the line is forgotten where the hub is another machine."""
    hub, wiki, _ = hosts
    callback = browser.walk_to_callback(wiki.url("/any/page.html"), "mark")
    state = dict(parse_qsl(urlsplit(callback).query))["state"]
    other = callback.replace(state, state[:44] + "AAAABBBBCCCC")
    answer = browser.get(other)
    assert answer.status == 400 and answer.location is None
    line, = logs.lines(tags.ANSWERED)
    assert "AuthBitbucketCallbackFor" in line.text and hub.origin in line.text and answer.reference in line.text


@pytest.mark.parametrize("length, status", [(1500, 303), (2048, 303), (2049, 400), (8000, 400)])
def test_long_queries(hosts, browser, length, status):
    hub, wiki, _ = hosts
    callback = browser.walk_to_callback(wiki.url("/any/page.html"), "mark")
    query = urlsplit(callback).query
    answer = browser.get(callback + "&x=" + "y" * (length - len(query) - 3))
    assert answer.status == status
    if status == 303:
        assert browser.follow(answer).session_cookie


# -- time

@pytest.mark.parametrize("seconds, is_good", [(25, True), (35, False), (-25, True), (-35, False)])
def test_thirty_seconds(hosts, clock, browser, simulator, seconds, is_good):
    """A handover that is too old begins once more by itself; the second time it is explained."""
    _, wiki, _ = hosts
    address = handover_of(browser, wiki)
    clock.advance(seconds)
    answer = browser.get(address)
    if is_good:
        assert answer.session_cookie and answer.location == "/any/page.html?a=1"
        return
    assert answer.session_cookie is None and simulator.asked() == []
    assert answer.status == 302 and len(answer.tickets) == 1, "once more"
    callback = browser.walk(answer, "mark")
    assert callback[-1].status == 200 and callback[-1].url == wiki.url("/any/page.html?a=1")


def test_the_second_time_it_is_explained(hosts, clock, browser, simulator, logs):
    hub, wiki, _ = hosts
    address = handover_of(browser, wiki)
    for turn in (1, 2):
        clock.advance(40)
        answer = browser.get(address)
        if turn == 1:
            while not (answer.location or "").startswith(own(wiki, "callback")):
                answer = browser.follow(answer)
            address = answer.location
    assert answer.status == 400 and answer.reference and simulator.asked() == []
    line, = [line for line in logs.lines(tags.ANSWERED) if answer.reference in line.text]
    assert "40 seconds" in line.text


# -- the start

def start_of(start_server, *hosts: VirtualHost, main: str = "") -> tuple[int, str]:
    done = start_server.prepare(*hosts, main=main).run("-t")
    return done.returncode, done.stdout


def test_what_does_not_fit_stops_the_start(start_server):
    hub, wiki, shop = make_hosts()
    hub.directives = f"AuthBitbucketCallbackFor {wiki.origin}\n"
    code, text = start_of(start_server, hub, wiki, shop)
    assert code and f"write there AuthBitbucketCallbackFor {shop.origin}" in text and "sso.localhost" in text

    hub, wiki, _ = make_hosts()
    wiki.client_id = "another-client"
    code, text = start_of(start_server, hub, wiki)
    assert code and "another AuthBitbucketClientID" in text

    hub, wiki, _ = make_hosts()
    hub.directives = f"AuthBitbucketSessionKey {KEY}\n" + hub.directives
    code, text = start_of(start_server, hub, wiki)
    assert code and "AuthBitbucketSessionKey" in text and "sso.localhost" in text

    hub, wiki, _ = make_hosts()
    wiki.directives = f"AuthBitbucketSessionKey another-key-of-this-host-0123456789 {KEY}\n" + wiki.directives
    hub.directives = f"AuthBitbucketSessionKey {KEY}\n" + hub.directives
    code, text = start_of(start_server, hub, wiki)
    assert code == 0, text

    hub, wiki, _ = make_hosts()
    hub.callback = "/other/callback"
    code, text = start_of(start_server, hub, wiki)
    assert code and "none has that callback" in text and f"AuthBitbucketCallbackFor {wiki.origin}" in text


@pytest.mark.parametrize("line, quoted", [
    ("AuthBitbucketCallbackFor wiki.example.com", "wiki.example.com"),
    ("AuthBitbucketCallbackFor https://wiki.example.com/path", "/path"),
    ("AuthBitbucketCallbackFor https://a.example https://u@b.example", "u@b.example"),
    ("AuthBitbucketCallbackFor ftp://wiki.example.com", "ftp:"),
    ("AuthBitbucketCallbackFor https://", "https://"),
    ("AuthBitbucketCallbackURL /bitbucket/callback https://wiki.example.com", "has no use"),
    ("AuthBitbucketCallbackURL https://a.example/bitbucket/callback wiki", "'wiki'"),
])
def test_malformed_lines_stop_the_start(start_server, line, quoted):
    code, text = start_of(start_server, VirtualHost(f"{line}\n{PLACES}"))
    assert code and line.split()[0] in text and quoted in text


def test_a_name_of_ones_own_is_no_hub(start_server, browser):
    """The callback's host is an alias of this host, or no name of any: the public address, as ever."""
    other = VirtualHost(PLACES, name="shop.localhost")
    alias = VirtualHost(name="inside.localhost")
    alias.callback = f"http://wiki.localhost:{alias.port}/bitbucket/callback"
    alias.directives = "ServerAlias wiki.localhost\n" + PLACES
    unknown = VirtualHost(PLACES, name="backend.localhost")
    unknown.callback = f"http://public.localhost:{unknown.port}/bitbucket/callback"
    start_server(other, alias, unknown)
    for host, name in ((alias, "wiki.localhost"), (unknown, "public.localhost")):
        page = browser.sign_in(f"http://{name}:{host.port}/any/page.html", "mark")
        assert page.status == 200 and browser.session_value(name)


def test_inherited_lines(start_server, browser, simulator):
    """The client and the callback once for the whole server; one site without protected places needs nothing."""
    port = free_port()
    hub = VirtualHost(name="sso.localhost", port=port, configured=False)
    wiki = VirtualHost(PLACES, name="wiki.localhost", configured=False)
    plain = VirtualHost(place("open", auth=False), name="plain.localhost", configured=False)
    hub.directives = f"AuthBitbucketCallbackFor {wiki.origin}\n"
    main = (f"AuthBitbucketClientID {hub.client_id}\nAuthBitbucketClientSecret {hub.client_secret}\n"
            f"AuthBitbucketCallbackURL {hub.origin}/bitbucket/callback\n")
    simulator.register(hub.client_id, hub.client_secret, own(hub, "callback"))
    start_server(hub, wiki, plain, main=main)
    assert browser.sign_in(wiki.url("/any/page.html"), "mark").url == wiki.url("/any/page.html")
    assert browser.get(plain.url("/open/page.html")).status == 200
