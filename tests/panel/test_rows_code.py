"""What a panel was made by: its rows' code, and no comment; and what follows from it."""

from __future__ import annotations

import ast
import importlib
import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from gangru_dist.cluster_map import here
from gangru_dist.config import PanelConfig, RunConfig
from gangru_dist.errors import PanelError
from gangru_dist.features import price_volume
from gangru_dist.panel.build import build_panel
from gangru_dist.panel.manifest import Manifest, read_manifest
from gangru_dist.panel.rows_code import BUILD, rows_code
from gangru_dist.storage import Storage
from tests.made_bars import make_bars, write

FEATURES = ("close", "volume", "daily_return")
CFG = RunConfig(panel=PanelConfig(features=FEATURES, buckets=2))
INTAKE = (
    *(
        "codes",
        "columns",
        "csv_files",
        "dated",
        "days",
        "files",
        "formats",
        "headings",
        "identities",
    ),
    *("joining", "price_limits", "qlib_files", "reader", "schema", "tables", "validate"),
)
MODULES = [f"gangru_dist.{name}" for name in (*BUILD, *(f"bars.{name}" for name in INTAKE))]
Edit = Callable[[str], str]


class _OtherMaths(ast.NodeTransformer):
    """Swaps the first comparison, sum or text that a function's result hangs on."""

    def __init__(self) -> None:
        self.is_done = False

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if self.is_done or not isinstance(node.value, int | float | str):
            return node
        self.is_done = True
        return ast.Constant(node.value * 2 or 1)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        return node if isinstance(node.value, ast.Constant) else self.generic_visit(node)

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        return node


def other_maths(source: str) -> str:
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    change = _OtherMaths()
    for function in functions or [tree]:
        change.visit(function)
    assert change.is_done
    return ast.unparse(tree)


def comment(source: str) -> str:
    return f"# another remark\n{source}\n\n# and one at the end\n"


def docstring(source: str) -> str:
    return f'"""Another."""\n{source}'


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Edit], None]:
    """Makes the source of a module, or of a function, read as if it had been edited."""
    real = inspect.getsource

    def edit(name: str, change: Edit) -> None:
        def getsource(item: object) -> str:
            own = item.__name__ if isinstance(item, ModuleType) else item.__qualname__  # type: ignore[attr-defined]
            return change(real(item)) if own == name else real(item)  # type: ignore[arg-type]

        monkeypatch.setattr(inspect, "getsource", getsource)

    return edit


class TestCode:
    @pytest.mark.parametrize("name", MODULES)
    @pytest.mark.parametrize("change", [comment, docstring])
    def test_a_remark_changes_nothing(
        self, name: str, change: Edit, edited: Callable[[str, Edit], None]
    ) -> None:
        before = rows_code(FEATURES)
        edited(name, change)
        assert inspect.getsource(importlib.import_module(name)).startswith(change("")[:5])
        assert rows_code(FEATURES) == before

    @pytest.mark.parametrize("name", MODULES)
    def test_other_maths_changes_it(self, name: str, edited: Callable[[str, Edit], None]) -> None:
        before = rows_code(FEATURES)
        edited(name, other_maths)
        assert rows_code(FEATURES) != before

    @pytest.mark.parametrize(
        ("name", "counts"),
        [
            ("daily_return", True),
            ("ago", True),  # a helper of it
            ("adjust", True),
            ("compute", True),
            ("volatility_5d", False),  # of no listed feature
            ("last", False),
        ],
    )
    def test_features_count_that_are_listed(
        self, name: str, counts: bool, edited: Callable[[str, Edit], None]
    ) -> None:
        before = rows_code(FEATURES)
        edited(name, lambda source: source + "    return 0\n")
        assert hasattr(price_volume, name)
        assert (rows_code(FEATURES) != before) is counts

    def test_a_feature_more_is_other_code(self) -> None:
        assert rows_code(FEATURES) != rows_code((*FEATURES, "volatility_5d"))

    def test_every_module_of_the_intake_counts(self) -> None:
        """One that a vendor's format adds too."""
        folder = Path(inspect.getfile(importlib.import_module("gangru_dist.bars"))).parent
        found = {path.stem for path in folder.glob("*.py")} - {"__init__", "quality"}
        assert found == set(INTAKE)


class TestBuild:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Storage:
        return Storage(str(tmp_path / "storage"))

    @pytest.fixture
    def bars(self, tmp_path: Path) -> Path:
        write(tmp_path / "bars", make_bars())
        return tmp_path / "bars"

    @staticmethod
    def build(root: Storage, bars: Path) -> Manifest:
        return build_panel(str(bars), root, CFG, runner=here)

    @staticmethod
    def rewrite(bars: Path) -> None:
        frame = make_bars()
        frame.loc[frame["date"] == "2019-01-15", "volume"] += 100
        write(bars, frame)

    @staticmethod
    def make_old(root: Storage) -> None:
        """The panel as cf4f81d left it: it knew the text of the features alone."""
        manifest = root.child("panel").read_json("manifest.json")
        del manifest["source"]["rows_code"], manifest["checksum"]
        manifest["source"]["features_code"] = "0" * 64
        root.child("panel").write_json("manifest.json", manifest)

    def test_a_remark_does_not_open_history(
        self, root: Storage, bars: Path, edited: Callable[[str, Edit], None]
    ) -> None:
        self.build(root, bars)
        self.rewrite(bars)
        edited("gangru_dist.bars.validate", comment)
        with pytest.raises(PanelError, match=r"rewrite history: .* in 2019-01 \d row") as refused:
            self.build(root, bars)
        assert "earlier version" not in str(refused.value)

    def test_other_code_builds_again_and_may_change_rows(
        self, root: Storage, bars: Path, edited: Callable[[str, Edit], None]
    ) -> None:
        first = self.build(root, bars)
        edited("gangru_dist.bars.price_limits", other_maths)
        again = self.build(root, bars)
        assert again.source["rows_code"] != first.source["rows_code"]
        assert (again.fingerprint, again.rewritten) == (first.fingerprint, {})
        self.rewrite(bars)
        edited("gangru_dist.bars.validate", other_maths)
        assert list(self.build(root, bars).rewritten) == ["2019-01"]

    def test_an_earlier_versions_panel_is_compared_once(
        self, root: Storage, bars: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        first = self.build(root, bars)
        self.make_old(root)
        logging.getLogger("gangru_dist").propagate = True
        with caplog.at_level(logging.INFO, logger="gangru_dist"):
            again = self.build(root, bars)
            assert "panel_code_unknown" in caplog.text
            caplog.clear()
            assert self.build(root, bars).to_json() == again.to_json()
            assert "panel_kept" in caplog.text
        assert again.to_json() == first.to_json()

    def test_an_earlier_versions_panel_is_guarded(self, root: Storage, bars: Path) -> None:
        self.build(root, bars)
        self.make_old(root)
        before = read_manifest(root).to_json()
        self.rewrite(bars)
        with pytest.raises(
            PanelError, match=r"rewrite history: .* An earlier version .*--overwrite"
        ):
            self.build(root, bars)
        assert read_manifest(root).to_json() == before
