"""Apply a function to many items: on Ray, or in this process [Ray].

What a process needs for it is made there once (`make`), in an actor as in a task. An error that
the user can act on comes back as a result, with its class and message, so that the caller raises
it once and plainly, without a traceback of Ray's. Any item may be done twice.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from gangru_dist.base.errors import GangruError
from gangru_dist.cluster import session
from gangru_dist.config.settings import RunConfig

_logger = logging.getLogger(__name__)
Result = TypeVar("Result")
Make = Callable[[], Callable[[Any], Any]]
"""Gives the work: a function of one item. Items, results and what it closes over are pickled."""
Done = Iterator[tuple[int, Any]]
"""An item's number and its result, or its GangruError, as they come."""
Runner = Callable[..., Done]
"""`map_on_ray`, or `map_here` in its place."""
_MAX_BLOCKS = 4096  # of Ray Data; more items share a task


def catch_error(call: Callable[[], Result]) -> Result | GangruError:
    """Result of a call, or the error that the user can act on."""
    try:
        return call()
    except GangruError as error:
        return error


def unwrap(result: Result | GangruError) -> Result:
    """A result; an error among the results is raised here."""
    if isinstance(result, GangruError):
        raise result
    return result


def map_here(
    cfg: RunConfig, make: Make, items: Sequence[Any], *, actors: int | None = None
) -> Done:
    """Do all in this process, one after another."""
    if items:
        work = make()
        for number, item in enumerate(items):
            yield number, catch_error(partial(work, item))


def map_on_ray(
    cfg: RunConfig, make: Make, items: Sequence[Any], *, actors: int | None = None
) -> Done:
    """Do all on Ray, wherever there is room; in this process's session, or one of its own.

    Args:
        cfg: Its section `resources` counts.
        make: Called once in each process.
        items: What is to be done.
        actors: Processes that keep their work from item to item, at most so many; None = tasks.

    Raises:
        ResourceError: The cluster can never hold one actor.
    """
    if session.is_here():
        yield from map_here(cfg, make, items)
        return
    with session.open_session(cfg):
        if actors is None:
            done = _rows(items, _MAX_BLOCKS).map(partial(_call, make))
        else:
            size = cfg.resources
            count = session.find_slots("a scoring actor", size, min(actors, len(items)))
            _logger.info("actors_start actors=%d", count)
            done = _rows(items, len(items)).map(
                _Actor,
                fn_constructor_args=(make,),
                # one item in flight an actor: seconds each, so nobody waits behind a busy one
                compute=_data().ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=1),
                num_cpus=size.cpus_per_worker,
                num_gpus=size.gpus_per_worker or None,
            )
        for row in done.iter_rows():
            yield row["number"], pickle.loads(row["result"])


def read_tables(
    items: Sequence[Any], read: Callable[[Any], Iterable[pa.Table]], *, tasks: int, at_once: int
) -> Any:
    """Make a lazy Ray Data set of the tables that `read` gives for each item.

    By so many tasks at most, of which so many run at once: they ask for no CPU, so Ray would
    start them all.
    """
    return _rows(items, tasks).map_batches(
        _read, fn_kwargs={"read": read}, batch_size=1, num_cpus=0, concurrency=at_once
    )


def _data() -> Any:
    """Ray Data, silenced; imported late, for that takes seconds which `map_here` need not spend."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return ray.data


def _rows(items: Sequence[Any], blocks: int) -> Any:
    """One row an item. The pickles never leave Ray's memory: storage holds none."""
    rows = [{"number": i, "item": pickle.dumps(item)} for i, item in enumerate(items)]
    return _data().from_items(rows, override_num_blocks=min(blocks, len(rows)) or None)


class _Actor:
    """Does rows of one item each; runs on a worker, as the next two."""

    def __init__(self, make: Make) -> None:
        self._work = make()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        result = catch_error(partial(self._work, pickle.loads(row["item"])))
        return {"number": row["number"], "result": pickle.dumps(result)}


def _call(make: Make, row: dict[str, Any]) -> dict[str, Any]:
    return _Actor(make)(row)


def _read(
    batch: dict[str, np.ndarray], *, read: Callable[[Any], Iterable[pa.Table]]
) -> Iterator[pa.Table]:
    for item in batch["item"].tolist():
        yield from read(pickle.loads(item))
