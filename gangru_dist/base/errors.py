"""Every error this package raises on purpose.

    GangruError
    ├── ConfigError     a setting is misspelt, of the wrong type, or impossible
    ├── StorageError    a URI cannot be used, or a name would leave its folder
    ├── PanelError      the panel is missing, unfinished, or lacks what was asked for
    │   └── BarsError   the vendor's bars cannot be trusted; names file, column and a row
    ├── WindowError     a refit day does not exist or has no model
    ├── TrainingError   one or more windows failed
    │   └── DivergedError  a loss is no longer finite
    ├── FactorError     the factor table is missing, or a score cannot be trusted
    ├── EvaluationError the factor table is empty, too short, or from another panel
    └── ResourceError   the cluster can never meet a request

A message says what is wrong, the value, where, and how to fix it. `commands.cli.run_job` prints it
without a traceback and exits with 2 (1 for a TrainingError), also for a full disk or a path without
write permission. Any other exception is a bug and shows its traceback. If a setting would help,
`format_flag` formats it so that it can be pasted into the command.
"""

import json
import shlex
import textwrap


def format_flag(key: str, value: object) -> str:
    """Format a setting as the command line takes it: --set 'panel.without=["turnover_rate"]'."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"--set {shlex.quote(f'{key}={text}')}"


def extract_reason(error: BaseException) -> str:
    """Return the last line of what went wrong, at most 500 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:500]


def shorten(reason: object) -> str:
    """Return the first line of what another library says, at most 160 characters."""
    first = (str(reason).strip() or type(reason).__name__).splitlines()[0]
    return textwrap.shorten(first, 160, placeholder=" …").rstrip(".")


class GangruError(Exception):
    """Base of all user-fixable errors."""


class ConfigError(GangruError):
    """A setting is misspelt, of the wrong type, or impossible with another."""


class StorageError(GangruError):
    """A URI cannot be used, or a name would leave its folder."""


class PanelError(GangruError):
    """The panel is missing, unfinished, or lacks what was asked for."""


class BarsError(PanelError):
    """The vendor's bars cannot be trusted; the message names file, column and a row."""


class WindowError(GangruError):
    """A refit day does not exist, lacks history, or has no model."""


class TrainingError(GangruError):
    """One or more windows failed; the summary table says which and why."""


class DivergedError(TrainingError):
    """A loss or an IC is no longer finite; other settings may work."""


class EvaluationError(GangruError):
    """The factor table cannot be evaluated: empty, too short, or from another panel."""


class ResourceError(GangruError):
    """The cluster can never meet a request; the message says what is missing."""


class FactorError(GangruError):
    """The factor table is missing or cannot be written, or a score cannot be trusted."""
