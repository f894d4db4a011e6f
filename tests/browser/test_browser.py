"""The whole way in a real browser: by clicking, as people do."""

from __future__ import annotations

import time

import pytest
from selenium.webdriver.support.ui import WebDriverWait

from harness.simulator import WORLD
from harness.waiting import eventually
from person import SECONDS

MARK, OLIVIA, OSCAR, ZOE = (WORLD["accounts"][name]["display_name"] for name in ("mark", "olivia", "oscar", "zoe"))


def test_signing_in_by_clicking(person, screenshot):
    person.open("/team/page.html")
    screenshot("bitbucket-sign-in")
    person.sign_in_at_bitbucket(MARK)
    person.wait_for_heading("The test page")
    assert person.url == person.host.url("/team/page.html")
    assert person.has_session()


def test_a_deep_link_with_a_query(person):
    path = "/team/page.html?q=a%20b&x=%C3%A9%2F&plus=1+1&u=https://elsewhere.example/"
    person.open(path)
    person.sign_in_at_bitbucket(MARK)
    person.wait_for_heading("The test page")
    assert person.url == person.host.url(path)


def test_scripts_of_the_page_see_no_cookie(person):
    person.open("/team/page.html")
    person.sign_in_at_bitbucket(MARK)
    person.wait_for_heading("The test page")
    assert person.driver.execute_script("return document.cookie") == ""


def test_the_second_time_nobody_is_asked(person):
    """Bitbucket still knows the browser."""
    person.open("/team/page.html")
    person.sign_in_at_bitbucket(MARK)
    person.wait_for_heading("The test page")
    person.driver.delete_all_cookies()      # those of the site
    assert not person.has_session()
    person.open("/team/page.html")
    person.wait_for_heading("The test page")
    assert person.url == person.host.url("/team/page.html")


def test_the_refusal_and_its_buttons(person, simulator, screenshot):
    person.open("/owners/page.html?q=1")
    person.sign_in_at_bitbucket(MARK)
    person.wait_for_heading("You may not see this page")
    screenshot("refusal")
    assert MARK in person.text and "owner of acme" in person.text and "Reference" in person.text
    assert person.text.splitlines()[0] == "Test site"
    person.click("Check again")
    assert person.heading == "You may not see this page"
    person.click("Sign in as somebody else")
    assert person.url.startswith(simulator.origin) or person.heading == "You may not see this page"


def test_somebody_else_after_a_refusal(person, simulator):
    person.open("/owners/page.html")
    person.sign_in_at_bitbucket(MARK)
    person.wait_for_heading("You may not see this page")
    person.driver.get(simulator.origin + "/account/signout")
    person.click("Sign out")
    person.open("/owners/page.html")
    person.click("Sign in as somebody else")
    person.sign_in_at_bitbucket(OLIVIA)
    person.wait_for_heading("The test page")
    assert person.url == person.host.url("/owners/page.html")


def test_access_just_given(person, simulator):
    """A refusal is checked again after 15 seconds."""
    person.open("/globex/page.html")
    person.sign_in_at_bitbucket(MARK)
    person.wait_for_heading("You may not see this page")
    simulator.set_membership("globex", "mark", "member")
    time.sleep(15.5)
    person.click("Check again")
    assert person.heading == "The test page"


def test_cancelling_at_bitbucket(person, screenshot):
    person.open("/team/page.html")
    person.wait_for_heading("Sign in")
    person.click(MARK)
    person.wait_for_heading("Confirm access to your account")
    person.click("Cancel")
    screenshot("cancelled")
    assert person.url.startswith(person.host.origin) and not person.has_session()
    person.click("Try again")
    person.wait_for_heading("Confirm access to your account")
    person.click("Grant access")
    person.wait_for_heading("The test page")


def test_signing_out_by_clicking(person, screenshot):
    person.open("/team/page.html")
    person.sign_in_at_bitbucket(MARK)
    person.wait_for_heading("The test page")
    person.click("Sign out")
    person.wait_for_heading("Sign out?")
    screenshot("sign-out")
    person.click("Stay signed in")
    assert person.has_session()
    person.open("/bitbucket/logout?return=/team/page.html")
    person.click("Sign out")
    person.wait_for_heading("You are signed out")
    screenshot("signed-out")
    assert "Bitbucket" in person.text and not person.has_session()
    person.click("Sign in again")
    person.wait_for_heading("The test page")


def test_back_after_signing_out(person):
    """The pages of the module are not kept; the session is gone whatever is shown."""
    person.open("/team/page.html")
    person.sign_in_at_bitbucket(MARK)
    person.wait_for_heading("The test page")
    person.click("Sign out")
    person.click("Sign out")
    person.wait_for_heading("You are signed out")
    person.driver.back()
    time.sleep(0.5)
    assert not person.has_session()


def test_two_tabs_at_once(person):
    """Both ask before either is signed in; both arrive where they wanted to."""
    first = person.driver.current_window_handle
    person.open("/team/page.html?tab=1")
    person.wait_for_heading("Sign in")
    second = person.open_tab()
    person.open("/any/page.html?tab=2")
    person.sign_in_at_bitbucket(MARK)
    person.wait_for_heading("The test page")
    assert person.url == person.host.url("/any/page.html?tab=2")
    person.go_to_tab(first)
    person.click(MARK)
    person.wait_for_heading("The test page")
    assert person.url == person.host.url("/team/page.html?tab=1")
    person.go_to_tab(second)
    person.open("/team/page.html")
    assert person.heading == "The test page"


def test_a_reloaded_callback(person):
    """Back and forward over the sign-in lead to the page again."""
    person.open("/team/page.html")
    person.sign_in_at_bitbucket(MARK)
    person.wait_for_heading("The test page")
    person.driver.back()
    person.driver.forward()
    person.wait_for_heading("The test page")
    assert person.has_session()


def test_a_script_of_the_page_is_told_401(person):
    """fetch() of somebody signed out: a status to act on, no redirect to another origin."""
    person.open("/any/page.html")
    person.sign_in_at_bitbucket(MARK)
    person.wait_for_heading("The test page")
    fetch = """const done = arguments[arguments.length - 1];
        fetch('/any/data.txt', {redirect: 'manual', cache: 'no-store'}).then(a => done(a.status), e => done(String(e)));"""
    assert person.driver.execute_async_script(fetch) == 200
    person.driver.delete_all_cookies()
    assert person.driver.execute_async_script(fetch) == 401
    assert not any("ticket" in cookie["name"] for cookie in person.driver.get_cookies())


def test_a_frame_is_not_sent_to_bitbucket(person):
    """It does not show itself in frames; a frame gets 401 and no ticket."""
    person.open("/page.html")
    person.driver.execute_script("""const frame = document.createElement('iframe');
        frame.src = '/any/page.html'; document.body.append(frame);""")

    def link_in_the_frame(driver):
        driver.switch_to.default_content()
        driver.switch_to.frame(driver.find_element("tag name", "iframe"))
        return driver.find_element("link text", "Sign in")
    link = WebDriverWait(person.driver, SECONDS).until(link_in_the_frame)
    assert "Please sign in" in person.text and link.get_attribute("target") == "_blank"
    person.driver.switch_to.default_content()
    assert not any("ticket" in cookie["name"] for cookie in person.driver.get_cookies())


def test_the_console_is_heard(person):
    """What must fail does fail: script errors and violations of a page's policy."""
    person.open("/page.html")
    person.driver.execute_script("console.error('a script complains')")
    person.driver.execute_script("setTimeout(() => { throw new Error('a script fails'); }, 0)")
    said = []
    eventually(lambda: said.extend(person.console_errors()) or len(said) >= 2)
    assert len(said) == 2
    person.open("/bitbucket/logout")
    person.driver.execute_script("const i = new Image(); i.src = '/page.html'; document.body.append(i);")
    eventually(lambda: any("Content Security Policy" in text for text in person.console_errors()))


def test_names_beyond_ascii(person, screenshot):
    person.open("/owners/page.html")
    person.sign_in_at_bitbucket(ZOE.split("<")[0].strip())
    person.wait_for_heading("You may not see this page")
    screenshot("refusal-zoe")
    assert ZOE in person.text


# -- every page of the module, on a screen as narrow as small phones have

def pages(person, simulator):
    """Lead to one page after the other, and name it."""
    person.open("/bitbucket/callback")
    yield "incomplete address"
    person.open("/owners/page.html?" + "long=" + "a" * 300)
    person.sign_in_at_bitbucket(MARK)
    person.wait_for_heading("You may not see this page")
    yield "refusal"
    person.open("/bitbucket/logout")
    yield "sign out?"
    person.click("Sign out")
    yield "signed out"


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone(person, simulator, screenshot, dark):
    person.hold_a_phone()
    person.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [
        {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]})
    for name in pages(person, simulator):
        screenshot(f"phone-{'dark' if dark else 'light'}-{name.replace(' ', '-').rstrip('?')}")
        assert not person.scrolls_sideways(), name
        assert person.driver.execute_script("return document.compatMode") == "CSS1Compat", name
        for element in person.actions():
            assert person.sees(element), f"{name}: {element.text}"
            assert element.rect["height"] >= 32, f"{name}: {element.text} is too small to touch"
        style = "return getComputedStyle(document.querySelector('main')).borderTopLeftRadius"
        assert person.driver.execute_script(style) != "0px", f"{name}: the style is not applied"
    person.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_by_keyboard_alone(person):
    """The first action of the refusal page is reached by the tab key."""
    from selenium.webdriver.common.keys import Keys
    person.open("/owners/page.html")
    person.sign_in_at_bitbucket(MARK)
    person.wait_for_heading("You may not see this page")
    person.driver.switch_to.active_element.send_keys(Keys.TAB)
    focused = person.driver.switch_to.active_element
    assert focused.text == "Check again"
    assert person.driver.execute_script("return getComputedStyle(arguments[0]).outlineStyle", focused) != "none"
