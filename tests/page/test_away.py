"""The server is killed under the page and started again at the same address."""

import os
import signal
import subprocess
import urllib.parse

from conftest import BASE_URL


def test_it_says_that_nobody_answers_and_goes_on_with_the_next_process(browser):
    browser.open()
    browser.ready()
    browser.js("window.same = true")
    os.kill(int(os.environ["PID"]), signal.SIGKILL)
    browser.until("!document.getElementById('notice').hidden", "the page says so")
    assert "does not answer" in browser.text("#notice")
    assert browser.text("#stage") == "No answer"
    assert browser.js("return document.getElementById('send').disabled")
    # What was known stays to be read.
    assert browser.find("#placement").is_displayed()
    browser.shot("away")

    address = urllib.parse.urlsplit(BASE_URL).netloc
    settings = [f'listen = "{address}"', "engine = {context = 256, parallel = 3}"]
    overrides = [word for setting in settings for word in ("--set", setting)]
    server = subprocess.Popen([os.environ["BINARY"], "serve", *overrides], stderr=subprocess.DEVNULL)
    try:
        browser.until("document.getElementById('sequences').textContent === 'of 3'", "the page shows the next process")
        browser.ready()
        assert browser.find("#notice").is_displayed() is False
        assert "256 tokens × 3" in browser.until("document.getElementById('plan').textContent", "placement")
        browser.until("!document.getElementById('send').disabled", "it can be talked to again")
        assert browser.js("return window.same"), "without loading the page anew"
    finally:
        server.terminate()
        server.wait(60)
