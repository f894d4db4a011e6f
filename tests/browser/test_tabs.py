"""Many tabs, and the back button."""

from __future__ import annotations

from harness.simulator import WORLD

MARK = WORLD["accounts"]["mark"]["display_name"]
TABS = [f"/any/page.html?tab={n}" for n in range(10)]


def sign_in_at_bitbucket_only(person, simulator) -> None:
    """Bitbucket knows the browser, the site does not."""
    person.open("/any/page.html")
    person.sign_in_at_bitbucket(MARK)
    person.wait_for_heading("The test page")
    person.driver.delete_all_cookies()      # those of the site
    person.driver.get("about:blank")
    simulator.forget_calls()


def test_ten_tabs_at_once_each_end_on_their_own_page(person, simulator):
    """Bitbucket answers all of them at once, since it knows the browser."""
    sign_in_at_bitbucket_only(person, simulator)
    for path, handle in zip(TABS, person.open_at_once(TABS)):
        person.go_to_tab(handle)
        person.wait_for_address(path)
        assert person.heading == "The test page"
    assert person.has_session()
    assert simulator.asked().count("user") <= 10


def test_ten_tabs_that_wait_at_bitbucket(person, simulator):
    """Nobody is signed in anywhere: each tab shows Bitbucket's question; one is answered, then
    the others. A browser keeps the newest four attempts, which end on their own pages; the
    older ones end signed in at the front page."""
    tabs = dict(zip(TABS, person.open_at_once(TABS)))
    for handle in tabs.values():
        person.go_to_tab(handle)
        person.wait_for_heading("Sign in")
    person.sign_in_at_bitbucket(MARK)
    person.wait_for_address(TABS[-1])
    simulator.forget_calls()
    ends = [TABS[-1]]
    for path in reversed(TABS[:-1]):
        person.go_to_tab(tabs[path])
        person.click(MARK)
        ends.append(person.url.removeprefix(person.host.origin))
        assert ends[-1] in (path, "/")
    assert sum(end != "/" for end in ends) >= 4
    assert simulator.asked() == [], "the first sign-in is enough for all"
    person.open(TABS[0])
    assert person.heading == "The test page"


# -- the back button

def test_back_to_bitbucket_after_signing_in(person, simulator):
    """Whoever goes back and answers Bitbucket's question once more comes to the page again."""
    person.open("/team/page.html?q=1")
    person.sign_in_at_bitbucket(MARK)
    person.wait_for_address("/team/page.html?q=1")
    simulator.forget_calls()
    for _ in range(6):
        person.go_back()
        if any(element.text == MARK or element.text.startswith("Grant") for element in person.actions()):
            break
    assert person.url.startswith(simulator.origin)
    person.click("Grant" if "Grant" in person.text else MARK)
    person.wait_for_address("/team/page.html?q=1")
    assert person.has_session() and simulator.asked() == [], "no second code is spent"


def test_back_over_the_sign_in_ends_at_the_page_before(person):
    """The redirects on the way leave nothing in the history that begins a sign-in anew."""
    person.open_tab()       # without a history
    person.open("/page.html")
    person.driver.execute_script("document.body.innerHTML = '<a href=\"/team/page.html\">Go on</a>'")
    person.click("Go on")
    person.sign_in_at_bitbucket(MARK)
    person.wait_for_address("/team/page.html")
    for _ in range(4):
        person.go_back()
        if person.url == person.host.url("/page.html"):
            break
    assert person.url == person.host.url("/page.html") and person.has_session()
    person.open("/team/page.html")
    assert person.heading == "The test page"


def test_back_after_signing_out_shows_no_form_and_no_session(person, simulator, screenshot):
    person.open("/team/page.html")
    person.sign_in_at_bitbucket(MARK)
    person.wait_for_heading("The test page")
    here = person.driver.current_window_handle
    person.open_tab()
    person.driver.get(simulator.origin + "/account/signout")
    person.click("Sign out")
    person.go_to_tab(here)
    person.click("Sign out")
    person.wait_for_heading("Sign out?")
    person.click("Sign out")
    person.wait_for_heading("You are signed out")
    person.go_back()
    person.wait_for_heading("You are signed out")       # the form with its token is not kept
    screenshot("back-after-signing-out")
    assert not person.has_session()
    person.go_back()
    # What the browser may show from its memory is gone when it is asked for.
    person.driver.refresh()
    person.wait_for_heading("Sign in")
    assert person.url.startswith(simulator.origin) and not person.has_session()
