"""Stages of the server's life in which it has no model, and how the page tells them."""

import urllib.request

from conftest import BASE_URL


def go_on():
    urllib.request.urlopen(urllib.request.Request(BASE_URL + "/go-on", method="POST"), timeout=30)


def test_loading_draining_and_failing_are_told(browser):
    browser.open()
    stage = "document.getElementById('stage').textContent"
    bar = "document.getElementById('loading')"
    browser.until(f"{stage} === 'Loading the model'", "loading")
    assert browser.text("#model") == "a-model-that-loads"
    browser.until(f"{bar}.getAttribute('aria-valuenow') === '40'", "40 %")
    assert browser.js("return document.getElementById('send').disabled")
    browser.shot("loading")
    go_on()
    browser.until(f"{bar}.getAttribute('aria-valuenow') === '90'", "90 %")
    go_on()
    browser.until(f"{stage}.startsWith('Shutting down')", "draining")
    assert not browser.find("#loading").is_displayed()
    go_on()
    browser.until(f"{stage}.includes('about to restart')", "failed")
    assert browser.complaints() == []
