"""A server that wants a key: the page comes without one, the data do not."""

import os

from selenium.webdriver.common.keys import Keys


def test_the_key_is_asked_for_kept_in_the_tab_and_used(browser):
    browser.open()
    browser.until("!document.getElementById('door').hidden", "the key is asked for")
    assert not browser.find("#house").is_displayed()
    assert browser.js("return document.activeElement.id") == "key"
    browser.shot("key")

    browser.find("#key").send_keys("sk-wrong" + Keys.ENTER)
    browser.until("document.getElementById('door-why').textContent.includes('not one that this server accepts')", "a wrong key is refused")
    assert browser.js("return sessionStorage.length") == 0

    browser.find("#key").send_keys(os.environ["KEY"] + Keys.ENTER)
    browser.ready()
    assert browser.find("#house").is_displayed() and not browser.find("#door").is_displayed()
    kept = browser.js("return [localStorage.length, document.cookie, ...Object.values(sessionStorage)]")
    assert kept == [0, "", os.environ["KEY"]]
    assert os.environ["KEY"] not in browser.driver.page_source

    browser.js("document.getElementById('settings').open = true")
    browser.find("#most").send_keys("8")
    browser.find("#question").send_keys("Hello" + Keys.ENTER)
    browser.until("document.querySelector('.turn .end') !== null", "the answer ends")
    assert "failed" not in browser.text(".turn .end")
    # The browser writes each 401 into its console; nothing else is there.
    assert all("401" in line for line in browser.complaints())

    browser.driver.refresh()
    browser.ready()
    assert not browser.find("#door").is_displayed()
