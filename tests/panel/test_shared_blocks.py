"""Blocks of buckets, from which a job's tasks take their days: the same bytes as from the files."""

import dataclasses
import datetime as dt
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import StoreError
from gangru_dist.config.settings import ResourcesConfig, RunConfig
from gangru_dist.panel import shared
from gangru_dist.panel.block import PanelBlock
from gangru_dist.panel.manifest import Manifest, panel_schema
from gangru_dist.panel.shared import SharedPanel, share_panel
from gangru_dist.panel.store import read_bucket
from gangru_dist.panel.writer import make_manifest, write_bucket

FEATURES = ("close", "volume", "open")
BUCKETS, ASSETS = 4, 14
DAYS = pd.bdate_range("2018-03-01", "2020-06-30")
WHOLE: dict[str, Any] = {
    "start": DAYS[0].date(), "end": DAYS[-1].date(), "features": FEATURES, "trading": True
}  # fmt: skip


def make_rows(changed_after: str = "2999-01-01") -> pd.DataFrame:
    """Listings, delistings, suspensions; industries and listing dates that change on the way.

    Days after `changed_after` have other values, industries and listing dates.
    """
    rng = np.random.default_rng(0)
    grid = pd.MultiIndex.from_product(
        [[f"{i:06d}.SZ" for i in range(ASSETS)], DAYS], names=["asset", "date"]
    ).to_frame(index=False)
    number, late = grid["asset"].str[:6].astype(int), grid["date"] > changed_after
    for name in (*FEATURES, "adj_close", "market_cap"):
        grid[name] = rng.lognormal(size=len(grid)) * np.where(late, 3.0, 1.0)
    grid["industry"] = np.array(["bank", "coal", None, "food"])[number % 4]
    grid.loc[(number == 1) & (grid["date"] > "2019-05-01"), "industry"] = "arms"
    grid.loc[late, "industry"] = "zinc"
    grid["list_date"] = pd.to_datetime("2018-01-10") + pd.to_timedelta(number * 20, unit="D")
    grid.loc[(number == 2) & (grid["date"] < "2019-03-01"), "list_date"] = pd.NaT
    grid.loc[late, "list_date"] = pd.to_datetime("2016-01-04")
    for name in ("is_st", "limit_up", "limit_down", "member"):
        grid[name] = rng.random(len(grid)) < 0.1
    traded = (grid["date"] >= grid["list_date"].fillna(DAYS[0])) & (rng.random(len(grid)) > 0.1)
    gone = (number == 5) & (grid["date"] > "2018-12-20")
    return grid[traded & ~gone]


def write_panel(root: Storage, rows: pd.DataFrame, delisted: str | None = None) -> Manifest:
    """The panel of rows; the first stock is delisted on that day."""
    bucket = rows["asset"].str[:6].astype(int) % (BUCKETS - 1)  # the last has nobody
    schema = panel_schema(FEATURES, members=True)
    written = [
        write_bucket(
            root.child("panel"),
            number,
            BUCKETS,
            pa.Table.from_pandas(
                rows[bucket == number][schema.names], schema=schema, preserve_index=False
            ),
        )
        for number in range(BUCKETS - 1)
    ]
    days = DAYS.to_numpy().astype("datetime64[D]")
    written[0] = dataclasses.replace(
        written[0], delisted={"000000.SZ": delisted} if delisted else {}
    )
    return make_manifest(
        written,
        calendar=days,
        features=FEATURES,
        buckets=BUCKETS,
        source={},
        has_members=True,
    )


def blocks_of(root: Storage, manifest: Manifest, **changes: Any) -> tuple[PanelBlock, ...]:
    """As tasks make them, and as the object store gives them: not to be written to."""
    found = []
    for bucket in range(BUCKETS):
        block = pickle.loads(
            pickle.dumps(read_bucket(root, manifest, bucket, **{**WHOLE, **changes}))
        )
        for value in vars(block).values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
        found.append(block)
    return tuple(found)


@pytest.fixture
def on_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks themselves in place of references."""
    monkeypatch.setattr(shared, "load_kept", lambda block: block)


def check_same(found: PanelBlock, expected: PanelBlock) -> None:
    for field in dataclasses.fields(PanelBlock):
        a, b = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(b, np.ndarray) and field.name != "assets":
            assert (a.dtype, a.shape) == (b.dtype, b.shape), field.name
            assert a.tobytes() == b.tobytes(), field.name
        else:
            assert list(a) == list(b), field.name


SPANS = [
    (DAYS[0].date(), DAYS[-1].date()),
    (dt.date(2018, 11, 7), dt.date(2019, 4, 17)),
    (dt.date(2019, 6, 3), dt.date(2019, 6, 3)),
]


@pytest.mark.usefixtures("on_hand")
@pytest.mark.parametrize(("start", "end"), SPANS)
@pytest.mark.parametrize("trading", [True, False])
def test_a_share_from_blocks_is_that_from_files(
    tmp_path: Path, start: dt.date, end: dt.date, trading: bool
) -> None:
    root = Storage(str(tmp_path))
    manifest = write_panel(root, make_rows())
    files = SharedPanel(root=root, manifest=manifest)
    held = dataclasses.replace(files, blocks=blocks_of(root, manifest))
    for buckets in (None, range(0, BUCKETS, 2), range(1, BUCKETS, 2), [3], range(BUCKETS, BUCKETS)):
        for features in (FEATURES, ("open", "close"), ()):
            asked: dict[str, Any] = {
                "start": start, "end": end, "buckets": buckets, "features": features,
                "trading": trading,
            }  # fmt: skip
            check_same(held.read(**asked), files.read(**asked))


@pytest.mark.usefixtures("on_hand")
def test_a_share_knows_nothing_of_later_days(tmp_path: Path) -> None:
    """Values, listing and delisting dates, industries; the check has teeth a day later."""
    cut = dt.date(2019, 4, 17)
    found = []
    for name, after in (("as-it-was", "2999-01-01"), ("rewritten", str(cut))):
        root = Storage(str(tmp_path / name))
        manifest = write_panel(root, make_rows(after), "2019-04-18" if after == str(cut) else None)
        held = SharedPanel(root=root, manifest=manifest, blocks=blocks_of(root, manifest))
        asked: dict[str, Any] = {"start": dt.date(2018, 9, 3), "features": FEATURES}
        found += [held.read(end=cut, trading=True, **asked)]
        found += [held.read(end=cut + dt.timedelta(1), trading=True, **asked)]
        files = dataclasses.replace(held, blocks=())
        check_same(files.read(end=cut, trading=True, **asked), found[-2])
    before, day_later, same, different = found
    check_same(same, before)
    assert same.industries == ("bank", "coal", "food")
    assert np.isnat(same.delist_date).all()
    assert str(different.delist_date[0]) == "2019-04-18"
    with pytest.raises(AssertionError):
        check_same(different, day_later)


def test_where_a_block_is_lost_the_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = Storage(str(tmp_path))
    files = SharedPanel(root=root, manifest=write_panel(root, make_rows()))
    blocks = blocks_of(root, files.manifest)

    def load(block: PanelBlock) -> PanelBlock:
        if block is blocks[2]:
            raise StoreError("its node died")
        return block

    monkeypatch.setattr(shared, "load_kept", load)
    start, end = SPANS[1]
    asked: dict[str, Any] = {"start": start, "end": end, "features": FEATURES, "trading": True}
    check_same(dataclasses.replace(files, blocks=blocks).read(**asked), files.read(**asked))
    assert "panel_block_lost reason=its node died" in caplog.text


class Cluster:
    """Of three nodes, and how large the object store of each is."""

    def __init__(self, store_gb: float) -> None:
        self.store_gb = store_gb
        self.kept: list[int] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shared.session, "count_nodes", lambda: 3)
        monkeypatch.setattr(shared.session, "find_room", lambda *_: 3)
        monkeypatch.setattr(shared.session, "count_store_bytes", lambda: self.store_gb * 1e9)
        monkeypatch.setattr(shared, "keep_on_ray", self.keep)

    def keep(self, cfg: RunConfig, work: Any, buckets: range) -> list[int]:
        self.kept = list(buckets)
        return self.kept


@pytest.mark.parametrize(("store_gb", "readers"), [(1e-3, 2), (1e-4, 2), (1e-3, 1)])
def test_what_does_not_fit_or_does_not_pay_is_read_from_the_files(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    store_gb: float,
    readers: int,
) -> None:
    """14 assets x 609 days of 41 bytes are 0.00028 GB (with 0.4 of the store: 0.0007 GB)."""
    root = Storage(str(tmp_path))
    manifest = write_panel(root, make_rows())
    cluster = Cluster(store_gb)
    cluster.install(monkeypatch)
    with caplog.at_level("INFO"):
        found = share_panel(root, manifest, RunConfig(), readers=readers, **WHOLE)
    fits = store_gb == 1e-3
    assert bool(found.blocks) is (fits and readers > 1)
    assert ("panel_not_shared needed_gb=0.00 room_gb=0.00: 40 %" in caplog.text) is (not fits)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_blocks_in_the_object_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By Ray Data; where reading fails once, each task reads the files, and no error is kept."""
    from gangru_dist.cluster.map import load_kept

    monkeypatch.setattr(shared.session, "count_nodes", lambda: 2)
    cfg = RunConfig(resources=ResourcesConfig(cpus_per_worker=0.5))
    root = Storage(str(tmp_path))
    manifest = write_panel(root, make_rows())
    held = share_panel(root, manifest, cfg, readers=2, **WHOLE)
    assert len(held.blocks) == BUCKETS
    assert not load_kept(held.blocks[0]).features.flags.writeable  # a view of the store
    files = SharedPanel(root=root, manifest=manifest)
    start, end = SPANS[1]
    asked: dict[str, Any] = {"start": start, "end": end, "features": FEATURES, "trading": True}
    expected = files.read(**asked)
    check_same(held.read(**asked), expected)
    file, name = root.child("panel"), manifest.files[0].name
    data = file.read_bytes(name)
    file.delete(name)
    alone = share_panel(root, manifest, cfg, readers=2, **WHOLE)
    assert not alone.blocks
    (said,) = (text for text in caplog.messages if text.startswith("panel_not_shared reason="))
    assert "is listed in the manifest but cannot be read" in said
    file.write_bytes(name, data)
    check_same(alone.read(**asked), expected)
