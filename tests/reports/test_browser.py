"""A report in a real browser: nothing is loaded, nothing fails, and curves can be asked."""

import browser
import pytest
from written_runs import record_of, write_run

from fljax.reports import write_report

pytestmark = pytest.mark.skipif(not browser.CHROMIUM, reason="there is no Chromium")

LINES = "document.querySelectorAll('figure.chart')[0].querySelectorAll('svg.plot path.line').length"
BUTTON = "document.querySelectorAll('figure.chart')[0].querySelectorAll('ul.legend button')"


def test_a_report_is_complete_in_itself_and_answers(tmp_path):
    records = [record_of(r, train__norm=float(r)) for r in (1, 3)]
    records.insert(1, record_of(2, train__loss=float("nan")))
    write_run(tmp_path / "<script>alert(1)<", records=records, config={"target": 0.6})
    path = write_report(tmp_path, partition=False)
    with browser.browser(tmp_path / "profile") as page:
        page.open(path.as_uri())
        assert page.run("document.title") == "<script>alert(1)<"
        drawn = page.run(LINES)
        assert drawn == page.run(f"{BUTTON}.length") == 2
        before = page.run("document.querySelector('svg.plot path.line').getAttribute('d')")

        page.run(f"{BUTTON}[0].click()")
        assert page.run(LINES) == drawn - 1
        assert page.run(f"{BUTTON}[0].getAttribute('aria-pressed')") == "false"
        page.run(f"{BUTTON}[0].click()")
        assert page.run("document.querySelector('svg.plot path.line').getAttribute('d')") == before

        # an axis of logarithms moves the line, the arrow keys show the values of a round
        page.run("document.querySelector('button.tool[aria-pressed]').click()")
        after = page.run("document.querySelector('svg.plot path.line').getAttribute('d')")
        assert after != before and "NaN" not in after and "Infinity" not in after
        arrow = "new KeyboardEvent('keydown', {key: 'ArrowRight'})"
        page.run(f"document.querySelector('svg.whole').dispatchEvent({arrow})")
        tip = page.run("document.querySelector('output.tip').textContent")
        assert "Round: 1" in tip and "test: 50" in tip
        tip, chart = (f"document.querySelector('{name}')" for name in ("output.tip", "svg.whole"))
        places = (f"{found}.getBoundingClientRect().bottom" for found in (tip, chart))
        assert page.run(" < ".join(places))

        # what is folded comes to life when it is opened
        page.run("document.querySelectorAll('details').forEach(part => { part.open = true; })")
        folded = "details figure.chart ul.legend button"
        page.run("new Promise(done => setTimeout(done, 50))")
        assert page.run(f"document.querySelectorAll({folded!r}).length") > 0
        assert page.run("document.documentElement.scrollWidth") <= 1280
        assert page.requests == [path.as_uri()] and page.errors == []
