"""The chat page, in a browser, as a person uses it; wide and on a phone, light and dark."""

import base64
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from edge.serve import page
from tests.serve.conftest import HTTP, serving
from tests.serve.test_api import PNG
from tests.tiny_bundle import IMAGE, tiny_bundle

CHROMIUM = shutil.which("chromium")
rig = [
    pytest.mark.rig,
    pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed: `make rigs` installs it"),
]
PHONE = {"viewport": {"width": 360, "height": 640}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}
TOKEN = "0123456789abcdef"


def test_the_page_needs_nothing_else_and_may_do_nothing_else(client):
    found = client.get("/")
    policy = found.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert found.headers["x-content-type-options"] == "nosniff"
    assert "http://" not in found.text
    assert "https://" not in found.text
    assert "innerHTML" not in found.text
    assert found.text.count("<script") == found.text.count("</script>") == 1


def test_the_parts_of_the_page_are_where_they_belong():
    for mark in ("/* page.css */", "/* page.js */"):
        assert mark not in page.html()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        made = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "tiny"
    tiny_bundle(folder, image=IMAGE)
    with serving(folder) as running:
        yield running


@pytest.fixture
def opened(browser, request):
    """Open the page of a server; whatever the page itself complains of fails the test."""
    contexts, complaints = [], []

    def open_page(url, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        made = context.new_page()
        made.on("pageerror", lambda err: complaints.append(str(err)))
        made.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        made.goto(url)
        return made

    open_page.complaints = complaints
    yield open_page
    if folder := os.environ.get("EDGE_SCREENSHOTS"):
        for i, context in enumerate(contexts):
            for one in context.pages:
                one.screenshot(path=str(Path(folder) / f"{request.node.name}-{i}.png"))
    for context in contexts:
        context.close()
    assert complaints == []


def say(tab, text):
    tab.get_by_label("Message", exact=True).fill(text)
    tab.get_by_role("button", name="Send", exact=True).click()


def until(tab, true):
    """Wait for an expression to be true. (Playwright's own way needs `eval`, which the page's policy forbids.)"""
    end_s = time.monotonic() + 20
    while not tab.evaluate(true):
        assert time.monotonic() < end_s, true
        time.sleep(0.02)


def said(tab):
    until(tab, "!document.querySelector('.busy') && !document.getElementById('log').ariaBusy")
    return [a.inner_text() for a in tab.locator("article.assistant").all()]


@pytest.mark.parametrize("options", [{}, {"color_scheme": "dark"}, PHONE, {**PHONE, "color_scheme": "dark"}])
@pytest.mark.usefixtures("browser")
class TestInABrowser:
    pytestmark = rig

    def test_a_conversation_streams_and_is_kept(self, opened, server, options):
        tab = opened(server.url, **options)
        say(tab, "Hello <b>there</b> `code` & **strong**\n```\nx = 1\n```\nafter")
        [answer] = said(tab)
        assert "Hello <b>there</b> code & strong" in answer
        assert tab.locator("article.assistant pre").inner_text() == "x = 1"
        assert tab.locator("article b").count() == 0
        say(tab, "And again")
        assert said(tab)[1].endswith("And again")
        tab.reload()
        assert len(said(tab)) == 2
        # Nothing is wider than the screen.
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.usefixtures("browser")
class TestWhatCanGoWrong:
    pytestmark = rig

    def test_new_chat_forgets(self, opened, server):
        tab = opened(server.url)
        say(tab, "hi")
        said(tab)
        tab.get_by_role("button", name="New chat").click()
        assert tab.locator("article").count() == 0
        tab.reload()
        assert tab.locator("article").count() == 0

    def test_stop_keeps_what_was_said(self, opened, tiny, slow):
        with serving(tiny) as running:
            tab = opened(running.url)
            say(tab, "a" * 500)
            until(tab, "document.querySelector('article.assistant')?.innerText.length > 30")
            tab.get_by_role("button", name="Stop").click()
            [answer] = said(tab)
            assert "Stopped." in answer
            assert 10 < answer.count("a") < 500
            running.until(lambda: running.house.turns.n_active == 0)
            say(tab, "go on")
            assert said(tab)[1].endswith("go on")

    def test_keys_send_break_lines_and_stop(self, opened, tiny, slow):
        with serving(tiny) as running:
            tab = opened(running.url)
            box = tab.get_by_label("Message", exact=True)
            box.press_sequentially("one")
            box.press("Shift+Enter")
            box.press_sequentially("two")
            box.press("Enter")
            assert said(tab)[0].endswith("one\ntwo")
            say(tab, "a" * 500)
            until(tab, "document.querySelectorAll('article.assistant')[1]?.innerText.length > 30")
            box.press("Escape")
            assert "Stopped." in said(tab)[1]

    def test_pictures_are_chosen_pasted_dropped_and_taken_back(self, opened, seeing):
        tab = opened(seeing.url)
        file = {"name": "dot.png", "mimeType": "image/png", "buffer": base64.b64decode(PNG)}
        tab.get_by_role("button", name="Add a picture").wait_for()
        tab.locator("#file").set_input_files(file)
        tab.locator("#pictures li").wait_for()
        for kind in ("paste", "drop"):
            tab.evaluate(
                """([kind, data]) => {
                    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
                    const held = new DataTransfer();
                    held.items.add(new File([bytes], "dot.png", { type: "image/png" }));
                    const event = kind === "paste"
                        ? new ClipboardEvent("paste", { clipboardData: held, bubbles: true })
                        : new DragEvent("drop", { dataTransfer: held, bubbles: true, cancelable: true });
                    document.body.dispatchEvent(event);
                }""",
                [kind, PNG],
            )
        until(tab, "document.querySelectorAll('#pictures li').length === 3")
        tab.get_by_role("button", name="Remove picture 2").click()
        assert tab.locator("#pictures li").count() == 2
        say(tab, "what are these?")
        [answer] = said(tab)
        assert answer.endswith("what are these?")
        assert tab.locator("article.user img").count() == 2
        tab.reload()
        assert tab.locator("article.user img").count() == 2

    def test_a_model_that_does_not_see_is_given_no_pictures(self, opened, server):
        tab = opened(server.url)
        until(tab, "document.getElementById('model').value")
        assert tab.get_by_role("button", name="Add a picture").count() == 0

    def test_a_token_is_asked_for_or_comes_with_the_link(self, opened, tiny):
        with serving(tiny, guarded={"token": TOKEN}) as running:
            tab = opened(running.url)
            tab.get_by_label("This server needs a token").fill(TOKEN)
            tab.get_by_role("button", name="Use it").click()
            until(tab, "document.getElementById('model').value")
            say(tab, "hi")
            assert said(tab)[0].endswith("hi")
            linked = opened(f"{running.url}/#token={TOKEN}")
            until(linked, "document.getElementById('model').value")
            assert TOKEN not in linked.url
        # The browser itself notes that it was refused once.
        assert [c for c in opened.complaints if "401" not in c] == []
        opened.complaints.clear()

    def test_what_outgrows_the_context_leaves_the_models_sight(self, opened, tiny):
        with serving(tiny) as running:
            tab = opened(running.url)
            for i in range(4):
                say(tab, f"{i}" * 200)
                assert len(said(tab)) == i + 1
            assert "no longer sees" in said(tab)[-1]
        assert all("400" in c for c in opened.complaints)
        opened.complaints.clear()

    def test_a_server_that_is_gone_loses_no_words(self, opened, tiny):
        with serving(tiny) as running:
            tab = opened(running.url)
            say(tab, "hi")
            said(tab)
        say(tab, "are you there?")
        tab.get_by_text("The server cannot be reached.").wait_for()
        assert tab.get_by_label("Message", exact=True).input_value() == "are you there?"
        opened.complaints.clear()

    def test_what_was_kept_by_something_else_is_a_new_conversation(self, opened, server):
        tab = opened(server.url)
        for kept in ("{", json.dumps({"messages": [{}]}), "null"):
            tab.evaluate("(kept) => localStorage.setItem('edge-chat', kept)", kept)
            tab.reload()
            say(tab, "hi")
            assert said(tab)[0].endswith("hi")


def test_the_page_is_shipped(client):
    assert HTTP.get(str(client.base_url)).text == page.html()
