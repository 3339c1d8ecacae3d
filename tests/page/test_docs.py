"""The description of the API as a page: complete, within its policy, and usable."""

import json
import urllib.request

from conftest import BASE_URL


def test_every_operation_is_shown_and_opens(browser):
    with urllib.request.urlopen(BASE_URL + "/openapi.json", timeout=30) as answer:
        paths = json.load(answer)["paths"]
    operations = sum("responses" in it for methods in paths.values() for it in methods.values() if isinstance(it, dict))

    browser.open("/docs")
    browser.until(f"document.querySelectorAll('details').length === {operations}", "all operations are shown")
    assert operations > 40
    chat = "[...document.querySelectorAll('details')].find((it) => it.querySelector('.path').textContent === '/v1/chat/completions')"
    assert not browser.js(f"return {chat}.open")
    browser.js(f"{chat}.querySelector('summary').click()")
    assert "max_tokens" in browser.js(f"return {chat}.innerText")
    # The style is let through as well.
    assert browser.js("return getComputedStyle(document.querySelector('.method')).fontWeight") == "600"
    browser.shot("docs")
    assert browser.complaints() == []
