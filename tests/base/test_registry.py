"""Names, wrong names, and when a function counts as another one."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from gangru_dist.base.errors import ConfigError, PanelError
from gangru_dist.base.registry import Registry, find_close_names, hash_source, suggest_names

CODE = '''
"""A user's module."""
from math import pi

DAYS = 5


def helper(values):
    return [v / DAYS for v in values]


def item(values: list[float]) -> list[float]:
    """What it gives."""
    return [sum(helper(values)) for _ in values]  # a comment


def other(values):
    return values
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def load(folder: Path, code: str, name: str = "users_code") -> Any:
    """A module of this code, read afresh."""
    path = folder / f"{name}.py"
    path.write_text(code)
    sys.modules.pop(name, None)
    importlib.invalidate_caches()
    for cached in (folder / "__pycache__").glob("*"):
        cached.unlink()
    return importlib.import_module(name)


def load_again(name: str) -> Any:
    """A module as its file is now."""
    sys.modules.pop(name, None)
    importlib.invalidate_caches()
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        return importlib.import_module(name)
    finally:
        sys.dont_write_bytecode = before


def one(x: int) -> int:
    return x


def two(x: int) -> int:
    return 2 * x


class TestNames:
    def test_wrong_name_gives_the_nearest(self) -> None:
        table: Registry[Any] = Registry("thing", PanelError)
        table.register("close", one)
        table.register("open", two)
        with pytest.raises(PanelError, match=r"no thing 'clos'; nearest: \['close'\]\."):
            table["clos"]
        with pytest.raises(PanelError, match=r"nearest: \['close', 'open'\]"):
            table["zzz"]
        assert "clos" not in table
        assert table.check_name("open") == "open"
        with pytest.raises(ValueError, match=r"no thing 'opne'; nearest: \['open'"):
            table.check_name("opne")

    def test_two_items_of_one_name(self) -> None:
        table: Registry[Any] = Registry("thing")
        table.register("a", one)
        with pytest.raises(ConfigError, match=r"thing 'a' is .*one already; .*two needs another"):
            table.register("a", two)
        assert table["a"] is one

    def test_a_cell_run_again_replaces_its_own_item(self, folder: Path) -> None:
        table: Registry[Any] = Registry("thing")
        for _ in range(2):
            newest = load(folder, CODE).item
            table.register("a", newest)
        assert table["a"] is newest

    def test_an_item_is_imported_when_it_is_asked_for(self, folder: Path) -> None:
        table: Registry[Any] = Registry("thing", items={"late": "users_late:item"})
        assert (list(table), table.check_name("late")) == (["late"], "late")
        (folder / "users_late.py").write_text(CODE)
        assert table["late"]([5.0]) == [1.0]
        assert table["late"] is sys.modules["users_late"].item

    @pytest.mark.parametrize("name", ["volum", "Close", "x"])
    def test_close_names_are_known_ones(self, name: str) -> None:
        known = ["open", "close", "volume"]
        assert set(find_close_names(name, known)) <= set(known)
        assert suggest_names(name, known) == (find_close_names(name, known) or known)


class TestSourceHash:
    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("  # a comment", "  # another"),
            ('"""What it gives."""', '"""Another text."""'),
            ("return [sum(helper(values)) for", "return [ sum( helper(values) )\n      for"),
            ("return values\n", "return None\n"),  # of a function that it does not name
            ('"""A user\'s module."""', '"""Mine."""'),
        ],
        ids=["comment", "docstring", "layout", "another function", "module"],
    )
    def test_what_decides_nothing(self, folder: Path, old: str, new: str) -> None:
        assert old in CODE
        before = hash_source(load(folder, CODE).item)
        assert hash_source(load(folder, CODE.replace(old, new)).item) == before

    @pytest.mark.parametrize(
        ("old", "new"),
        [("sum(", "max("), ("v / DAYS", "v * DAYS"), ("DAYS = 5", "DAYS = 6")],
        ids=["its own code", "a function it calls", "a constant of that"],
    )
    def test_what_decides_something(self, folder: Path, old: str, new: str) -> None:
        assert old in CODE
        before = hash_source(load(folder, CODE).item)
        assert hash_source(load(folder, CODE.replace(old, new)).item) != before

    @pytest.mark.parametrize(
        ("made", "use"),
        [
            ("BOUNDS = [0, @]", "BOUNDS[1]"),
            ("BOUNDS = {'a': @}", "BOUNDS['a']"),
            ("BOUNDS = {0, @}", "max(BOUNDS)"),
            ("import array\nB = array.array('d', [@])", "B[0]"),
            ("A = @\nB = [A]", "B[0]"),
            ("B = [0]\nB.append(@)", "B[1]"),
            ("B = (abs, [@])", "B[1][0]"),
            ("class C:\n    limit = @", "C.limit"),
            (
                "class C:\n    def f(self): return g()\ndef g(): return D.x\nclass D: x = @",
                "C().f()",
            ),
            ("from functools import cache\n@cache\ndef f(): return @".replace("@c", "\0c"), "f()"),
            ("class D:\n    def __init__(self, f): self.f = f\n\0D\ndef f(): return @", "f.f()"),
            ("from functools import partial\ndef g(n): return n + @\nf = partial(g, 1)", "f()"),
        ],
    )
    def test_whatever_it_uses_decides(self, folder: Path, made: str, use: str) -> None:
        def hash_with(number: str) -> str:
            code = made.replace("@", number).replace("\0", "@")
            return hash_source(load(folder, f"{code}\n\ndef item():\n    return {use}\n").item)

        assert hash_with("1") == hash_with("1") != hash_with("2")

    def test_a_list_of_a_neighboring_module(self, tmp_path: Path, folder: Path) -> None:
        (folder / "users_package").mkdir()
        (folder / "users_package" / "__init__.py").write_text("")
        found = []
        for limit in (1, 2, 2):
            (folder / "users_package" / "limits.py").write_text(f"LIMITS = [{limit}]  # {limit}\n")
            sys.modules.pop("users_package.limits", None)
            code = "from .limits import LIMITS as BOUNDS\n\ndef item():\n    return BOUNDS[0]\n"
            (folder / "users_package" / "rules.py").write_text(code)
            found.append(hash_source(load_again("users_package.rules").item))
        assert found[0] != found[1] == found[2]

    def test_what_a_cache_holds_decides_nothing(self, folder: Path) -> None:
        code = "KNOWN = {}\n\ndef item(n):\n    return KNOWN.setdefault(n, n)\n"
        module = load(folder, code)
        before = hash_source(module.item)
        module.item(3)
        assert hash_source(module.item) == before

    def test_functions_that_call_each_other(self, folder: Path) -> None:
        code = (
            "def item(n):\n    return other(n)\n\n\ndef other(n):\n    return n and item(n - 1)\n"
        )
        assert len(hash_source(load(folder, code).item)) == 64

    def test_of_a_class(self, folder: Path) -> None:
        code = "class Item:\n    def run(self):\n        return 1\n"
        found = {hash_source(load(folder, code.replace("1", n)).Item) for n in "112"}
        assert len(found) == 2

    def test_without_a_source(self) -> None:
        typed: dict[str, Any] = {"__name__": __name__}
        exec(compile("def typed(): return 1", "<typed>", "exec"), typed)  # "<string>" is of `-c`
        with pytest.raises(
            ConfigError, match=r"source of .*typed cannot be found.* in a file or a notebook"
        ):
            hash_source(typed["typed"])
