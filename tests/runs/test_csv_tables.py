"""CSV files for people: no cell of them is a formula."""

import io
from pathlib import Path

import pandas as pd
import pytest

from gangru_dist.base.records import write_table
from gangru_dist.base.storage import Storage


def written(folder: Path, table: pd.DataFrame) -> str:
    root = Storage(str(folder))
    write_table(root, "x.csv", table)
    return root.read_bytes("x.csv").decode()


class TestProperties:
    @pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", " ="])
    @pytest.mark.parametrize("kind", ["object", "str", "category"])
    def test_a_formula_is_text(self, tmp_path: Path, start: str, kind: str) -> None:
        cell = f"{start}cmd|' /C calc'!A0"
        table = pd.DataFrame({"industry": pd.Series([cell, "bank", None], dtype=kind)})
        read = pd.read_csv(io.StringIO(written(tmp_path, table)), lineterminator="\n")
        assert read["industry"].tolist()[:2] == [f"'{cell}", "bank"]
        assert read["industry"].isna().tolist() == [False, False, True]

    def test_so_is_a_heading(self, tmp_path: Path) -> None:
        assert written(tmp_path, pd.DataFrame({"=1+1": [1]})) == "'=1+1\n1\n"

    def test_numbers_and_dates_stay(self, tmp_path: Path) -> None:
        table = pd.DataFrame(
            {
                "a": [-0.5, 1e-9],
                "b": ["-0.5", "+1"],
                "day": pd.to_datetime(["2019-01-02", "2019-01-03"]),
                "flag": [True, False],
                "codes": ["600000.SH", "a-b"],
            }
        )
        assert written(tmp_path, table) == table.to_csv(
            index=False, date_format="%Y-%m-%d", lineterminator="\n"
        )
