"""A model that reads and does not write."""


def test_there_is_no_chat_and_no_gauge_without_a_cache(browser):
    browser.open()
    browser.ready()
    browser.until("!document.getElementById('mute').hidden", "the page says so")
    assert "does not generate text (rerank)" in browser.text("#mute")
    assert not browser.find("#ask").is_displayed() and not browser.find("#kv").is_displayed()
    assert browser.complaints() == []
