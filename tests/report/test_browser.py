"""The pages in a real browser; skipped where Chromium or the extra `browser` is not installed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gangru_dist.base import log
from gangru_dist.base.storage import Storage
from gangru_dist.events.events import TrialChanged
from gangru_dist.report.document import write_report
from gangru_dist.report.progress import ProgressPage
from gangru_dist.report.runs import write_index
from gangru_dist.runs.run import Run
from gangru_dist.runs.search import TrialRecord
from tests.report.store import RUN, write_models, write_world
from tests.report.test_progress_page import GAN, PLACES, begin, epoch, predictor
from tests.report.test_runs_page import ICS, MONTHS, add

sync_api = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path"),
]
WIDTHS = (1200, 400)
INDUSTRIES = "#exposures table.sort"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    world = write_world(tmp_path_factory.mktemp("storage"), runs=(RUN, "other"))
    write_models(world.root, RUN)
    return Path(write_report(Run(world.root, RUN, world.cfg), "other")).as_uri()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = Storage(str(tmp_path_factory.mktemp("storage")))
    add(root, "high", ics=(0.3, 0.2, 0.25))
    add(root, "low", months=MONTHS[1:], ics=(-0.02, 0.01))
    add(root, "middle", ics=ICS)
    add(root, "new", failed=1)
    return Path(write_index(root)).as_uri()


@pytest.fixture(scope="module")
def progress(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The page of a job under way, and of one that has ended."""
    folder, places = tmp_path_factory.mktemp("progress"), {}
    for state in ("running", "done"):
        run = Run(Storage(str(folder)), state, write_world(folder / state).cfg)
        with ProgressPage(run).show() as page:
            begin(page)
            for number in (1, 2, 3):
                page(epoch(PLACES[0], predictor(number, number / 50), share=0.5, seconds_left=600))
            page(epoch(PLACES[1], GAN, share=0.2, seconds_left=600))
            trial = TrialRecord(number=1, settings={}, reports=((1, 0.01), (2, 0.02)))
            page(TrialChanged(trial, "a"))
            with log.Progress("score", total=2) as progress:
                progress.advance()
            html = page.render()
        if state == "running":
            run.folder.write_bytes("progress.html", html.encode())
        places[state] = Path(run.folder.full_path("progress.html")).as_uri()
    return places


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, address):
    """Opens the page; at the end, nothing may have been said on the console."""
    said, contexts = [], []

    def open_page(width=1200, address=address, **settings):
        context = browser.new_context(viewport={"width": width, "height": 900}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def _grave(page):
    """What axe-core calls serious or critical."""
    found = axe.Axe().run(page).response["violations"]
    return [
        (one["id"], one["nodes"][0]["html"][:200], len(one["nodes"]))
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def _shown(page, query):
    return page.locator(query).evaluate_all("them => them.filter(x => x.checkVisibility()).length")


class TestProperties:
    @pytest.mark.parametrize("width", WIDTHS)
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_axe_finds_nothing_serious(self, opened, width, scheme):
        assert _grave(opened(width, color_scheme=scheme)) == []

    @pytest.mark.parametrize("width", WIDTHS)
    def test_the_page_is_no_wider_than_the_window(self, opened, width):
        page = opened(width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    def test_contents_stay_in_view_and_open_what_is_folded(self, opened):
        page = opened()
        assert page.locator("#settings details").get_attribute("open") is None
        page.locator(".contents a[href='#settings']").click()
        assert page.locator("#settings details").get_attribute("open") is not None
        assert page.evaluate("scrollY") > 1000
        top = page.locator(".contents").bounding_box()["y"]
        assert 0 <= top < 100

    def test_sections_fold_by_keyboard(self, opened):
        page = opened()
        page.locator("#ic summary").first.focus()
        before = _shown(page, "#ic svg")
        page.keyboard.press("Enter")
        assert before > 0
        assert _shown(page, "#ic svg") == 0

    def test_tables_sort_by_value_and_say_so(self, opened):
        page = opened()
        head = page.locator(f"{INDUSTRIES} th").nth(1)
        cells = page.locator(f"{INDUSTRIES} tbody td:nth-child(2)")
        head.locator("button").click()
        rising = [float(x.split()[0].rstrip("%")) for x in cells.all_inner_texts()]
        assert rising == sorted(rising)
        assert head.get_attribute("aria-sort") == "ascending"
        head.locator("button").press("Enter")
        falling = [float(x.split()[0].rstrip("%")) for x in cells.all_inner_texts()]
        assert falling == sorted(rising, reverse=True)
        assert head.get_attribute("aria-sort") == "descending"

    def test_rows_are_filtered(self, opened):
        page = opened()
        page.locator(".contents a[href='#settings']").click()
        rows = "#settings table.filter tbody tr"
        before = _shown(page, rows)
        page.locator("#settings input[type=search]").fill("evaluation.cost")
        assert before > 20
        assert _shown(page, rows) == 1

    def test_values_are_under_the_pointer(self, opened):
        page = opened()
        area = page.locator("#ic rect.tip").nth(2)
        area.scroll_into_view_if_needed()
        area.hover()
        shown = page.locator(".shown")
        assert shown.is_visible()
        assert shown.inner_text() == area.locator("title").evaluate("x => x.textContent")

    def test_dark_mode_is_dark(self, opened):
        colors = {
            scheme: opened(color_scheme=scheme).evaluate(
                "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
            )
            for scheme in ("light", "dark")
        }
        assert max(colors["dark"]) < 60 < 200 < min(colors["light"])

    def test_all_is_readable_without_script(self, opened):
        page = opened(java_script_enabled=False)
        page.locator("#settings summary").first.click()
        assert page.locator("#settings table").first.is_visible()
        assert page.locator("#picks table").first.is_visible()

    def test_print_opens_what_is_folded_and_cuts_no_picture(self, opened):
        page = opened(700)  # about A4 less its margins
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details:not([open])").count() == 0
        assert _shown(page, ".contents") == 0
        page.set_viewport_size({"width": 695, "height": 1025})
        breaks = page.locator("figure").evaluate_all(
            "them => them.map(x => getComputedStyle(x).breakInside)"
        )
        assert set(breaks) == {"avoid"}
        right = page.locator("figure svg").evaluate_all(
            "them => Math.max(...them.map(x => x.getBoundingClientRect().right))"
        )
        assert right <= 695 + 1
        heads = page.locator("th button").evaluate_all(
            "x => x.map(b => getComputedStyle(b).display)"
        )
        assert set(heads) == {"contents"}  # else a table's head is empty on its second page
        assert page.pdf(prefer_css_page_size=True)[:4] == b"%PDF"

    @pytest.mark.parametrize("width", WIDTHS)
    def test_no_text_of_a_picture_is_cut_off(self, opened, width):
        beyond = opened(width).evaluate(
            """[...document.querySelectorAll("figure svg")].flatMap((svg) => {
                const box = svg.getBoundingClientRect();
                return [...svg.querySelectorAll("text")].filter((text) => {
                    const { left, right } = text.getBoundingClientRect();
                    return left < box.left - 1 || right > box.right + 1;
                }).map((text) => text.textContent);
            })"""
        )
        assert beyond == []

    def test_no_table_runs_off_the_paper(self, opened):
        page = opened(695)
        page.emulate_media(media="print")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        page.locator(".scroll.narrow td:nth-child(2)").evaluate_all(
            "them => them.forEach(x => { x.textContent = 'Building materials, cement'; })"
        )
        right = page.locator("th, td").evaluate_all(
            "them => Math.max(...them.map(x => x.getBoundingClientRect().right))"
        )
        assert right <= 695 + 1

    def test_no_line_ends_in_a_date(self, opened):
        page = opened(400)
        for part in (".lead .whole", ".sub .whole", "figcaption .whole"):
            heights = page.locator(part).evaluate_all("x => x.map(y => y.getClientRects().length)")
            assert heights
            assert set(heights) == {1}


class TestRuns:
    """`runs/index.html`."""

    @pytest.mark.parametrize("width", WIDTHS)
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_axe_finds_nothing_serious(self, opened, index, width, scheme):
        page = opened(width, index, color_scheme=scheme)
        assert _grave(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    def test_a_wide_window_shows_the_whole_table(self, opened, index):
        table = opened(1200, index).locator("#runs")
        assert table.evaluate("x => x.parentElement.scrollWidth - x.parentElement.clientWidth") <= 0

    def test_runs_sort_by_figure_and_are_filtered(self, opened, index):
        page = opened(1200, index)
        names = page.locator("#runs tbody td:first-child")
        page.locator("#runs th button", has_text="mean IC").click()
        assert [x.strip() for x in names.all_inner_texts()] == ["low", "middle", "high", "new"]
        page.locator("#runs th button", has_text="mean IC").click()
        assert [x.strip() for x in names.all_inner_texts()] == ["high", "middle", "low", "new"]
        page.locator("input[type=search]").first.fill("failed")
        assert _shown(page, "#runs tbody tr") == 1

    def test_marked_runs_alone_are_compared(self, opened, index):
        page = opened(1200, index)
        shown = "#compare table.by-run >> nth=0 >> thead th:visible"
        assert page.locator(shown).count() == 4
        assert _shown(page, "#compare tbody tr[data-runs]") == 3
        page.get_by_label("compare high").check()
        page.get_by_label("compare low").check()
        assert page.locator(shown).all_inner_texts() == ["Figure", "low", "high"]
        assert _shown(page, "#compare tbody tr[data-runs]") == 1
        assert _shown(page, ".curves polyline") == 2
        month = page.locator("#compare table.by-run").nth(1).locator("tbody tr").first
        assert month.locator("td:visible").all_inner_texts() == ["2020-03", "+0.010", "+0.250"]

    def test_links_lead_to_reports(self, opened, index):
        page = opened(1200, index)
        page.get_by_role("link", name="middle").click()
        assert page.url.endswith("runs/middle/report/report.html")


class TestProgress:
    """`progress.html`."""

    @pytest.mark.parametrize("width", WIDTHS)
    @pytest.mark.parametrize("state", ["running", "done"])
    def test_axe_finds_nothing_serious(self, opened, progress, width, state):
        page = opened(width, progress[state], color_scheme="dark" if width == 400 else "light")
        assert _grave(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    def test_it_reloads_itself_while_the_job_runs(self, opened, progress):
        page = opened(1200, progress["running"])
        assert "Running" in page.locator("[role=status]").inner_text()
        file = Path(progress["running"].removeprefix("file://"))
        file.write_bytes(Path(progress["done"].removeprefix("file://")).read_bytes())
        page.get_by_text("Done", exact=True).wait_for(timeout=30_000)
