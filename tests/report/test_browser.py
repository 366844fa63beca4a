"""The pages in headless Chromium: both widths, both schemes, hostile text included."""

import pytest

from tests.report import factory
from tests.report.factory import add_failure, add_result, code, metric, prose, render
from tests.report.test_hostile import ATTACK, HOSTILE, hostile_store

pytestmark = pytest.mark.page

CONTRAST = """
(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = (text) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = (c) => { const [r, g, b] = c.map((v) => { v /= 255;
    return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (e) => { const layers = [];
    for (; e; e = e.parentElement) layers.push(rgba(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((below, [r, g, b, a]) =>
      [r, g, b].map((v, i) => (v * a + below[i] * (255 - a)) / 255), [255, 255, 255]); };
  const poor = [];
  for (const e of document.querySelectorAll('main *, nav *, footer *')) {
    if (e.closest('svg') || ![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
      continue;
    const style = getComputedStyle(e), [a, b] = [light(rgba(style.color)), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${e.tagName}.${e.className} ${ratio.toFixed(2)}`);
  }
  return [...new Set(poor)];
})()
"""


def ordinary_store(home):
    add_result(home, "histories", notebook="10_prepare_histories")
    shown = {"output_type": "stream", "name": "stdout", "text": "loss 0.5\n" + "w" * 400}
    cells = [prose("# T\n\nWords, `code` and $x^2$.\n\n| a | b |\n|---|---|\n| 1 | 2 |"),
             code("# Train\nresult = train(model)  # once\nname = 'text' * 3", [shown])]  # fmt: skip
    metrics = [metric(f"metric {m} with a long name", 0.1 * m + 0.01 * i, row=f"Model number {i}",
                      low=0.0, high=1.0, n=2871, better="higher")
               for m in range(8) for i in range(4)]  # fmt: skip
    add_result(home, "sasrec", notebook="25_train", inputs=["histories"], cells=cells,
               metrics=metrics, figure=factory.picture(), table={"x" * 60: [1.5, 2.5]})  # fmt: skip
    add_failure(home, "gru", lines=["x = " + "1234567890 " * 40])
    states = {"histories": "done", "sasrec": "stale", "gru": "failed", "last": "blocked"}
    plan = {name: {"state": state, "title": f"What about {name}?", "notebook": "25_train",
                   "uses": ["histories"] if name != "histories" else []}
            for name, state in states.items()}  # fmt: skip
    render(home, "demo", plan)


def pages(home):
    return [home / "reports" / "index.html", *sorted((home / "reports" / "demo").glob("*.html"))]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_pages_fit_the_screen_and_ask_no_network(tmp_path, browser, width, scheme):
    ordinary_store(tmp_path)
    for path in pages(tmp_path):
        browser.open(path, width=width, scheme=scheme)
        assert browser.ask("document.documentElement.scrollWidth") <= width, path.name
        foreign = [u for u in browser.requests if not u.startswith(("file:", "data:"))]
        assert (foreign, browser.problems) == ([], []), path.name
        assert browser.ask("[...document.images].every((i) => i.naturalWidth > 0)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_what_is_behind_it(tmp_path, browser, scheme):
    ordinary_store(tmp_path)
    grounds = set()
    for path in pages(tmp_path):
        browser.open(path, width=1280, scheme=scheme)
        browser.ask("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert browser.ask(CONTRAST) == [], path.name
        grounds.add(browser.ask("getComputedStyle(document.body).backgroundColor"))
    assert grounds == {"rgb(251, 250, 247)" if scheme == "light" else "rgb(20, 23, 27)"}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_does_nothing_and_fits(tmp_path, browser, kind):
    hostile_store(tmp_path, HOSTILE[kind])
    for path in pages(tmp_path):
        for width in (390, 1280):
            browser.open(path, width=width, scheme="dark" if width == 390 else "light")
            browser.ask("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
            assert browser.ask("typeof window.owned") == "undefined"
            assert browser.ask("document.scripts.length") == 0
            assert browser.ask("document.documentElement.scrollWidth") <= width, path.name
            assert browser.requests == [
                u for u in browser.requests if u.startswith(("file", "data"))
            ]


def test_the_attack_would_work_without_the_escape(tmp_path, browser):
    page = tmp_path / "bare.html"
    page.write_text(f"<!DOCTYPE html><title>x</title><p>{ATTACK}</p>")
    browser.open(page, width=390, scheme="light")
    assert browser.ask("window.owned") == 1


def test_print_shows_what_is_folded_and_hides_navigation(tmp_path, browser):
    ordinary_store(tmp_path)
    browser.open(tmp_path / "reports/demo/sasrec.html", width=1280, scheme="light")
    browser.call("Emulation.setEmulatedMedia", media="print")
    height = (
        "document.querySelector('details.code pre').checkVisibility({contentVisibilityAuto: true})"
    )
    assert browser.ask("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.ask(height)
    browser.call("Emulation.setEmulatedMedia", media="")
