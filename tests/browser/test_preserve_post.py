"""AuthBitbucketPreservePost in a real browser: what it sends the second time is what it sent the first."""

from __future__ import annotations

import re

import pytest
from selenium.webdriver.common.by import By

from harness.config import VirtualHost, place
from harness.fixtures import lasting
from harness.server import Server
from harness.simulator import WORLD

MARK = WORLD["accounts"]["mark"]["display_name"]
# Applications often allow their forms to go to themselves only.
POLICY = "Header set Content-Security-Policy \"form-action 'self'\""
SAVE_CGI = """#!/bin/sh
printf 'Content-Type: text/html\\r\\n\\r\\n'
printf '<!DOCTYPE html><meta name=viewport content="width=device-width"><link rel=icon href="data:,"><title>Saved</title>'
printf '<h1>Saved</h1><pre id=type>%s</pre><pre id=from>%s</pre><pre id=body>' "$CONTENT_TYPE" "$HTTP_ORIGIN"
od -An -v -tx1
printf '</pre>'
"""
EDIT = """<!DOCTYPE html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<link rel=icon href="data:,"><title>Edit</title><h1>Edit the page</h1>
<form method=post action="/forms/save.cgi?page=Z%C3%BCrich&amp;section=2">
<input name=title><textarea name=text></textarea><input type=hidden name=csrf value="abc+/=">
<input type=checkbox name=tag value=a checked><input type=checkbox name=tag value=b checked>
<button name=action value=save>Save</button></form></html>
"""
# Whatever a form can hold: fields are made by a script, so nothing is lost in writing this page.
ODD = """<!DOCTYPE html><html lang=en><meta charset=%(page)s><link rel=icon href="data:,"><title>Odd</title><h1>Odd</h1>
<form method=post action=save.cgi enctype="%(type)s"><button>Save</button></form>
<script>
const form = document.forms[0];
const texts = ['', ' ', '\\r\\n', '\\n\\nx\\n', '\\t', '"\\'<>&', '&amp;&#38;&#x26;', '</textarea></form><script>', '+%%2B%%', 'a=b&c=d',
    '\\u0001\\u0008\\u000b\\u000c\\u001f\\u007f', '\\u0080\\u0085\\u009f', '\\u00e9', '\\ufeff\\ufffe\\uffff\\u2028\\u202e', '\\u{1f600}\\u20ac'];
function add(name, value) {
    const field = document.createElement('textarea');
    field.name = name; field.hidden = true; field.value = value;
    form.append(field);
}
for (const text of texts) { add('value', text); if (text) add(text, 'name'); }
add('_charset_', 'iso-8859-15'); add('_CHARSET_', ''); add('isindex', '1'); add('submit', '1'); add('action', '1');
for (let n = 0; n < 300; ++n) add('many' + n %% 7, String(n));
const file = document.createElement('input');
file.type = 'file'; file.name = 'file';
form.append(file);
</script></html>
"""
TYPES = {"urlencoded": "application/x-www-form-urlencoded", "multipart": "multipart/form-data"}


@pytest.fixture(scope="module")
def host(shared_simulator):
    host = VirtualHost(place("forms", "AuthBitbucketPreservePost On", "Require bitbucket-workspace acme", POLICY))
    server = Server([host], shared_simulator, "event")
    for name, text in {"save.cgi": SAVE_CGI, "edit.html": EDIT}.items():
        (server.content / name).write_text(text)
    for page in ("utf-8", "windows-1252"):
        for kind, content_type in TYPES.items():
            (server.content / f"odd-{kind}-{page}.html").write_text(ODD % {"page": page, "type": content_type})
    (server.content / "save.cgi").chmod(0o755)
    with lasting(server):
        yield host


def sign_in(person, path):
    person.open(path)
    if person.heading == "Sign in":
        person.sign_in_at_bitbucket(MARK)


def end_session(person):
    person.driver.delete_cookie("bitbucket_session")
    assert not person.has_session()


def read(person, name):
    return person.driver.find_element(By.ID, name).text


def body(person) -> bytes:
    """What arrived; a boundary, which is drawn by lot, is written B."""
    received = bytes.fromhex(read(person, "body"))
    boundary = re.search("boundary=(.*)", read(person, "type"))
    return received.replace(boundary.group(1).encode(), b"B") if boundary else received


def fill_in(person):
    person.driver.find_element(By.NAME, "title").send_keys("Grüße & <more>")
    person.driver.find_element(By.NAME, "text").send_keys("one\n\ntwo \"three\"\n")


FILLED_IN = (b"title=Gr%C3%BC%C3%9Fe+%26+%3Cmore%3E&text=one%0D%0A%0D%0Atwo+%22three%22%0D%0A&csrf=abc%2B%2F%3D"
             b"&tag=a&tag=b&action=save")


def set_colours(person, scheme):
    person.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})


def look(person, screenshot, name):
    """On a phone, light and dark."""
    person.hold_a_phone()
    for scheme in ("light", "dark"):
        set_colours(person, scheme)
        assert not person.scrolls_sideways()
        assert all(person.sees(element) for element in person.actions())
        screenshot(f"{name}-{scheme}")
    set_colours(person, "")
    person.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_form_survives_the_sign_in(person, host, screenshot):
    sign_in(person, "/forms/edit.html")
    fill_in(person)
    end_session(person)
    person.click("Save")
    person.wait_for_heading("Sign in to send your form")
    look(person, screenshot, "form-sign-in")
    person.click("Sign in")
    person.wait_for_heading("Your form is still here")
    assert "/forms/save.cgi?page=Z%C3%BCrich&section=2" in person.text and "6 fields" in person.text
    look(person, screenshot, "form-offered")
    person.click("Send it now")
    person.wait_for_heading("Saved")
    assert body(person) == FILLED_IN
    assert person.url == host.url("/forms/save.cgi?page=Z%C3%BCrich&section=2")
    assert read(person, "from") == host.origin, "applications look at Origin"
    person.open("/bitbucket/kept-form")
    assert person.heading == "No form is kept here"
    look(person, screenshot, "form-absent")


def test_discarding_it(person, screenshot):
    sign_in(person, "/forms/edit.html")
    fill_in(person)
    end_session(person)
    person.click("Save")
    person.wait_for_heading("Sign in to send your form")
    person.click("Discard it")
    person.wait_for_heading("The form is discarded")
    person.click("Continue")
    person.wait_for_heading("Edit the page")


@pytest.mark.parametrize("page", ["utf-8", "windows-1252"])
@pytest.mark.parametrize("kind", TYPES)
def test_every_byte_arrives(person, kind, page):
    """The same form, once with a session and once without: what arrives is the same."""
    address = f"/forms/odd-{kind}-{page}.html"
    sign_in(person, address)
    person.click("Save")
    person.wait_for_heading("Saved")
    expected, expected_type = body(person), read(person, "type").split(";")[0]
    assert len(expected) > 3000 and expected.count(b"many") == 300
    person.open(address)
    end_session(person)
    person.click("Save")
    person.wait_for_heading("Sign in to send your form")
    person.click("Sign in")
    person.wait_for_heading("Your form is still here")
    person.click("Send it now")
    person.wait_for_heading("Saved")
    assert body(person) == expected
    assert read(person, "type").split(";")[0] == expected_type


def test_a_stranger_signs_in_beside_it_and_reloads(person, screenshot):
    """What the page of the 401 advises: the browser itself still has the form."""
    sign_in(person, "/forms/edit.html")
    fill_in(person)
    first = person.driver.current_window_handle
    person.driver.delete_all_cookies()
    person.click("Save")
    person.wait_for_heading("Your form was not sent")
    look(person, screenshot, "form-not-kept")
    person.driver.find_element(By.LINK_TEXT, "Sign in").click()
    person.go_to_tab(next(handle for handle in person.driver.window_handles if handle != first))
    person.wait_for_heading("Edit the page")
    person.go_to_tab(first)
    person.driver.refresh()
    person.wait_for_heading("Saved")
    assert body(person) == FILLED_IN
