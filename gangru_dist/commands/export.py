"""Export a run's factor and scores: CSV, parquet, or a table of a database.

    gangru export --storage data --run monthly factor.parquet
    gangru export --storage data --run monthly --from 2020-01-01 s3://bucket/out/factor.csv
    gangru export --storage data --run monthly sqlite:///research.db --table monthly

The columns are date, asset, score, factor, quantile, window and model; `read_factor` gives the same
in Python. A database is given by SQLAlchemy's URL and needs its driver. A table that is already
there is replaced only with --overwrite.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from gangru_dist.commands import Parser, tell

if TYPE_CHECKING:
    import pandas as pd

_ROWS = 100_000
"""Of a batch that a database gets."""


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = Parser(prog="gangru export", description=__doc__)
    add = parser.add_argument
    add("place", metavar="FILE", help="path or URI that ends in .csv or .parquet, or a database")
    parser.add_storage()
    parser.add_run()
    add("--from", dest="start", metavar="DAY", help="first day (default: the first scored)")
    add("--to", dest="end", metavar="DAY", help="last day (default: the newest scored)")
    add("--table", metavar="NAME", help="of a database (default: factor)")
    add("--overwrite", action="store_true", help="replace what is there")
    return _export(parser.parse_args(argv))


def _export(args: argparse.Namespace) -> int:
    from gangru_dist.base.errors import ConfigError, FactorError  # as pandas, not for --help
    from gangru_dist.base.records import write_table
    from gangru_dist.base.redaction import redact
    from gangru_dist.base.storage import Storage, split_uri
    from gangru_dist.base.store_check import check_store
    from gangru_dist.maths.calendar import to_day
    from gangru_dist.scoring.reader import read_factor

    kind = args.place.rpartition(".")[2].lower()
    is_file = kind in ("csv", "parquet")
    scheme = args.place.partition("://")[0].partition("+")[0]
    if not is_file and (scheme == args.place or scheme in ("s3", "gs", "file", "hdfs", "abfs")):
        raise ConfigError(
            f"{args.place} ends neither in .csv nor in .parquet, and is no URL of a database, such "
            "as sqlite:///research.db or postgresql://host/research."
        )
    if is_file and args.table:
        raise ConfigError(
            f"--table {args.table} is of a database, and {args.place} is a file. Leave --table out."
        )
    check_store(Storage(args.storage), writes=False)
    start, end = to_day(args.start, "--from"), to_day(args.end, "--to")
    found = read_factor(args.storage, args.run, start, end)
    if found.empty:
        span = f"from {start or 'the first day'} to {end or 'the newest'}"
        raise FactorError(f"run {args.run!r} has no scored day {span}.")
    if not is_file:
        _write_sql(found, args.place, args.table or "factor", replace=args.overwrite)
    else:
        folder, name = split_uri(args.place)
        root = Storage(folder)
        if root.exists(name) and not args.overwrite:
            raise ConfigError(f"{args.place} is there already. Give another name, or --overwrite.")
        if kind == "csv":
            write_table(root, name, found)
        else:
            stream = io.BytesIO()
            found.to_parquet(stream, index=False)
            root.write_bytes(name, stream.getvalue())
    days = f"{found['date'].iloc[0]:%Y-%m-%d} to {found['date'].iloc[-1]:%Y-%m-%d}"
    tell(f"{len(found)} rows, {days}\n  {redact(args.place)}\n")
    return 0


def _write_sql(found: pd.DataFrame, url: str, table: str, *, replace: bool) -> None:
    """Write all rows in one transaction, where the database can.

    Raises:
        ConfigError: There is no such database or driver, or the table is there already.
    """
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    from gangru_dist.base.errors import ConfigError, shorten

    try:
        with create_engine(url).begin() as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN")  # else it drops the table before one begins
            how: Literal["replace", "fail"] = "replace" if replace else "fail"
            found.to_sql(table, connection, if_exists=how, index=False, chunksize=_ROWS)
    except (SQLAlchemyError, ImportError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"the table {table!r} cannot be written to the database: {shorten(error)}. Name "
            "another --table, or give --overwrite; a driver is a package, such as psycopg2."
        ) from error
