"""A stream of reasoning: folded, timed, and apart from what is answered."""

from selenium.webdriver.common.keys import Keys


def test_reasoning_streams_into_a_fold_that_can_be_opened(browser):
    browser.open()
    browser.ready()
    browser.js("document.getElementById('settings').open = true")
    browser.find("#most").send_keys("80")
    browser.find("#temperature").send_keys("0")
    browser.find("#question").send_keys("Explain how rain comes about, step by step." + Keys.ENTER)
    browser.until("document.querySelector('.reasoning') !== null", "reasoning begins")
    assert browser.js("return document.querySelector('.reasoning').open") is False
    assert browser.text(".reasoning summary") == "Reasoning …"
    browser.until("document.querySelector('.turn .end') !== null", "the answer ends")
    assert browser.text(".reasoning summary").startswith("Reasoned for ")
    assert browser.text(".turn.assistant > .prose") == ""
    assert not browser.find(".reasoning .prose").is_displayed()
    browser.find(".reasoning summary").send_keys(Keys.ENTER)
    assert len(browser.find(".reasoning .prose").text) > 20
    browser.shot("reasoning")
    assert browser.complaints() == []
