"""The page in a real browser, started once: it draws, says nothing, asks for nothing, and fits a phone."""

import re

import numpy as np
import pytest
from harness.browser import running_browser
from harness.edited import make_edit
from harness.run_logs import windows, write_run

from lediflow.report import write_report
from lediflow.report.collect import report_data
from lediflow.report.runs import read_run

pytestmark = [pytest.mark.browser, pytest.mark.processes]

NAME = "</script><script>alert('a run')</script>"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Two flows, one of an unkind name, with a spike, NaN, a requeue and a fault; a baseline of one point."""
    root = tmp_path_factory.mktemp("runs")
    entries = [(0, "start", 0, {"ranks": 2}), *windows(300)]
    entries[100][3]["loss"], entries[200][3]["loss"] = 1e4, "nan"
    entries += [(3000, "bad_step", 30_000, {"norm": "nan"}), (3001, "checkpoint", 30_000, {})]
    entries += [(4000, "resume", 20_000, {"why": "start"}), *windows(50, since=4000, seen=20_000)]
    for _, event, _, values in entries:
        values |= {"velocity_mse": values["loss"]} if event == "train" else {}
    one = [(0, "start", 0, {}), (10, "train", 100, {"velocity_mse": 0.5, "images_per_second": 10.0})]
    folders = [
        write_run(root / "first", entries, options="train: {images: 1}\n"),
        write_run(root / NAME.replace("/", "%"), entries, options="train: {images: 2}\n"),
        write_run(root / "baseline", one, prior="gaussian"),
    ]
    ways = {NAME: {"prior_nll": [0.0] * 9, "w_nll": [1.0] * 9, "w_norm": [8.0] * 9}}
    record = {"command": "interpolate", "settings": {"path": NAME}, "ways": ways, "warnings": [NAME]}
    edit = make_edit(root / "edit", record, np.zeros((9, 64, 64, 1), dtype=np.uint8))
    data = report_data(
        [read_run(folder) for folder in folders], title=NAME, lead="", commands=[], edits=[edit]
    )
    data.runs[0].name = NAME
    return write_report(root / "report.html", data)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with running_browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def colours(picture):
    return len(np.unique(picture.reshape(-1, 3), axis=0))


@pytest.mark.parametrize(
    ("width", "scheme"), [(1200, "light"), (1200, "dark"), (390, "light"), (390, "dark")]
)
def test_it_draws_says_nothing_and_asks_for_nothing(browser, page, width, scheme):
    browser.open(page, width=width, scheme=scheme)
    if scheme == "light":
        browser.run("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert browser.run("document.documentElement.scrollWidth") <= width  # nothing sticks out
    browser.run("document.querySelector('figure[data-chart]').scrollIntoView()")
    browser.settle()
    picture = browser.screenshot()
    assert colours(picture) > 50
    assert (picture.mean() < 128) == (scheme == "dark")
    drawn = browser.run(
        "[...document.querySelectorAll('.uplot canvas')].map(canvas => {"
        "const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;"
        "return pixels.filter((value, place) => place % 4 == 3 && value > 0).length})"
    )
    assert drawn and min(drawn) > 500  # axes and curves, not blank
    assert browser.console == [] and browser.requests == [page.absolute().as_uri()]


def test_an_unkind_name_is_text(browser, page):
    browser.open(page)
    assert browser.run("document.title") == NAME == browser.run("document.querySelector('h1').textContent")
    assert browser.run("document.scripts.length") == 3


def test_a_spike_is_drawn_whole_on_request_and_a_nan_is_marked(browser, page):
    browser.open(page)
    assert "NaN at 20,000 images" in browser.run("document.querySelector('.faults').textContent")
    keys = browser.run("document.querySelector('.keys').textContent")
    assert "first" in keys and re.search(r"0\.0\d", keys)  # the last value


def test_the_cursor_shows_the_values_below_it(browser, page):
    browser.open(page, height=1600)
    box = browser.run("(({x, y, width, height}) => [x, y, width, height])"
                      "(document.querySelector('.u-over').getBoundingClientRect())")  # fmt: skip
    before = browser.run("document.querySelector('.keys').textContent")
    browser.mouse("mouseMoved", box[0] + box[2] / 2, box[1] + box[3] / 2)
    browser.settle()
    shown = browser.run("document.querySelector('.keys').textContent")
    assert "at " in shown and "images" in shown and shown != before


def ticks(browser):
    return browser.run("document.querySelector('.canvas canvas').toDataURL()")


def test_zoom_log_axes_and_hidden_lines_change_the_drawing(browser, page):
    browser.open(page)
    for button in ("log y", "log x", "+", "reset"):
        before = ticks(browser)
        browser.run(
            f"[...document.querySelectorAll('.tools button')].find(b => b.textContent == '{button}').click()"
        )
        browser.settle()
        assert ticks(browser) != before, button
    before = ticks(browser)
    browser.run("document.querySelector('.keys button').click()")
    browser.settle()
    assert ticks(browser) != before
    assert browser.run("document.querySelector('.keys button').getAttribute('aria-pressed')") == "false"


def test_the_switch_of_colours_goes_before_the_system(browser, page):
    browser.open(page, scheme="light")
    light = browser.screenshot().mean()
    browser.run("document.querySelector('#theme').click(); document.querySelector('#theme').click()")
    browser.settle()
    assert browser.run("document.querySelector('#theme').textContent") == "colours: dark"
    assert browser.screenshot().mean() < 100 < light
    assert browser.console == []


def test_a_curve_of_one_point_shows_it(browser, page):
    browser.open(page)
    assert "0.5" in browser.run(
        "[...document.querySelectorAll('.keys button')].find(b => b.textContent.includes('Flow matching')).textContent"
    )
