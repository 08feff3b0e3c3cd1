"""The page in a real browser: pictures are those of `sample`, a brush paints masks, all requests go to this machine."""

import base64
import io
import json
import signal
import time

import numpy as np
import pytest
from harness.browser import running_browser
from harness.commands import succeed
from harness.edited import SIZE, save_tiny_runs
from harness.studios import save_photograph, served
from PIL import Image

from lediflow.sampling.grids import HEAD_HEIGHT, SMALLEST

pytestmark = [pytest.mark.browser, pytest.mark.processes]

COUNT = 8  # pictures at the start
LOADED = "images.length && images.every(image => image.complete && image.naturalWidth)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studio")
    save_tiny_runs(folder / "runs", classes=("cat", "dog"))
    return folder


@pytest.fixture(scope="module")
def studio(folder):
    with served(folder) as found:
        yield found
        status, _ = found.end(signal.SIGINT)  # Ctrl-C; the tests have uploaded photographs
        assert status == 0 and list(found.temporary.iterdir()) == []


@pytest.fixture(scope="module")
def chromium(studio, tmp_path_factory):
    with running_browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def browser(chromium, studio):
    """The page with its first pictures; at the end of the test nothing may have been asked of another machine."""
    chromium.open(studio.url, height=1000)
    shown(chromium, "#sample-pictures", COUNT)
    yield chromium
    asked = [url for url in chromium.requests if not url.startswith(("blob:", studio.url))]
    assert len(chromium.requests) > 20 and asked == []
    refused = ("Content Security Policy", "Failed to load")
    assert [text for text in chromium.console if any(words in text for words in refused)] == []


def shown(browser, place, count):
    """The pictures in an element of the page, as it loaded them."""
    images = f"const images = [...document.querySelectorAll('{place} img')];"
    browser.wait_for(f"(() => {{{images} return {LOADED} && images.length == {count}}})()", 60)
    script = (
        f"(async () => {{{images} const files = await Promise.all(images.map(image => fetch(image.src)"
        ".then(answer => answer.arrayBuffer())));"
        "return files.map(file => btoa(String.fromCharCode(...new Uint8Array(file))))})()"
    )
    return [Image.open(io.BytesIO(base64.b64decode(file))) for file in browser.run(script)]


def text(browser, place):
    return browser.run(f"document.querySelector('{place}')?.textContent ?? ''")


def until_said(browser, place, words, seconds=60):
    browser.wait_for(f"document.querySelector('{place}')?.textContent.includes({json.dumps(words)})", seconds)


def open_tab(browser, name):
    tab = (
        f"[...document.querySelectorAll('button[role=tab]')].find(tab => tab.textContent.trim() == '{name}')"
    )
    browser.wait_for(tab + " != null")
    browser.run(f"{tab}.click()")


def set_number(browser, place, value):
    """Type into the number field of a slider."""
    field = f"document.querySelector('{place} input[type=number]')"
    browser.run(
        f"(field => {{field.value = {value}; field.dispatchEvent(new Event('input', {{bubbles: true}}));"
        f"field.dispatchEvent(new Event('blur', {{bubbles: true}}))}})({field})"
    )


def sampled(folder, output, seed, *options):
    runs = (f"run={folder}/runs/flow", f"sampler={folder}/runs/sampler")
    succeed("sample", *runs, f"output={output}", f"count={COUNT}", f"seed={seed}", "device=cpu", *options)
    return [np.asarray(Image.open(output / f"{number:06d}.png")) for number in range(COUNT)]


def test_the_first_pictures_and_those_of_a_click_are_those_of_sample(browser, folder, tmp_path):
    first = shown(browser, "#sample-pictures", COUNT)
    wanted = sampled(folder, tmp_path / "0", 0)
    assert all(map(np.array_equal, map(np.asarray, first), wanted))
    assert all(len(np.unique(picture)) > 10 for picture in wanted)
    assert json.loads(first[2].text["lediflow"])["number"] == 2  # as it is downloaded
    set_number(browser, "#sample-seed", 7)
    browser.click("#sample-draw")
    until_said(browser, "#sample-text", "seed=7")
    browser.settle()
    again = shown(browser, "#sample-pictures", COUNT)
    assert all(map(np.array_equal, map(np.asarray, again), sampled(folder, tmp_path / "7", 7)))
    drawn = browser.screenshot(tmp_path / "studio.png")
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 100


def test_a_class_is_chosen_by_its_name(browser, folder, tmp_path):
    browser.run("document.querySelector('#sample-classes input').focus()")
    options = "[...document.querySelectorAll('#sample-classes [role=option]')]"
    option = f"{options}.find(one => one.textContent.includes('dog'))"
    browser.wait_for(f"{option} != null")
    browser.run(f"{option}.dispatchEvent(new MouseEvent('mousedown', {{bubbles: true}}))")
    until_said(browser, "#sample-text", "labels=")
    browser.settle()
    found = shown(browser, "#sample-pictures", COUNT)
    assert all(
        map(np.array_equal, map(np.asarray, found), sampled(folder, tmp_path / "dog", 0, "labels=[dog]"))
    )
    browser.run("document.querySelector('#sample-classes .remove-all').click()")
    browser.wait_for("!document.querySelector('#sample-text').textContent.includes('labels')")


def paint_cross(browser):
    """Two strokes of 200 pixels that cross in the middle of the editor; again if it was not yet ready for them."""
    canvas = "document.querySelector('#editor canvas')"
    browser.run(f"{canvas}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
    for _ in range(20):
        browser.settle()
        x, y = browser.run(
            f"(box => [box.x + box.width / 2, box.y + box.height / 2])({canvas}.getBoundingClientRect())"
        )
        steps = range(-100, 101, 40)
        browser.drag([(x + step, y) for step in steps])
        browser.drag([(x, y + step) for step in steps])
        time.sleep(0.5)
        part = browser.screenshot()[int(y) - 50 : int(y) + 50, int(x) - 50 : int(x) + 50].astype(int)
        if (part[..., 0] > part[..., 1] + 50).any():  # the brush is pink, the photograph grey
            return
    raise AssertionError("the editor shows no strokes")


def test_a_painted_cross_is_repainted_and_the_rest_has_the_bytes_of_the_file(browser, tmp_path):
    photograph = save_photograph(tmp_path / "photograph.png")
    known = np.asarray(Image.open(photograph))
    open_tab(browser, "Inpaint")
    browser.wait_for("document.querySelector('#editor canvas') != null")
    browser.choose_file("#inpaint-photograph input[type=file]", photograph)
    browser.wait_for("document.querySelector('#inpaint-photograph .file-preview') != null")
    browser.click("#inpaint-draw")
    until_said(browser, "body", "nothing is painted")
    paint_cross(browser)
    sources = "[...document.querySelectorAll('#inpaint-pictures img')].map(image => image.src).join()"
    for _ in range(2):  # the second click sends the same strokes again
        before = browser.run(sources)
        browser.click("#inpaint-draw")
        browser.wait_for(f"{sources} != {json.dumps(before)}")
        results = [np.asarray(picture) for picture in shown(browser, "#inpaint-pictures", 4)]
        changed = np.any([picture != known for picture in results], axis=0)
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        assert 20 <= changed.sum() <= 60  # of 256: a cross
        assert SIZE // 2 in rows and SIZE // 2 in columns and not changed[:3, :3].any()
    assert "the mask (painted) repaints" in text(browser, "#inpaint-text")
    browser.screenshot(tmp_path / "inpaint.png")


def test_an_unusable_photograph_is_a_message_and_the_page_goes_on(browser, tmp_path):
    name = "a<b>.png"
    (tmp_path / name).write_bytes(b"no picture")
    open_tab(browser, "Vary")
    browser.wait_for("document.querySelector('#vary-photograph input[type=file]') != null")
    browser.click("#vary-draw")
    until_said(browser, "body", "no photograph was uploaded")
    browser.choose_file("#vary-photograph input[type=file]", tmp_path / name)
    browser.wait_for("document.querySelector('#vary-photograph .file-preview') != null")
    browser.click("#vary-draw")
    until_said(browser, "body", "give another picture")
    open_tab(browser, "Interpolate")
    browser.wait_for("document.querySelector('#interpolate-draw') != null")
    browser.click("#interpolate-draw")
    until_said(browser, "#interpolate-text", "nats per dimension", 120)
    strip = shown(browser, "#strip", 1)[0]
    assert strip.width > 9 * SMALLEST and SMALLEST + HEAD_HEIGHT <= strip.height < 2 * SMALLEST


def test_two_browsers_at_once_each_have_what_they_would_have_alone(browser, studio, folder, tmp_path):
    with running_browser(tmp_path / "other") as other:
        other.open(studio.url)
        shown(other, "#sample-pictures", COUNT)
        both = {browser: 11, other: 12}
        for one, seed in both.items():
            set_number(one, "#sample-seed", seed)
        for one in both:
            one.run("document.querySelector('#sample-draw').click()")
        for one, seed in both.items():
            until_said(one, "#sample-text", f"seed={seed}")
            one.settle()
            found = shown(one, "#sample-pictures", COUNT)
            assert all(
                map(np.array_equal, map(np.asarray, found), sampled(folder, tmp_path / str(seed), seed))
            )
