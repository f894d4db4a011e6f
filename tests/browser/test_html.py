"""`make html` in the eyes of a browser: each page fits a phone, in the light and in the dark."""

import subprocess

import pytest
from conftest import save_screenshot
from harness.config import module_under_test

WIDTH = 390


@pytest.fixture(scope="module")
def directory():
    build = module_under_test().parents[1]
    done = subprocess.run(["make", "-C", build, "html"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return build / "html"


@pytest.fixture
def phone(chromium):
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                             {"width": WIDTH, "height": 844, "deviceScaleFactor": 1, "mobile": True})
    yield chromium
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    chromium.get("about:blank")


def test_no_page_scrolls_sideways_on_a_phone(phone, directory):
    pages, wide = sorted(directory.rglob("*.html")), []
    for page in pages:
        phone.get(page.as_uri())
        if phone.execute_script("return document.documentElement.scrollWidth") > WIDTH:
            wide.append(page.name)
    assert pages and wide == []


# Red, green and blue of the ground and of the text.
COLOURS = """
const channels = (element, what) => getComputedStyle(element)[what].match(/\\d+/g).slice(0, 3).map(Number);
return [channels(document.body, "backgroundColor"), channels(document.querySelector("main p"), "color")];
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_light_and_dark_as_the_visitor_has_it(phone, directory, scheme):
    phone.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    phone.get((directory / "docs/performance.html").as_uri())
    ground, ink = (sum(colour) for colour in phone.execute_script(COLOURS))
    assert (ground > ink + 300) if scheme == "light" else (ink > ground + 300)
    assert phone.execute_script("return [...document.images].every(image => image.naturalWidth > 0)")
    save_screenshot(phone, f"html-{scheme}")
