"""The tables of `benchmarks.scale`, of parts that are given."""

from benchmarks.scale import Parts, report


def test_tables_of_the_default_network() -> None:
    parts = Parts(samples_per_second=10_000, latency=2e-4, bandwidth=7e8)
    found = report(parts).splitlines()
    assert "gradients are" in found[0]
    alone = next(line for line in found if line.startswith("| 1 | 1.00 of the mean |"))
    assert alone.split("|")[3:5] == [" 1.00 ", " 1.00 "]
    last = found[-1].split("|")
    assert last[1] == " 64 "
    assert 30 < float(last[3]) <= 45  # 45 models over as many slots
