"""A headless Chromium in front of the server that tests/page.rs started."""

import os
import shutil
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

BASE_URL = os.environ["BASE_URL"]
SHOTS = Path(os.environ["SHOTS"])
PATIENCE_S = 60

# Errors of the console come from the driver; what the policy refuses is heard here, before the page's own script.
LISTEN = """
window.refused = [];
addEventListener("securitypolicyviolation", (event) => refused.push(`${event.violatedDirective}: ${event.blockedURI}`));
addEventListener("unhandledrejection", (event) => refused.push(`rejection: ${event.reason}`));
"""


class Browser:
    """The driver, with the few things that tests do."""

    def __init__(self, driver):
        self.driver = driver
        self.size(1280, 900)
        self.scheme("light")

    def size(self, width, height):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def scheme(self, name):
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def open(self, path="/"):
        self.driver.get(BASE_URL + path)

    def js(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def text(self, selector):
        return self.js("return document.querySelector(arguments[0])?.textContent", selector)

    def until(self, condition, what):
        """Waits for `condition`, a JavaScript expression or a function; its value."""
        ask = condition if callable(condition) else lambda: self.js(f"return {condition}")
        return WebDriverWait(self.driver, PATIENCE_S, poll_frequency=0.05).until(lambda _: ask(), what)

    def ready(self):
        self.until("document.getElementById('stage').dataset.stage === 'ready'", "the page shows that the model is ready")
        self.until("document.getElementById('identity').textContent.includes('fp_')", "the page shows the fingerprint")

    def shot(self, name):
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(SHOTS / f"{name}.png"))

    def complaints(self):
        """Errors and warnings of the console since the last call, and what the policy refused."""
        logged = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
        return logged + self.js("return window.refused.splice(0)")


@pytest.fixture(scope="module")
def driver():
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or pytest.fail("no chromium: run make tools")
    driver_path = shutil.which("chromedriver") or pytest.fail("no chromedriver: run make tools")
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server", "--lang=en"):
        options.add_argument(argument)
    # Its sandbox does not work for root.
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver_path))
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": LISTEN})
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def browser(driver):
    """One browser for a file, as if it were new for each test: Chromium takes seconds to start."""
    yield Browser(driver)
    # Whatever still runs ends with its page.
    driver.get("about:blank")
    driver.get_log("browser")
