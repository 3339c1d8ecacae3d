"""The page as an operator uses it: figures, a conversation, every width, both schemes, the keyboard alone."""

import json
import urllib.request

import pytest
from conftest import BASE_URL
from selenium.webdriver.common.keys import Keys

STORY = "Write a very long story about a river and all the towns that it passes."


def ask(browser, text):
    browser.find("#question").send_keys(text + Keys.ENTER)


def ask_for_a_story(browser):
    """Hundreds of tokens, the same at any time."""
    browser.js("document.getElementById('temperature').value = '0'")
    ask(browser, STORY)


def turns(browser):
    return browser.js("return document.querySelectorAll('.turn').length")


def answer_ended(browser, count):
    browser.until(f"document.querySelectorAll('.turn .end').length === {count}", f"answer {count} ends")
    return browser.js(f"return document.querySelectorAll('.turn .end')[{count - 1}].textContent")


def status():
    with urllib.request.urlopen(BASE_URL + "/status", timeout=30) as answer:
        return json.load(answer)


def post(path, body, **headers):
    request = urllib.request.Request(BASE_URL + path, json.dumps(body).encode(), headers)
    return urllib.request.urlopen(request, timeout=60).read()


@pytest.fixture
def page(browser):
    browser.open()
    browser.ready()
    yield browser
    assert browser.complaints() == []


def test_it_says_what_is_served_and_where_it_lies(page):
    now = status()
    assert page.text("#model") == now["model"]
    assert page.text("#stage") == "Ready"
    assert now["serving"]["system_fingerprint"] in page.text("#identity")
    assert page.text("#sequences") == "of 2"
    assert page.text("#kv .amount").endswith("of 4\u202f096 tokens")
    placement = page.text("#plan")
    assert "host" in placement and "30 layers, 0–29, output" in placement and "KV cache" in placement
    assert page.js("return document.querySelectorAll('.layers span').length") == 31
    widths = page.js("return [...document.querySelectorAll('.stack span')].map((it) => it.offsetWidth)")
    assert sum(widths) > 300


def test_requests_are_listed_with_their_ids_and_never_with_what_they_say(page):
    secret = "zebra-crossing-7421"
    messages = [{"role": "user", "content": f"Repeat: {secret}"}]
    post("/v1/chat/completions", {"messages": messages, "max_tokens": 8}, **{"x-request-id": "asked-by-the-test"})
    with pytest.raises(urllib.error.HTTPError):
        post("/v1/chat/completions", {"messages": []}, **{"x-request-id": "refused-by-the-server"})
    page.until("document.querySelector('#recent tbody').textContent.includes('refused-by-the-server')", "both are listed")
    rows = page.js("return [...document.querySelectorAll('#recent tbody tr')].map((row) => row.innerText)")
    [asked] = [row for row in rows if "asked-by-the-test" in row]
    assert "/v1/chat/completions" in asked and "length" in asked and "→ 8" in asked
    [refused] = [row for row in rows if "refused-by-the-server" in row]
    assert "400" in refused
    assert secret not in page.js("return document.documentElement.textContent")
    assert secret not in json.dumps(status())


def test_an_answer_comes_token_by_token_and_figures_follow(page):
    # A page that saw the whole answer at once would have one change.
    page.js(
        """window.lengths = new Set();
        new MutationObserver(() => lengths.add(document.querySelector('.turn.assistant .prose')?.textContent.length ?? 0))
          .observe(document.getElementById('talk'), {childList: true, subtree: true, characterData: true});"""
    )
    ask_for_a_story(page)
    page.until("document.getElementById('running').textContent === '1'", "the figures show the running request")
    assert page.find("#stop").is_displayed() and not page.find("#send").is_displayed()
    page.until("parseFloat(document.getElementById('generated').textContent) > 0", "tokens per second are shown")
    page.until("lengths.size > 8", "the answer grows")
    page.shot("streaming")
    page.find("#stop").click()
    answer_ended(page, 1)


def test_an_answer_is_stopped_in_the_middle_and_the_next_one_is_whole(page):
    before = status()["recent"]
    ask_for_a_story(page)
    page.until("(document.querySelector('.turn.assistant .prose')?.textContent.length ?? 0) > 20", "it begins")
    page.find("#stop").click()
    assert answer_ended(page, 1).startswith("stopped")
    said = page.text(".turn.assistant .prose")
    # The server stops with the page: the sequence is free and the request is told as hung up.
    page.until(lambda: status()["serving"]["running"] == 0, "the server lets it go")
    latest = page.until(lambda: [it for it in status()["recent"] if it not in before and it["outcome"] == "hung_up"], "it is listed")
    assert latest[0]["completion_tokens"] < 1000
    assert page.text(".turn.assistant .prose") == said
    # The focus did not fall off the page with the button.
    assert page.js("return document.activeElement.id") == "question"

    page.js("document.getElementById('settings').open = true")
    page.find("#most").send_keys("12")
    ask(page, "Say hello.")
    end = answer_ended(page, 2)
    assert "12 tokens" in end or "tokens/s" in end
    assert "req_" in end
    # What was said before is part of the conversation.
    assert status()["recent"][0]["prompt_tokens"] > 40
    page.find("#anew").click()
    assert turns(page) == 0 and page.find("#empty").is_displayed()


def test_escape_stops(page):
    ask_for_a_story(page)
    page.until("document.querySelector('.turn.assistant .prose')?.textContent.length > 0", "it begins")
    page.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert answer_ended(page, 1).startswith("stopped")


def test_what_is_refused_is_said_and_the_page_goes_on(page):
    # Typing that much takes minutes.
    page.js("document.getElementById('question').value = 'word '.repeat(4000)")
    page.find("#send").click()
    assert "maximum context length" in answer_ended(page, 1)
    page.js("document.getElementById('settings').open = true")
    page.find("#most").send_keys("4")
    ask(page, "Say hello.")
    assert "4 tokens" in answer_ended(page, 2)
    # The browser itself writes the status 400 into its console.
    [line] = page.complaints()
    assert "400" in line


def test_text_never_becomes_markup(page):
    attack = "<img src=x onerror=alert(1)><b>bold</b>"
    page.js("document.getElementById('settings').open = true")
    page.find("#most").send_keys("1")
    # Newlines would send: the text is put in as a paste would.
    page.js(
        "document.getElementById('question').value = arguments[0]",
        f"{attack}\n\n```html\n{attack}\n```\nand `code`",
    )
    page.find("#send").click()
    answer_ended(page, 1)
    own = ".turn.user .prose"
    assert page.js(f"return document.querySelectorAll('{own} img, {own} b').length") == 0
    assert page.text(f"{own} p") == attack
    assert page.text(f"{own} pre code") == attack
    assert page.text(f"{own} p code") == "code"
    # The policy itself would not let it through.
    with pytest.raises(Exception, match="TrustedHTML"):
        page.js("document.body.innerHTML = '<p>no</p>'")
    assert any("TrustedHTML" in line or "require-trusted-types-for" in line for line in page.complaints())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_it_fits_every_width_and_can_be_read(page, width, scheme):
    page.scheme(scheme)
    page.size(width, 800)
    page.js("document.getElementById('settings').open = true")
    page.find("#most").send_keys("24")
    page.js("document.getElementById('settings').open = false")
    ask(page, "x" * 400 + " Write a line of Python in a code block.")
    answer_ended(page, 1)
    page.until("!document.getElementById('recent').hidden", "the request is listed")
    scroll, inner = page.js("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert scroll <= inner
    wide = """return [...document.querySelectorAll('body *')].filter((it) => it.getBoundingClientRect().right > innerWidth + 1
        && !it.closest('pre, .unseen, .skip, svg')).map((it) => it.outerHTML.slice(0, 80))"""
    assert page.js(wide) == []
    assert page.js(CONTRAST) == []
    ground = page.js("return getComputedStyle(document.body).backgroundColor").removeprefix("rgb(").split(",")[0]
    assert (int(ground) > 200) == (scheme == "light")
    page.size(width, 800 if width > 980 else page.js("return document.documentElement.scrollHeight"))
    page.shot(f"{width}-{scheme}")


# Texts whose contrast is below 4.5, with the nearest ground that is painted behind them.
CONTRAST = """
const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
const light = (colour) => {
  const [r, g, b] = numbers(colour).slice(0, 3).map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (it) => {
  for (; it; it = it.parentElement) {
    const colour = getComputedStyle(it).backgroundColor;
    if ((numbers(colour)[3] ?? 1) > 0.5) return colour;
  }
};
const found = [];
for (const it of document.querySelectorAll('body *')) {
  const own = [...it.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || !it.checkVisibility() || it.matches(':disabled, script')) continue;
  const [a, b] = [light(getComputedStyle(it).color), light(ground(it))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${it.outerHTML.slice(0, 90)}`);
}
return found;
"""


def test_everything_has_a_name_for_a_screen_reader(page):
    post("/v1/completions", {"prompt": "a", "max_tokens": 1})
    page.until("!document.getElementById('recent').hidden", "a request is listed")
    tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    shown = [node for node in tree if not node.get("ignored")]

    def of(*roles):
        return [node for node in shown if node["role"]["value"] in roles]

    named = of("button", "textbox", "spinbutton", "meter", "progressbar", "link", "heading", "table", "log", "region", "form", "columnheader")
    assert len(named) > 15
    nameless = [node for node in named if not node.get("name", {}).get("value")]
    assert [(node["role"], node["backendDOMNodeId"]) for node in nameless] == []
    assert len(of("main")) == 1 and len(of("banner")) == 1
    levels = [next(p["value"]["value"] for p in node["properties"] if p["name"] == "level") for node in of("heading")]
    assert levels[0] == 1 and set(levels[1:]) == {2}
    # Only these speak by themselves: the stage, failures, and that an answer begins and ends.
    live = page.js("return [...document.querySelectorAll('[aria-live]:not([aria-live=off]), [role=status], [role=alert]')].map((it) => it.id)")
    assert live == ["stage", "notice", "said"]
    ids = page.js("return [...document.querySelectorAll('[id]')].map((it) => it.id)")
    assert len(ids) == len(set(ids))
    refers = page.js(
        """return [...document.querySelectorAll('[for],[aria-labelledby],[aria-describedby],[aria-controls]')].flatMap((it) =>
        [it.htmlFor, it.getAttribute('aria-labelledby'), it.getAttribute('aria-describedby'), it.getAttribute('aria-controls')].filter(Boolean))"""
    )
    assert set(refers) <= set(ids)


def test_the_keyboard_alone_reaches_and_does_everything(page):
    page.js("document.activeElement.blur()")
    reached = []
    for _ in range(30):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        at = page.js("const it = document.activeElement; return it.id || it.className || it.tagName")
        if at in reached or at == "BODY":
            break
        reached.append(at)
        outline = page.js("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", f"the focus on {at} cannot be seen"
    # Which there is once the table is long.
    reached = [it for it in reached if it != "more"]
    assert reached == ["skip", "talk", "question", "SUMMARY", "send"]
    # The skip link leads to the chat, from where one can ask, stop and begin anew without a mouse.
    page.find(".skip").send_keys(Keys.ENTER)
    assert page.js("return document.activeElement.id") == "question"
    page.js("document.getElementById('temperature').value = '0'")
    page.driver.switch_to.active_element.send_keys(STORY + Keys.ENTER)
    page.until("document.querySelector('.turn.assistant .prose')?.textContent.length > 0", "it begins")
    page.driver.switch_to.active_element.send_keys(Keys.TAB, Keys.TAB)
    page.until("document.activeElement.id === 'stop'", "the focus is on the button that stops")
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert answer_ended(page, 1).startswith("stopped")
    page.find("#anew").send_keys(Keys.ENTER)
    assert turns(page) == 0


def test_nothing_is_stored_where_no_key_is_wanted(page):
    assert page.js("return [localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]


def test_a_page_that_nobody_sees_asks_nothing(page):
    other = page.driver.current_window_handle
    page.driver.switch_to.new_window("tab")
    hidden = page.driver.current_window_handle
    page.driver.switch_to.window(other)
    page.js("window.asked = 0; const ask = window.fetch; window.fetch = (...all) => { window.asked += 1; return ask(...all); }")
    page.until("window.asked > 1", "a page that is seen asks")
    page.js("Object.defineProperty(document, 'hidden', {value: true, configurable: true}); document.dispatchEvent(new Event('visibilitychange'))")
    # One question may be on its way.
    page.until("window.asked", "asked")
    count = page.driver.execute_async_script("const done = arguments[0]; setTimeout(() => { window.before = window.asked; setTimeout(() => done(window.asked - window.before), 2500) }, 1500)")
    assert count == 0
    page.js("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    page.until("window.asked > window.before", "it asks again once it is seen")
    page.driver.switch_to.window(hidden)
    page.driver.close()
    page.driver.switch_to.window(other)
