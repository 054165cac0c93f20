"""A factor that somebody else made, as a table of date, asset and factor.

What is taken: a table with columns, or with an index, of days and assets under any of their usual
names; a series by both; days x assets. What could mean two things is refused.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from gangru_dist.bars.side_tables import Spellings
from gangru_dist.base.errors import EvaluationError

_DATE = ("date", "datetime", "trade_date", "day", "日期", "交易日期")
_ASSET = ("asset", "code", "instrument", "symbol", "ts_code", "order_book_id", "ticker", "stock",
          "股票代码", "代码")  # fmt: skip
_NUMBERS = ("factor", "score", "quantile")
_CHINA = "Asia/Shanghai"
_DAILY = ("period[D]", "period[B]")
_DAY = r"\s*(?:19|20)\d\d(?:([-/.])\d{1,2}\1\d{1,2}|\d{4})(?:[T ].*)?\s*"
"""A day as text: the year first, so that no month can be a day."""
_OFFSET = r"[+-]\d\d:?\d\d\s*$"
"""Of a time from UTC, at the end of a text."""
_LAYOUT = "Give a DataFrame with the columns date, asset and factor, or a Series by (date, asset)."


def to_factor_table(factor: object) -> pd.DataFrame:
    """Columns date (datetime64, midnight), asset (text), factor, and score and quantile if given.

    Args:
        factor: A DataFrame or a Series. One column of numbers is the factor, whatever its name. A
            time of day that all days have is dropped; days of a time zone are those of the zone,
            or China's where only these begin at midnight.

    Raises:
        EvaluationError: It is neither, lacks a column, has two columns that mean the same, or a
            day, an asset or a number that cannot be read.
    """
    if isinstance(factor, pd.Series):
        factor = factor.to_frame("factor")
    if not isinstance(factor, pd.DataFrame):
        raise EvaluationError(f"the factor is a {type(factor).__name__}. {_LAYOUT}")
    if factor.columns.nlevels > 1 or not factor.columns.is_unique:
        raise EvaluationError(f"the factor table has two columns of one name. {_LAYOUT}")
    table = _name_columns(factor)
    missing = [name for name in ("date", "asset", "factor") if name not in table]
    if missing or table.empty:
        what = f"lacks the columns {missing}; it has {list(factor.columns)[:10]}"
        raise EvaluationError(f"the factor table {what if missing else 'has no rows'}. {_LAYOUT}")
    read = {"date": _read_days(table["date"]), "asset": _read_assets(table["asset"])}
    read |= {name: _read_numbers(table[name]) for name in _NUMBERS if name in table}
    return pd.DataFrame(read)


def respell_assets(table: pd.DataFrame, assets: np.ndarray) -> pd.DataFrame:
    """The table with the market's spelling of each asset; `assets`: (N,) str. Others stay."""
    names = table["asset"].unique()
    foreign = set(names).difference(assets.tolist())
    if not foreign:
        return table
    spellings = Spellings(assets.tolist())
    found = {name: spellings.find(name) or name for name in foreign}
    return table.assign(asset=table["asset"].map(lambda name: found.get(name, name)))


def _name_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with the columns date, asset and factor, wherever it has them."""
    index, labels = frame.index, _match_labels(frame.columns)
    columns = {name: frame[label].to_numpy() for name, label in labels.items()}
    for number in range(index.nlevels):
        level = index.get_level_values(number)
        name = _our_name(str(level.name), columns)
        if name not in ("date", "asset"):
            name = "date" if _are_days(level) else "asset"
        if isinstance(index, pd.RangeIndex) or name in columns:
            continue
        if index.nlevels > 1 or name == "date" or level.name is not None:
            columns[name] = level.to_numpy()
    if "date" in columns and "asset" not in columns and index.nlevels == 1:
        wide = {name: values for name, values in columns.items() if name != "date"}
        if "factor" in wide or not all(map(_has_numbers, wide.values())):
            return pd.DataFrame(columns)
        rows = pd.DataFrame(wide).rename_axis(columns="asset").stack()  # noqa: PD013  # days x assets
        days = np.asarray(columns["date"], dtype=object)[rows.index.get_level_values(0)]
        codes = rows.index.get_level_values(1)
        return pd.DataFrame({"date": days, "asset": codes, "factor": rows.to_numpy()})
    if "factor" not in columns:
        others = [name for name in columns if name not in ("date", "asset", "quantile")]
        if len(others) == 1:
            columns["factor"] = columns.pop(others[0])
    return pd.DataFrame(columns)


def _has_numbers(values: np.ndarray) -> bool:
    found = pd.to_numeric(pd.Series(values), errors="coerce")
    return bool(found.notna().any() or pd.isna(values).all())


def _match_labels(labels: pd.Index) -> dict[str, object]:
    """Our name of each column -> its label.

    Raises:
        EvaluationError: Two labels mean the same.
    """
    given = {str(label) for label in labels}
    found: dict[str, object] = {}
    for label in labels:
        name = _our_name(str(label), given)
        if name in found:
            raise EvaluationError(
                f"the factor table has the columns {found[name]!r} and {label!r}, which both mean "
                f"{name}. Keep one of them."
            )
        found[name] = label
    return found


def _our_name(name: str, columns: object) -> str:
    """Our name of a column, unless the table has both."""
    for ours, names in (("date", _DATE), ("asset", _ASSET)):
        if name.lower() in names and ours not in columns:  # type: ignore[operator]
            return ours
    return name


def _are_days(values: pd.Index) -> bool:
    """Whether an index has days rather than assets."""
    if isinstance(values, pd.DatetimeIndex | pd.PeriodIndex):
        return True
    return bool(values.astype(str).str.fullmatch(_DAY).all()) and len(values) > 0


def _read_days(values: pd.Series) -> pd.Series:
    """Midnights without a time zone.

    Raises:
        EvaluationError: A value is no day, is missing, has another time of day than the others, or
            is a period of several days: on which of them its factor was known, nobody can tell.
    """
    if isinstance(values.dtype, pd.PeriodDtype):
        daily = pd.Series(str(values.dtype) in _DAILY, values.index)
        _require(daily, values, f"is a {values.dtype}. Give the day on which the value was known")
        values = values.dt.to_timestamp()
    if not isinstance(values.dtype, pd.DatetimeTZDtype) and values.dtype.kind != "M":
        texts = values.astype(str)
        good = texts.str.fullmatch(_DAY)
        _require(good, values, "is no day. Write YYYY-MM-DD, or give datetimes")
        try:
            values = pd.to_datetime(texts.str.strip(), format="mixed", errors="coerce")
        except ValueError:  # offsets that differ, as those of summer and winter do
            local = texts.str.replace(_OFFSET, "", regex=True)
            values = pd.to_datetime(local, format="mixed", errors="coerce")
        _require(values.notna(), texts, "is no day. Write YYYY-MM-DD")
    _require(values.notna(), values, "is missing: each row needs a day")
    if values.dt.tz is not None:
        own, china = values.dt.tz_localize(None), values.dt.tz_convert(_CHINA).dt.tz_localize(None)
        in_china = (own != own.dt.normalize()).any() and (china == china.dt.normalize()).all()
        values = china if in_china else own
    days = values.dt.normalize()
    _require(values - days == values.iloc[0] - days.iloc[0], values, "has another time of day")
    found: pd.Series = days.astype("datetime64[s]")
    return found


def _read_assets(values: pd.Series) -> pd.Series:
    """Text; six digits of a number, which has lost its zeros."""
    _require(values.notna(), values, "is missing: each row needs an asset")
    if pd.api.types.is_integer_dtype(values.dtype):
        return values.astype(str).str.zfill(6)
    return values.astype(str).str.strip()


def _read_numbers(values: pd.Series) -> pd.Series:
    """Finite numbers or NaN."""
    plain = pd.Series(values.dtype.kind != "c", values.index)
    _require(plain, values, "is complex. Give numbers")
    try:
        found = pd.to_numeric(values, errors="coerce").astype(np.float64)
    except (TypeError, ValueError) as error:
        where = f"{values.name} of the factor table"
        raise EvaluationError(f"{where}: {error}. Give numbers.") from None
    _require(found.notna() | values.isna(), values, "is no number")
    finite = ~found.isin([np.inf, -np.inf])
    _require(finite, values, "is infinite. Leave the row out, or give a number")
    return found


def _require(good: pd.Series, values: pd.Series, what: str) -> None:
    if not good.all():
        bad = values[~good.to_numpy(dtype=bool)]
        raise EvaluationError(
            f"{values.name} of the factor table: {str(bad.iloc[0])!r} (row {bad.index[0]}) {what}. "
            f"Rows like it: {len(bad)} of {len(values)}."
        )
