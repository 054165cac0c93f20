"""Which of a file's columns are ours, and what to say where one that is needed is missing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from gangru_dist.bars.columns import BAR_COLUMNS, REQUIRED
from gangru_dist.bars.formats import FORMATS, BarsFormat, SideTable
from gangru_dist.base.errors import BarsError, flag
from gangru_dist.base.registry import close_names


def choose_columns(
    file: str, names: Sequence[str], form: BarsFormat, *, given: Collection[str] = ()
) -> dict[str, str]:
    """Our column -> the file's, of a file of daily bars.

    Args:
        file: Its name.
        names: Its headings.
        form: The mapping.
        given: Our columns that side tables bring.

    Raises:
        BarsError: A required column is missing, one that we need is there twice, or the factor
            and the user's word on the prices contradict each other.
    """
    chosen = _found(file, names, form, (*BAR_COLUMNS, *form.further))
    needed = [name for name in REQUIRED if not (name == "amount" and "vwap" in chosen)]
    missing = [name for name in needed if name not in chosen]
    if missing:
        raise _missing(file, names, form, missing, chosen)
    twice = sorted(set(given) & set(chosen))
    if twice:
        raise BarsError(
            f"{file} has the column {chosen[twice[0]]} ({twice[0]}), and the table beside the bars "
            f"in {_folder_of(twice[0], form)}/ has it too. Move that table away, or leave the "
            "column out of the bars."
        )
    has_factor = "adj_factor" in {*chosen, *given}
    if form.prices == "traded" and not has_factor:
        raise _no_factor(file, form)
    if form.prices == "adjusted" and has_factor:
        raise BarsError(
            f"bars.prices=adjusted says that prices need no factor, and {file} comes with one "
            f"({chosen.get('adj_factor', _folder_of('adj_factor', form))}): prices would be "
            "adjusted twice, or not at all. Leave out the setting, or the factor."
        )
    return chosen


def choose_table_columns(
    file: str, names: Sequence[str], form: BarsFormat, table: SideTable
) -> dict[str, str]:
    """Our column -> the file's, of a file of a side table.

    Raises:
        BarsError: A key is missing, or everything that the table is there for.
    """
    form = form.of_table(table)
    chosen = _found(file, names, form, (*table.keys, *table.gives))
    missing = [name for name in table.keys if name not in chosen]
    if not set(table.gives) & set(chosen):
        missing += table.gives
    if missing:
        raise BarsError(
            f"{file} lacks the column(s) {_spelled(missing, form)} of the side table "
            f"{file.split('/')[0]!r}; it has {_shown(names)}. Export the table as docs/data.md "
            "says, or give the folder another name if it holds bars."
        )
    return chosen


def check_renamed(uri: str, there: Sequence[str], form: BarsFormat) -> None:
    """Refuse a mapping of the user's that no file answers to; `there`: columns of all files."""
    absent = [
        (ours, form.names(ours)[0]) for ours in form.renamed if form.find(ours, there) is None
    ]
    if absent:
        lower = {name.lower(): name for name in there}
        nearest = {
            theirs: [lower[name] for name in close_names(theirs.lower(), lower, 0.6)]
            for _, theirs in absent
        }
        spelled = ", ".join(
            f"bars.columns.{ours}={theirs} (nearest: {', '.join(nearest[theirs]) or 'none'})"
            for ours, theirs in absent
        )
        raise BarsError(
            f"no file at {uri} has what the mapping names: {spelled}; there are "
            f"{_shown(there)}. Correct the name, or leave the mapping out."
        )


def _found(
    file: str, names: Sequence[str], form: BarsFormat, columns: Collection[str]
) -> dict[str, str]:
    chosen = {ours: name for ours in columns if (name := form.find(ours, names)) is not None}
    twice = sorted({name for name in chosen.values() if list(names).count(name) > 1})
    if twice:
        raise BarsError(f"{file} has column(s) {twice} twice. Remove or rename one of them.")
    return chosen


def _missing(
    file: str,
    names: Sequence[str],
    form: BarsFormat,
    missing: Sequence[str],
    chosen: Mapping[str, str],
) -> BarsError:
    """What is missing, who exports it, and the setting that would find it."""
    start = f"{file} lacks the column(s) {_spelled(missing, form)}; it has {_shown(names)}."
    other = _other_format(names, form)
    if other:
        return BarsError(f"{start} They read like another format: {flag('bars.format', other)}")
    calls = sorted({form.calls[name] for name in missing if name in form.calls})
    text = f" {', '.join(calls)} exports what is missing." if calls else ""
    free = {name.lower(): name for name in names if name not in chosen.values()}
    guesses = [
        flag(f"bars.columns.{name}", free[near[0]])
        for name in missing
        if (near := close_names(name, free, 0.5))
    ]
    if guesses:
        end = f"If they go by other names, say so: {' '.join(guesses)}"
    elif list(missing) == ["code"]:
        end = f"If the file's name is the stock, say so: {flag('bars.code_from_name', True)}"
    else:
        end = "If they go by other names, name those in bars.columns."
    return BarsError(f"{start}{text} If it is no bars file, point --bars at the bars only. {end}")


def _no_factor(file: str, form: BarsFormat) -> BarsError:
    folders = [folder for folder, table in form.tables.items() if "adj_factor" in table.gives]
    beside = f", or a table beside the bars in {' or '.join(f'{f}/' for f in folders)}"
    call = f" ({form.calls['adj_factor']})" if "adj_factor" in form.calls else ""
    return BarsError(
        f"{file} has no adjustment factor{call}: without it every split and dividend would read "
        f"as a loss. Add the column {'/'.join(form.names('adj_factor'))}"
        f"{beside if folders else ''}; docs/data.md names the calls. If the prices are adjusted "
        f"already, say so: {flag('bars.prices', 'adjusted')}"
    )


def _other_format(names: Sequence[str], form: BarsFormat) -> str | None:
    """The format that finds all required columns where this one does not; None if none or own."""
    for other in FORMATS.values():
        found = [name for name in REQUIRED if other.find(name, names) is not None]
        if other.name != form.name and not form.renamed and len(found) == len(REQUIRED):
            return other.name
    return None


def _folder_of(column: str, form: BarsFormat) -> str:
    return next((name for name, table in form.tables.items() if column in table.gives), column)


def _spelled(columns: Sequence[str], form: BarsFormat) -> str:
    return ", ".join(
        name if form.names(name) == (name,) else f"{name} (there: {'/'.join(form.names(name))})"
        for name in columns
    )


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:40]) + (f" and {len(names) - 40} more" if len(names) > 40 else "")
