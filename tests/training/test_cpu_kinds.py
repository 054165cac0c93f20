"""What is promised on one kind of CPU (bits) and across kinds (a tolerance): docs/training.md."""

import pytest
import torch

from tests.training.cpu_kinds import LIMITS, Trained, both, elsewhere

pytestmark = [pytest.mark.slow]


PRECISIONS = ["float32", pytest.param("float64", marks=pytest.mark.trials)]


@pytest.fixture(scope="module", params=PRECISIONS)
def kinds(request: pytest.FixtureRequest) -> tuple[str, list[Trained], list[Trained]]:
    """Precision; trained twice on this machine's CPU; the same on one limited to AVX2."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        here = both(request.param)
    finally:
        torch.set_num_threads(threads)
    return request.param, here, elsewhere(request.param, **LIMITS)


Kinds = tuple[str, list[Trained], list[Trained]]


def test_one_kind_repeats_bit_for_bit(kinds: Kinds) -> None:
    _, here, limited = kinds
    assert here[0].digest == here[1].digest
    assert limited[0].digest == limited[1].digest


def test_another_process_of_the_kind_has_the_same_bits(kinds: Kinds) -> None:
    """This process may be of either kind; on an AVX2 machine both are one."""
    precision, here, limited = kinds
    same = limited if here[0].capability == "AVX2" else elsewhere(precision)
    assert same[0].digest == here[0].digest


def test_kinds_agree_within_the_tolerance(kinds: Kinds) -> None:
    precision, here, limited = kinds
    assert limited[0].capability == "AVX2"
    rtol = {"float32": 1e-4, "float64": 1e-10}[precision]
    a, b = (torch.tensor(one[0].weights, dtype=torch.float64) for one in (here, limited))
    assert (a - b).abs().max() <= rtol * a.abs().max()
    for x, y in zip(here[0].valid_ic, limited[0].valid_ic, strict=True):
        assert abs(x - y) <= rtol
