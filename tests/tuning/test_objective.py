import dataclasses
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gangru_dist.config.settings import LabelConfig, RunConfig, UniverseConfig
from gangru_dist.tuning.trial import judging_config, mean, objective, spread, step

ICS = st.lists(st.floats(-1, 1), min_size=1, max_size=6)


class TestReference:
    @given(ics=ICS)
    def test_mean_and_spread_are_those_of_the_standard_library(self, ics: list[float]) -> None:
        assert mean(ics) == pytest.approx(statistics.fmean(ics), abs=1e-12)
        assert spread(ics) == pytest.approx(statistics.pstdev(ics), abs=1e-7)

    def test_two_windows(self) -> None:
        assert objective([0.02, 0.06], 0.5) == pytest.approx(0.04 - 0.5 * 0.02)


class TestProperties:
    @given(ics=ICS, penalty=st.floats(0, 3))
    def test_spread_never_helps_and_order_never_matters(
        self, ics: list[float], penalty: float
    ) -> None:
        assert objective(ics, penalty) <= mean(ics) + 1e-12
        assert objective(ics[::-1], penalty) == objective(ics, penalty)

    def test_a_step_never_goes_back(self) -> None:
        told = [step(0, 3, done=False, epochs=10), step(0, 7, done=True, epochs=10)]
        told += [step(1, 1, done=False, epochs=10), step(1, 10, done=True, epochs=10)]
        assert told == [3, 10, 11, 20]

    def test_trials_are_judged_on_one_scale(self) -> None:
        base = RunConfig()
        trial = dataclasses.replace(
            base,
            label=LabelConfig(
                transform="rank", winsorize_mad=3, neutralize=("size",), also=(2,), horizon=5
            ),
            universe=UniverseConfig(exclude_st=False),
        )
        ruler = judging_config(trial, base)
        assert ruler.label == LabelConfig(horizon=5)
        assert ruler.universe == base.universe
        assert judging_config(base, base) == base
