"""The report page: whole, self-contained, and showing what it was given."""

import base64
import dataclasses
import hashlib
import html
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from lediflow.report import write_report
from lediflow.report.content import (
    BinPanel,
    CommandRun,
    Fact,
    LossPanel,
    PriorExample,
    ReportData,
    SettingMeasurement,
    StepComparison,
)
from lediflow.report.page import BEGINNING, UPLOT, build_report, png_uri, script_hash, template_file
from lediflow.tracking.event_log import Curve

VOID = frozenset({"img", "meta", "link", "br"})  # elements that have no closing tag


def pictures(count: int, channels: int = 3) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 8, 8, channels), dtype=np.uint8))


def measurement(method: str, mmd: float | None) -> SettingMeasurement:
    return SettingMeasurement(
        method=method, solver="midpoint", steps=2, evaluations=4, ms_per_image=9.5, mmd=mmd
    )


@pytest.fixture(scope="module")
def data():
    grey = pictures(4, channels=1)
    return ReportData(
        title="Cells & <cracks>",
        lead="What was trained.",
        facts=[Fact(value="4", label="evaluations per image")],
        samples=pictures(4),
        photographs=grey,
        step_comparison=StepComparison(
            steps=[1, 2], pictures={"LeDiFlow": [pictures(3)] * 2, "plain": [pictures(3)] * 2}, solver="heun3"
        ),
        measurements=[measurement("LeDiFlow", 1.25), measurement("plain", 7.5)],
        mmd_name="MMD (EfficientNet-Lite0)",
        real_mmd=0.31,
        priors=[PriorExample(photograph=grey[0], mean=grey[1], sigma=np.eye(8) + 0.1, draw=grey[2])],
        panels=[LossPanel(title="Flow", caption="Error.", curves={"loss": Curve(np.arange(9), np.ones(9))})],
        bin_panels=[
            BinPanel(title="By time", caption="", axis="t", edges=[0.0, 0.5, 1.0], means={"all": np.ones(2)})
        ],
        environment={"Seed": "0"},
        commands=[
            CommandRun(
                purpose="Train.",
                command="python -m lediflow.train a=1 && echo",
                seconds=61,
                peak_memory_mib=1234,
            )
        ],
    )


@pytest.fixture(scope="module")
def page(data):
    return build_report(data)


def test_the_page_begins_like_those_of_all_releases_so_that_it_is_recognised(page):
    assert page.startswith(BEGINNING)


class Outline(HTMLParser):
    """Checks that elements close in the order they opened, and collects headings and addresses."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.addresses: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for key, value in attributes if key in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.addresses += [value for key, value in attributes if key in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] == "h2":
            self.headings.append(text)


def test_every_section_is_in_its_place(page):
    assert Outline(page).headings == [
        "Generated images beside photographs",
        "The same noise with more and more steps",
        "Quality against cost",
        "Training",
        "Where the remaining error is",
        "Where a path starts",
        "How this was made",
    ]


def test_the_page_needs_no_network(page):
    assert all(address.startswith(("data:", "#")) for address in Outline(page).addresses)
    assert "<script src" not in page
    assert "@import" not in page
    assert re.findall(r"url\((?!#)", page) == []


def test_only_the_pages_own_scripts_may_run_and_nothing_may_be_requested(page):
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html.unescape(page))
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert (rules["default-src"], rules["img-src"]) == ("'none'", "data:")
    hashes = [script_hash(script) for script in re.findall(r"<script>(.*?)</script>", page, re.DOTALL)]
    assert len(hashes) == 2 and rules["script-src"].split() == [f"'{found}'" for found in hashes]


def test_what_is_vendored_is_what_its_authors_published():
    # of npm's uplot-1.6.32.tgz
    published = {
        "iife.min.js": "19c8d4c6ad88929a",
        "min.css": "df630c6a8d6f8eea",
    }
    for ending, start in published.items():
        text = template_file(f"vendored/{UPLOT}.{ending}")
        assert hashlib.sha256(text.encode()).hexdigest().startswith(start)
    assert "MIT" in template_file(f"vendored/{UPLOT}.LICENSE")


def test_pictures_inside_the_page_are_the_ones_given(data, page):
    for given in (*data.samples, *data.photographs):
        assert png_uri(given) in page
    payload = base64.b64decode(png_uri(data.samples[0]).partition(",")[2])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(payload))), data.samples[0])


def test_text_is_escaped(page):
    assert "<h1>Cells &amp; &lt;cracks&gt;</h1>" in page
    assert "a=1 &amp;&amp; echo" in page


def test_parts_without_data_leave_their_section_out():
    page = build_report(ReportData(title="Nothing yet", lead=""))
    assert Outline(page).headings == [] and "There is nothing to show yet" in page


def test_text_mentions_only_what_is_there():
    alone = StepComparison(steps=[1], pictures={"LeDiFlow": [pictures(3)]}, solver="euler")
    page = build_report(
        ReportData(title="", lead="", samples=pictures(4), step_comparison=alone, environment={"GPU": "none"})
    )
    assert Outline(page).headings[0] == "Generated images"
    assert "both methods" not in page
    assert "photographs" not in page
    assert "These commands" not in page


def test_a_picture_of_a_prior_includes_the_result_of_the_flow_if_it_exists(data):
    prior = data.priors[0]
    ended = dataclasses.replace(prior, result=pictures(1)[0])
    pages = [build_report(ReportData(title="", lead="", priors=[shown])) for shown in (prior, ended)]
    assert ["The result is where the flow ends" in page for page in pages] == [False, True]
    assert ["--columns: 4" in pages[0], "--columns: 5" in pages[1]] == [True, True]


def test_a_command_shows_its_time_and_memory(page):
    assert '<span class="took">61 s, 1,234 MiB</span>' in page


def test_the_best_quality_is_marked_and_a_missing_number_is_a_dash():
    rows = [measurement("LeDiFlow", 1.25), measurement("plain", 7.5), measurement("untested", None)]
    page = build_report(ReportData(title="", lead="", measurements=rows))
    assert re.findall(r"<strong>(.*?)</strong>", page) == ["1.25"]
    assert "<td>\N{EN DASH}</td>" in page


def test_a_distance_has_its_margin_and_the_highest_precision_is_best():
    first, second = measurement("LeDiFlow", 1.25), measurement("plain", 7.5)
    first.mmd_margin, first.metrics, second.metrics = 0.07, {"precision": 0.4}, {"precision": 0.9}
    page = build_report(ReportData(title="", lead="", measurements=[first, second]))
    assert "<strong>1.25</strong><small> \N{PLUS-MINUS SIGN} 0.07</small>" in page
    assert "<strong>0.90</strong>" in page
    assert "<strong>0.40</strong>" not in page


def test_with_latents_the_distance_to_reconstructions_and_the_codecs_floor_are_shown(page):
    row = measurement("LeDiFlow", 1.25)
    row.mmd_to_reconstructions = 0.33
    shown = build_report(ReportData(title="", lead="", measurements=[row], codec_floor=0.91))
    assert "to reconstructions" in shown and "0.33" in shown
    assert "The codec's reconstructions: 0.91." in html.unescape(shown)
    assert "reconstructions" not in page


def test_columns_without_measurements_are_left_out(page):
    assert "MMD" in page
    assert "Fréchet" not in page


def test_the_line_of_the_photographs_is_explained_only_where_it_is_drawn(data, page):
    assert "dashed line" in page
    assert "dashed line" not in build_report(ReportData(title="", lead="", measurements=data.measurements))


def test_the_same_data_gives_the_same_page(data, page):
    assert build_report(data) == page


def test_the_page_is_written_atomically(data, page, tmp_path):
    path = write_report(tmp_path / "new" / "report.html", data)
    assert path.read_text(encoding="utf-8") == page
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_pictures_that_are_not_bytes_are_refused():
    with pytest.raises(ValueError, match=r"float32.*uint8"):
        png_uri(np.zeros((4, 4), dtype=np.float32))


def test_attributes_are_escaped():
    quoted = StepComparison(steps=[1], pictures={'the "new" <one>': [pictures(1)]}, solver="euler")
    page = build_report(ReportData(title="", lead="", step_comparison=quoted))
    Outline(page)
    assert 'alt="the &#34;new&#34; &lt;one&gt;, 1 step, image 1"' in page


def test_the_navigation_leads_to_every_section(page):
    targets = re.findall(r'<a href="#(\w+)">', page)
    assert targets == re.findall(r'<section id="(\w+)">', page)
    assert len(targets) == 7


def test_only_methods_have_the_methods_colours(data):
    panels = [dataclasses.replace(data.panels[0], compares_methods=known) for known in (True, False)]
    flow, sampler = (build_report(ReportData(title="", lead="", panels=[panel])) for panel in panels)
    assert "stroke: var(--series-1)" in flow and "stroke: var(--series-3)" not in flow
    assert "stroke: var(--series-3)" in sampler and "stroke: var(--series-1)" not in sampler


def test_a_page_of_large_pictures_stays_below_five_megabytes():
    large = list(np.random.default_rng(0).integers(0, 256, (4, 256, 256, 3), dtype=np.uint8))
    sigma = np.ones((256, 256))
    priors = [
        PriorExample(photograph=large[0], mean=large[1], sigma=sigma, draw=large[2], result=large[3])
    ] * 2
    comparison = StepComparison(steps=[1, 2], pictures={"LeDiFlow": [large, large]}, solver="euler")
    shown = {"samples": large * 2, "photographs": large * 2, "step_comparison": comparison, "priors": priors}
    page = build_report(ReportData(title="", lead="", **shown))
    assert 1_000_000 < len(page) < 5_000_000
    assert page.count('alt="Generated image') == 8 and 'width="128"' in page
