"""A real headless Chromium for tests of pages; skipped where none is installed."""

import os
import shutil
from contextlib import contextmanager

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER) and not os.environ.get("COLLABLLM_REQUIRE_BROWSER"),
    reason="chromium and chromedriver are not installed",
)
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--window-size=1280,900",
)


def start_browser():
    """Start a browser; its console is in `get_log("browser")`."""
    from selenium import webdriver
    from selenium.common.exceptions import WebDriverException

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in _FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(40)  # under the 120 s of its own connection
    try:
        driver.get("data:text/html,ready")
    except WebDriverException:  # beside heavy tests a new Chromium may hang at its first page
        driver.quit()
        driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        driver.set_page_load_timeout(60)
    return driver


@pytest.fixture(scope="module")
def browser():
    """One browser for the tests of a module."""
    driver = start_browser()
    yield driver
    driver.quit()


@contextmanager
def screen(browser, width, height=844, scheme="light"):
    """Make the screen as large as a phone's, or as dark as at night."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700},
    )
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def wait_for(browser, selector, number=1, seconds=30):
    """Wait until there are as many elements, and return them."""
    from selenium.webdriver.support.ui import WebDriverWait

    def found(driver):
        elements = driver.find_elements("css selector", selector)
        return elements if len(elements) >= number else None

    return WebDriverWait(browser, seconds, poll_frequency=0.05).until(found)


def wait_until(browser, condition, seconds=30):
    """Wait until a JavaScript expression is true."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, seconds, poll_frequency=0.05).until(
        lambda driver: driver.execute_script(f"return {condition}")
    )


def is_dark(browser):
    """Tell whether the page's background is dark."""
    color = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    return sum(map(int, color[color.index("(") + 1 : -1].split(",")[:3])) < 200


SMALLEST_TEXT = """
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let smallest = 99, of = "";
while (walker.nextNode()) {
  const node = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || !node.getClientRects().length) continue;
  if (["SCRIPT", "STYLE"].includes(node.tagName)) continue;
  const size = parseFloat(getComputedStyle(node).fontSize);
  if (size < smallest) { smallest = size; of = node.textContent.slice(0, 60); }
}
return [smallest, of];
"""
