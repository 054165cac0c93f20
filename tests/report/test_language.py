"""Every text of the pages has its line in every catalogue, and no line is left over."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import Environment

from gangru_dist.bars import days, rows
from gangru_dist.config import sources
from gangru_dist.config.identity import model_settings
from gangru_dist.panel import adjustment, bucket, checks, copies, jumps
from gangru_dist.report import figures
from gangru_dist.report.document import write_report
from gangru_dist.report.text import gettext, ngettext, translate_reason, use_language
from gangru_dist.report.tuning import write_page
from gangru_dist.runs.run import Run
from tests.report.store import RUN, samples_of, write_models, write_world
from tests.report.test_figures import _industries
from tests.report.test_tuning import write_search

PACKAGE = Path(figures.__file__).parents[1]
ASKS = {"_", "gettext", "ngettext", "mark", "Note"}
"""What a text is handed to as a literal."""
_REASONS = (adjustment, bucket, copies, days, jumps, rows)
QUALITY = {
    *(
        value
        for module in _REASONS
        for name, value in vars(module).items()
        if name.isupper() and not name.startswith("_") and isinstance(value, str) and " " in value
    ),
    "price missing, infinite or not above 0",
    "high below low",
    "open or close outside low to high",
    "volume missing, infinite or negative",
    "amount missing, infinite or negative",
    "turnover_rate infinite or negative",
    "adj_factor missing, infinite or not above 0",
    "date missing",
    "code missing",
    "identical duplicate",
    "file without rows",
    "market_cap unknown",
    "industry missing",
    "turnover_rate missing",
    "number too large or too small to be true",
}
"""Reasons in quality.json: they come as data."""
LATIN = re.compile(
    "Rank|IC|ICIR|IR|GAN|ST|Spearman|Pearson|Newey|West|Optuna|PED|ANOVA|CSV"  # terms
    "|GAN_GRU|gan_gru|other|SH|bank|coal|food|abc"  # names of runs, models, assets, industries
    "|metrics|json|trials|csv|tune|search|gangru|train|score"  # files
    "|training|learning_rate|gru|head|layers|label|horizon|open"  # settings
)
"""What a Chinese page leaves in Latin letters."""
HELD = re.compile(r"%\((\w+)\)s|%%|%")


def in_python(file: Path) -> Iterator[tuple[str, ...]]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            texts = [text for text in texts if isinstance(text, str)]
            if name in ASKS and texts:
                yield tuple(texts)


def in_template(file: Path) -> Iterator[tuple[str, ...]]:
    environment = Environment(extensions=["jinja2.ext.i18n"], autoescape=True)
    for _, _, texts in environment.extract_translations(file.read_text()):
        asked = texts if isinstance(texts, tuple) else (texts,)
        yield tuple(text for text in asked if text is not None)


def asked() -> list[tuple[str, ...]]:
    """Every text, with its plural where it has one."""
    code = [*(PACKAGE / "report").glob("*.py"), PACKAGE / "evaluation" / "summary.py"]
    found = [texts for file in code for texts in in_python(file)]
    pages = (PACKAGE / "report" / "templates").glob("*.html")
    found += [texts for file in pages for texts in in_template(file)]
    return [*found, *((reason,) for reason in QUALITY)]


def held(text: str) -> list[str]:
    """Names of the values in a text; `%` alone for a bare per cent sign."""
    return sorted({match[1] or match[0] for match in HELD.finditer(text)} - {"%%"})


@pytest.fixture(scope="module")
def chinese() -> dict[str, str]:
    """English text -> translation."""
    file = PACKAGE / "report" / "languages" / "zh.toml"
    return tomllib.loads(file.read_text())["texts"]


class _Texts(HTMLParser):
    """What a reader sees: text and titles, without style, script and code."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br", "link", "wbr"):
            self.inside.append(tag)
        self.seen += [value or "" for name, value in attrs if name in ("title", "aria-label")]

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"style", "script", "code"} & set(self.inside):
            self.seen.append(data.strip())


def shown(page: str) -> list[str]:
    parser = _Texts()
    parser.feed(page)
    return parser.seen


class TestCatalogue:
    def test_every_text_is_translated(self, chinese):
        missing = sorted({texts[0] for texts in asked()} - set(chinese))
        assert not missing, "add to report/languages/zh.toml"

    def test_no_line_is_left_over(self, chinese):
        unused = sorted(set(chinese) - {texts[0] for texts in asked()})
        assert not unused, "no longer used: remove from report/languages/zh.toml"

    def test_the_same_values_stand_in_both(self, chinese):
        wrong = [texts[0] for texts in asked() if held(texts[-1]) != held(chinese[texts[0]])]
        assert not wrong

    def test_reasons_are_those_of_the_panel(self):
        code = "".join(
            file.read_text() for part in ("bars", "panel") for file in PACKAGE.glob(f"{part}/*.py")
        )
        assert all(f'"{reason}"' in code for reason in QUALITY)

    def test_reasons_that_name_a_column_or_number_are_translated(self):
        reasons = {*rows.TIMES_PRICE, f"{checks.GAP} adj_factor", "pe_ttm missing or infinite"}
        with use_language("zh"):
            for reason in reasons:
                assert re.search("[\u4e00-\u9fff]", translate_reason(reason)), reason
            assert (
                translate_reason("day on which most stocks lack name")
                == "多数股票缺少 name 的交易日"
            )
            fixed = "price missing, infinite or not above 0"
            assert translate_reason(fixed) == gettext(fixed)
        for reason in reasons:
            assert translate_reason(reason) == reason


class TestPages:
    def test_no_english_is_left(self, tmp_path):
        """Whoever prints a text without asking for its translation fails here."""
        world = write_world(tmp_path, runs=(RUN, "other"))
        write_models(world.root, RUN, accuracy=0.99, samples=samples_of(("open",), spread=0.01))
        folder = world.root.child("runs", RUN)
        write_search(folder)
        panel = world.root.child("panel")
        quality = panel.read_json("quality.json")
        quality |= {"quarantined": {"high below low": {"rows": 2, "example": {}}}, "notes": {}}
        panel.write_json("quality.json", quality)
        cfg = sources.with_values(
            world.cfg, {"report.language": "zh", "factor.winsorize_mad": 4.0}, "test"
        )  # scored with another: a warning
        run = Run(world.root, RUN, cfg)
        write_report(run, "other", overwrite=True)
        write_page(run)
        report = folder.read_bytes("report/report.html").decode()
        assert '<html lang="zh-CN">' in report
        for page in (report, folder.read_bytes("tune/tuning.html").decode()):
            body, _, rest = page.partition("配置与数据来源")  # settings and sources are keys
            texts = shown(body) + shown(rest)[-3:]
            words = {word for text in texts for word in re.findall(r"[A-Za-z_]{2,}", text)}
            assert {word for word in words if not LATIN.fullmatch(word)} == set()

    def test_metrics_and_tables_stay_english(self, tmp_path, monkeypatch):
        monkeypatch.setattr("gangru_dist.report.document.draw_figures", lambda *_: {})
        world = write_world(tmp_path)
        folder = world.root.child("runs", RUN, "report")
        kept = []
        for name in ("en", "zh"):
            cfg = sources.with_values(world.cfg, {"report.language": name}, "test")
            write_report(Run(world.root, RUN, cfg))
            kept.append(
                {f: folder.read_bytes(f) for f in folder.list_files() if f != "report.html"}
            )
        assert kept[0] == kept[1]

    def test_long_chinese_names_get_their_room(self):
        """A name starts where the longest one's width, one em a letter, still fits the picture."""
        short, long = "银行", "电力设备及新能源制造业"
        svg = figures.draw_industry_ics(_industries(short, long))
        place = re.search(rf'x="([\d.]+)" y="[\d.]+"[^>]*>{long}<', svg)
        size = re.search(rf"font-size: ([\d.]+)px[^>]*>{long}<", svg)
        assert place
        assert size
        assert float(place[1]) >= len(long) * float(size[1])

    def test_pictures_name_fonts_that_have_chinese(self):
        svg = figures.draw_industry_ics(_industries("食品饮料"))
        for family in ("Noto Sans CJK SC", "Source Han Sans SC", "PingFang SC", "Microsoft YaHei"):
            assert f"'{family}'" in svg
        css = (PACKAGE / "report" / "templates" / "style.css").read_text()
        assert css.count('"Source Han Sans SC"') == css.count('"WenQuanYi Micro Hei"') == 2


class TestSetting:
    def test_language_is_a_setting_that_decides_no_model(self):
        default, chosen = sources.load("demo"), sources.load("demo", None, ["report.language=zh"])
        assert (default.report.language, chosen.report.language) == ("en", "zh")
        assert model_settings(default) == model_settings(chosen)

    def test_one_form_serves_every_number(self):
        for number, text in ((1, "%(num)s month"), (3, "%(num)s months")):
            assert ngettext("%(num)s month", "%(num)s months", number) == text
            with use_language("zh"):
                assert ngettext("%(num)s month", "%(num)s months", number) == "%(num)s 个月"

    def test_a_thread_has_its_own_language(self):
        with use_language("zh"), ThreadPoolExecutor(1) as pool:
            assert gettext("Turnover") == "换手率"
            assert pool.submit(gettext, "Turnover").result() == "Turnover"
        assert gettext("Turnover") == "Turnover"
