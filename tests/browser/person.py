"""Somebody at a browser: looks, reads and clicks."""

from __future__ import annotations

import os
import shutil
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from harness.config import VirtualHost

SECONDS = 15
# What the browser says on its own of any answer with an error status.
STATUS_REMARK = "Failed to load resource: the server responded with a status of "


def start_chromium(profile: str, blocks_cookies: bool = False) -> Any:
    """Errors: RuntimeError without Debian's chromium and chromium-driver."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver:
        raise RuntimeError("the browser tests need Debian's chromium and chromium-driver")
    options = Options()
    options.binary_location = program
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--window-size=1200,900",
                     "--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP localhost 127.0.0.1",
                     f"--user-data-dir={profile}"):
        options.add_argument(argument)
    if os.getuid() == 0:
        options.add_argument("--no-sandbox")
    options.add_experimental_option("prefs", {
        "profile.cookie_controls_mode": 0, "profile.block_third_party_cookies": False,
        **({"profile.default_content_setting_values.cookies": 2} if blocks_cookies else {})})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.accept_insecure_certs = True
    found = webdriver.Chrome(service=Service(driver), options=options)
    found.set_page_load_timeout(60)
    return found


class Person:
    """foreign is the origin of pages whose faults are not judged: Bitbucket's."""

    def __init__(self, driver: Any, host: VirtualHost, foreign: str) -> None:
        self.driver = driver
        self.host = host
        self._foreign = foreign
        self._console: list[str] = []
        self._seen: set[str] = set()

    # -- the browser

    def start_clean(self) -> None:
        """No cookies, one window of the usual size, an empty page."""
        for handle in self.driver.window_handles[1:]:
            self.driver.switch_to.window(handle)
            self.driver.close()
        self.driver.switch_to.window(self.driver.window_handles[0])
        self.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
        self.driver.execute_cdp_cmd("Network.clearBrowserCache", {})
        self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        self.driver.get("about:blank")
        self.driver.get_log("browser")

    def open(self, path: str) -> None:
        self.driver.get(self.host.url(path))
        self._note()

    def open_at_once(self, paths: list[str]) -> list[str]:
        """A tab for each path, none waiting for another, as when a browser restores its tabs."""
        before = set(self.driver.window_handles)
        made = [self.driver.execute_cdp_cmd("Target.createTarget", {"url": self.host.url(path)})["targetId"] for path in paths]
        WebDriverWait(self.driver, SECONDS).until(lambda driver: set(made) <= set(driver.window_handles) - before)
        return made

    def open_tab(self) -> str:
        self.driver.switch_to.new_window("tab")
        return self.driver.current_window_handle

    def go_to_tab(self, handle: str) -> None:
        self.driver.switch_to.window(handle)

    def hold_a_phone(self) -> None:
        """A narrow screen, as small phones have."""
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                    {"width": 320, "height": 640, "deviceScaleFactor": 2, "mobile": True})

    def _note(self) -> None:
        """Keep what the console says, and which secrets the browser has."""
        for entry in self.driver.get_log("browser"):
            is_ours = not entry["message"].startswith(self._foreign) and STATUS_REMARK not in entry["message"]
            if is_ours and entry["level"] in ("SEVERE", "WARNING"):
                self._console.append(f"{entry['level']} {entry['message']}")
        for cookie in self.driver.execute_cdp_cmd("Network.getAllCookies", {})["cookies"]:
            if "bitbucket_session" in cookie["name"]:
                self._seen.add(cookie["value"])
        for field in self.driver.find_elements(By.CSS_SELECTOR, "input[name=token]"):
            self._seen.add(field.get_attribute("value"))

    # -- reading

    @property
    def url(self) -> str:
        return self.driver.current_url

    @property
    def text(self) -> str:
        return self.driver.find_element(By.TAG_NAME, "body").text

    @property
    def heading(self) -> str:
        return self.driver.find_element(By.TAG_NAME, "h1").text

    def wait_for_heading(self, text: str) -> None:
        WebDriverWait(self.driver, SECONDS).until(
            lambda driver: any(h.text == text for h in driver.find_elements(By.TAG_NAME, "h1")), f"no heading {text!r}")
        self._note()

    def wait_for_address(self, path: str) -> None:
        """At this page of the site, all of it there."""
        url = self.host.url(path)
        WebDriverWait(self.driver, SECONDS).until(
            lambda driver: driver.current_url == url and driver.execute_script("return document.readyState") == "complete",
            f"not at {path}")
        self._note()

    @property
    def reference(self) -> str:
        return self.driver.find_element(By.CSS_SELECTOR, ".reference code").text

    def go_back(self) -> None:
        self.driver.back()
        self._note()

    def scrolls_sideways(self) -> bool:
        return self.driver.execute_script("return document.documentElement.scrollWidth > window.innerWidth")

    def sees(self, element: WebElement) -> bool:
        """Inside of the window from left to right."""
        box = element.rect
        return element.is_displayed() and box["x"] >= 0 and box["x"] + box["width"] <= self.driver.execute_script(
            "return window.innerWidth")

    def actions(self) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, "a, button")

    def has_session(self) -> bool:
        return any(c["name"] == "bitbucket_session" for c in self.driver.get_cookies())

    # -- clicking

    def click(self, label: str) -> None:
        """A link or button whose label begins like this. A form's navigation is waited for."""
        for element in self.actions():
            if element.text.strip().startswith(label):
                before = self.driver.find_element(By.TAG_NAME, "html")
                element.click()
                WebDriverWait(self.driver, SECONDS).until(lambda _: _is_gone(before), f"a click on {label!r} leads nowhere")
                WebDriverWait(self.driver, SECONDS).until(
                    lambda driver: driver.execute_script("return document.readyState") == "complete")
                self._note()
                return
        raise AssertionError(f"no link or button {label!r} in: {self.text}")

    def sign_in_at_bitbucket(self, name: str) -> None:
        """Pick the account with this name, and grant access."""
        self.wait_for_heading("Sign in")
        self.click(name)
        self.wait_for_heading("Confirm access to your account")
        self.click("Grant access")

    # -- judgement

    def console_errors(self) -> list[str]:
        """What the console said so far; then it is forgotten."""
        self._note()
        said, self._console = self._console, []
        return said

    def cookies_seen(self) -> set[str]:
        return self._seen


def _is_gone(element: WebElement) -> bool:
    try:
        element.tag_name
    except Exception:  # noqa: BLE001 - which one it is depends on the moment
        return True
    return False
