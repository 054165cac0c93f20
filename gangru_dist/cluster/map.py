"""Apply a function to many items: on Ray, or in this process; results come back or stay [Ray].

What a process needs for the work is made there once (`make`), in an actor as in a task. An error
that the user can act on comes back as a result, with its class and message, so that the caller
raises it once and plainly, without a traceback of Ray's. What stays in Ray's object store is
results alone, never errors. Any item may be done twice.
"""

from __future__ import annotations

import logging
import pickle
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from threading import Thread
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, WorkerCrashedError
from ray.util.annotations import RayDeprecationWarning

from gangru_dist.base.errors import GangruError, ResourceError, extract_reason, format_flag
from gangru_dist.cluster import session
from gangru_dist.cluster.failures import describe_death
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
_REMADE_SECONDS = 120.0
"""For a result to be made again; where those who wait hold every CPU it is not."""


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
        ResourceError: The cluster can never hold one actor; or an item ended its process more
            than `max_failures` times.
    """
    if session.is_here():
        yield from map_here(cfg, make, items)
        return
    size, remedy = cfg.resources, "Take nodes with more memory."
    with session.open_session(cfg):
        if actors is None:
            rows, call = _rows(items, _MAX_BLOCKS), partial(_call, make)
            done = _plan(rows.map, call, max_retries=size.max_failures)
        else:
            count = session.find_slots("a scoring actor", size, min(actors, len(items)))
            _logger.info("actors_start actors=%d", count)
            more = format_flag("resources.cpus_per_worker", 2 * size.cpus_per_worker)
            remedy = f"Take nodes with more memory, or fewer actors a node: {more}."
            done = _plan(
                _rows(items, len(items)).map,
                _Actor,
                fn_constructor_args=(make,),
                # one item in flight an actor: seconds each, so nobody waits behind a busy one
                compute=_data().ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=1),
                num_cpus=size.cpus_per_worker,
                num_gpus=size.gpus_per_worker or None,
                max_restarts=size.max_failures,
                max_task_retries=size.max_failures,
            )
        try:
            for row in done.iter_rows():
                yield row["number"], pickle.loads(row["result"])
        except (OutOfMemoryError, RayActorError, WorkerCrashedError) as error:
            raise ResourceError(describe_death(error, size.max_failures, remedy)) from error


class StoreError(Exception):
    """What was kept in the object store cannot be had."""


def keep_on_ray(cfg: RunConfig, work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Do all by tasks of Ray Data, and leave the results in Ray's object store.

    A result whose node goes is made again, as long as somebody holds its reference. The tasks take
    CPUs as a worker does, so that they run where workers may.

    Returns:
        A reference each, for `load_kept`.

    Raises:
        StoreError: A task failed: an error of its work, or no memory.
    """
    done = _plan(
        _rows(items, len(items)).map_batches,
        _keep,
        fn_kwargs={"work": work},
        batch_size=1,
        num_cpus=min(1.0, cfg.resources.cpus_per_worker),
        max_retries=cfg.resources.max_failures,
    )
    done.context.execution_options.preserve_order = True
    try:
        references: list[Any] = done.to_arrow_refs()
    except RayError as error:
        raise StoreError(_find_reason(error)) from error
    return references


def load_kept(reference: Any) -> Any:
    """A kept result; its arrays are read-only views of the object store.

    Raises:
        StoreError: It is gone, and was not made again, or not in time.
    """
    try:
        table = get_value(reference, timeout=_REMADE_SECONDS)
    except RayError as error:
        raise StoreError(_find_reason(error)) from error
    parts = table["result"][0].values
    head, *buffers = (memoryview(part.as_buffer()).toreadonly() for part in parts)
    return pickle.loads(head, buffers=buffers)


def get_value(reference: Any, *, timeout: float | None = None) -> Any:
    """`ray.get` from inside a task, which keeps its CPUs while it waits.

    Ray lends the CPUs of a task whose main thread waits to the next task. Once the wait is over
    both run: more workers than there are CPUs for.
    """
    found: Future[Any] = Future()

    def get() -> None:
        try:
            found.set_result(ray.get(reference, timeout=timeout))
        except BaseException as error:  # noqa: BLE001  # raised where it is asked for
            found.set_exception(error)

    Thread(target=get, daemon=True).start()  # the main thread stays open to signals
    return found.result()


def _find_reason(error: RayError) -> str:
    """What `_keep` said; Ray Data ends what it adds to that with advice of its own."""
    said = re.search(r"StoreError: (.+)", str(error))
    return said[1] if said else extract_reason(error)


def _data() -> Any:
    """Ray Data, silenced; imported late, for that takes seconds which `map_here` need not spend."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return ray.data


def _plan(method: Any, function: Any, **options: Any) -> Any:
    """Ray Data's `map` or `map_batches`, with as many retries as given: its own have no end."""
    with warnings.catch_warnings(action="ignore", category=RayDeprecationWarning):  # no name yet
        return method(function, **options)


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


def _keep(batch: dict[str, np.ndarray], *, work: Callable[[Any], Any]) -> pa.Table:
    """One row with the parts of a pickle: its head, then the memory of each array.

    An error, perhaps a passing one of the storage, fails the task: kept, every reader would get it.
    """
    buffers: list[pickle.PickleBuffer] = []
    try:
        result = work(pickle.loads(batch["item"][0]))
    except Exception as error:
        raise StoreError(extract_reason(error)) from error
    head = pickle.dumps(result, protocol=5, buffer_callback=buffers.append)
    parts = [head, *(buffer.raw() for buffer in buffers)]
    return pa.table({"result": pa.array([parts], pa.large_list(pa.large_binary()))})
