"""The page in Chromium: light, dark, on a phone, on paper; offline, quiet and within its width."""

import shutil

import pytest

from edge.report import render
from tests.fixed_run import acting_run, fixed_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [pytest.mark.rig, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: make rigs")]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM)
        yield running
        running.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render([fixed_run(), acting_run()]), encoding="utf-8")
    return path.as_uri()


def opened(browser, address, **how):
    context = browser.new_context(offline=True, **how)
    page = context.new_page()
    page.asked, page.said = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.goto(address)
    return page


LUMINANCE = """e => { const [r, g, b] = getComputedStyle(e).%s.match(/[\\d.]+/g).map(Number)
  .map(c => { c /= 255; return c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4 });
  return .2126 * r + .7152 * g + .0722 * b }"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_light_and_in_the_dark(browser, address, scheme):
    page = opened(browser, address, color_scheme=scheme, viewport={"width": 1100, "height": 900})
    assert page.asked == [address]  # nothing else, from anywhere
    assert page.said == []
    paper = page.eval_on_selector(".card", LUMINANCE % "backgroundColor")
    assert (paper > 0.5) == (scheme == "light")
    for place, what in ((".card td", "color"), ("svg text.name", "fill"), ("svg text.tick", "fill"), ("h1", "color")):
        ink = page.eval_on_selector(place, LUMINANCE % what)
        light, dark = max(ink, paper), min(ink, paper)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, place  # WCAG AA


def test_curves_are_lines_and_not_areas(browser, address):
    page = opened(browser, address)
    filled = page.eval_on_selector_all("svg path", "all => all.filter(e => getComputedStyle(e).fill !== 'none').length")
    assert page.locator("svg path.curve").count() > 3
    assert filled == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_wider_than_the_window(browser, address, scheme):
    """Nor does anything scroll sideways inside it, with all that can be opened open."""
    page = opened(browser, address, color_scheme=scheme, viewport={"width": 390, "height": 844})
    page.eval_on_selector_all("details", "all => all.forEach(e => e.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    wide = page.eval_on_selector_all(
        "body *",
        """all => all.filter(e => { const r = e.getBoundingClientRect();
           const scrolls = getComputedStyle(e).overflowX !== 'visible' && e.scrollWidth > e.clientWidth + 1;
           return r.width > 0 && (r.right > innerWidth + 1 || r.left < -1 || scrolls) })
           .map(e => e.tagName + ' ' + e.textContent.slice(0, 40))""",
    )
    assert wide == []
    least = page.eval_on_selector_all(
        "svg text", "all => Math.min(...all.map(e => e.getBoundingClientRect().height).filter(h => h > 0))"
    )
    assert least >= 10  # pixels: small, and still to be read


def test_what_a_phone_shows_of_a_table_has_names(browser, address):
    page = opened(browser, address, viewport={"width": 390, "height": 844})
    assert page.locator("thead").first.is_hidden()
    named = page.eval_on_selector("td[data-name]", "e => getComputedStyle(e, '::before').content")
    assert named == '"on disk"'
    page = opened(browser, address, viewport={"width": 1100, "height": 900})
    assert page.locator("thead").first.is_visible()
    assert page.eval_on_selector("td[data-name]", "e => getComputedStyle(e, '::before').content") == "none"


@pytest.mark.parametrize("width", [1100, 390])
def test_every_word_of_a_plot_is_inside_it(browser, address, width):
    page = opened(browser, address, viewport={"width": width, "height": 900})
    assert page.locator(".onwide svg").first.is_visible() == (width > 640)
    assert page.locator(".onnarrow svg").first.is_visible() == (width < 640)
    outside = page.eval_on_selector_all(
        "svg text",
        """all => all.filter(e => { const t = e.getBoundingClientRect(), s = e.ownerSVGElement.getBoundingClientRect();
           return t.left < s.left - 1 || t.right > s.right + 1 || t.top < s.top - 2 || t.bottom > s.bottom + 2 })
           .map(e => e.textContent)""",
    )
    assert outside == []


def test_it_prints_on_white_paper(browser, address, tmp_path):
    page = opened(browser, address, color_scheme="dark")
    path = tmp_path / "report.pdf"
    page.pdf(path=path)
    assert path.read_bytes().startswith(b"%PDF")
    assert path.stat().st_size > 20_000
    page.emulate_media(media="print", color_scheme="dark")
    assert page.eval_on_selector("body", LUMINANCE % "backgroundColor") > 0.9
    page.set_viewport_size({"width": 688, "height": 900})  # A4 without its margins
    assert page.evaluate("document.documentElement.scrollWidth") <= 688
    # Narrow paper too has the tables and plots of a desk.
    page.set_viewport_size({"width": 600, "height": 900})
    assert page.locator("thead").first.is_visible()
    assert page.locator(".onwide").first.is_visible()
    assert page.locator(".onnarrow").first.is_hidden()
