"""Work for many items: what comes back, in what kind, and from how many processes."""

import os
import pickle
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from gangru_dist.base.errors import (
    BarsError,
    DivergedError,
    FactorError,
    GangruError,
    ResourceError,
    StorageError,
)
from gangru_dist.cluster.map import Runner, catch_error, get_value, map_here, map_on_ray, unwrap
from gangru_dist.config.settings import ResourcesConfig, RunConfig

CFG = RunConfig(resources=ResourcesConfig(cpus_per_worker=0.5))
ERRORS = {3: BarsError("file 3"), 5: StorageError("no room"), 7: DivergedError("nan")}


class Square:
    """Squares, and says how often it was made; some numbers are refused."""

    made = 0

    def __init__(self) -> None:
        type(self).made += 1

    def __call__(self, number: int) -> tuple[int, int, int]:
        if number in ERRORS:
            raise ERRORS[number]
        return number * number, self.made, os.getpid()


def each(runner: Runner, count: int, actors: int | None = None) -> dict[int, object]:
    return dict(runner(CFG, Square, range(count), actors=actors))


def check(found: dict[int, object], count: int) -> None:
    assert sorted(found) == list(range(count))
    for number, result in found.items():
        if number in ERRORS:
            assert type(result) is type(ERRORS[number])
            assert str(result) == str(ERRORS[number])
        else:
            assert isinstance(result, tuple)
            assert result[0] == number * number


class TestHere:
    def test_results_and_errors_by_number(self) -> None:
        check(each(map_here, 9), 9)

    def test_work_is_made_once_and_not_for_nothing(self) -> None:
        before = Square.made
        assert each(map_here, 0) == {}
        assert Square.made == before
        each(map_here, 3)
        assert Square.made == before + 1

    def test_a_defect_of_ours_is_no_result(self) -> None:
        with pytest.raises(ZeroDivisionError):
            list(map_here(CFG, lambda: lambda x: 1 / x, [0]))


class TestValue:
    def test_an_error_for_the_user_is_a_value_and_raised_when_asked_for(self) -> None:
        def fail() -> None:
            raise BarsError("x")

        error = catch_error(fail)
        assert str(error) == "x"
        with pytest.raises(BarsError, match="x"):
            unwrap(error)
        assert unwrap(catch_error(lambda: 3)) == 3
        with pytest.raises(ZeroDivisionError):
            catch_error(lambda: 1 / 0)

    @pytest.mark.parametrize("kind", [GangruError, *GangruError.__subclasses__()])
    def test_every_kind_of_error_crosses_processes(self, kind: type[GangruError]) -> None:
        again = pickle.loads(pickle.dumps(kind("what is wrong")))
        assert (type(again), str(again)) == (kind, "what is wrong")


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
class TestOnCluster:
    def test_tasks(self) -> None:
        check(each(map_on_ray, 9), 9)

    @pytest.mark.parametrize("actors", [1, pytest.param(3, marks=pytest.mark.trials)])
    def test_an_actor_makes_its_work_once(self, actors: int) -> None:
        found = each(map_on_ray, 12, actors)
        check(found, 12)
        results = [result for result in found.values() if isinstance(result, tuple)]
        assert {made for _, made, _ in results} == {1}
        assert len({process for *_, process in results} - {os.getpid()}) <= actors

    def test_what_the_work_closes_over_travels(self) -> None:
        found = dict(map_on_ray(CFG, lambda: partial(pow, 2), [1, 5]))
        assert found == {0: 2, 1: 32}

    def test_an_error_is_raised_by_whoever_asks(self) -> None:
        with pytest.raises(FactorError, match="not finite"):
            list(map(unwrap, dict(map_on_ray(CFG, lambda: refuse, [0], actors=1)).values()))

    @pytest.mark.parametrize("actors", [1, None])
    def test_work_that_ends_its_process_is_given_up(self, actors: int | None) -> None:
        """Ray Data's own retries have no end: the job hung."""
        cfg = RunConfig(resources=ResourcesConfig(max_failures=1))
        with pytest.raises(ResourceError, match=r"died 2 times .* Take nodes with more memory"):
            list(map_on_ray(cfg, lambda: lambda _: os._exit(1), [0], actors=actors))

    def test_a_task_that_waits_keeps_its_cpus(self, tmp_path: Path) -> None:
        """Ray lends out those of a main thread that waits: three tasks ran on two CPUs."""
        late = ray.remote(num_cpus=0)(wait_for_two).remote(tmp_path)
        spans = ray.get([ray.remote(wait).remote(tmp_path, [late]) for _ in range(4)])
        assert max(sum(one <= begin < end for one, end in spans) for begin, _ in spans) == 2


def wait_for_two(folder: Path) -> None:
    """Ends a second after two tasks have begun, or after a while."""
    deadline = time.time() + 30
    while len(list(folder.iterdir())) < 2 and time.time() < deadline:
        time.sleep(0.05)
    time.sleep(1)


def wait(folder: Path, late: list[Any]) -> tuple[float, float]:
    """Waits for a value, then works on: when it began and ended."""
    begin = time.time()
    (folder / str(begin)).touch()
    get_value(late[0])
    time.sleep(1)
    return begin, time.time()


def refuse(_: int) -> None:
    raise FactorError("not finite")
