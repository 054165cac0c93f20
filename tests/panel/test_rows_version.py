"""The version of the code that makes the panel's rows, and what follows from another one."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from gangru_dist.base.errors import PanelError
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import here
from gangru_dist.config.settings import PanelConfig, RunConfig
from gangru_dist.panel import build
from gangru_dist.panel.manifest import ROWS_VERSION, Manifest, read_manifest
from tests.made_bars import make_bars, write

CFG = RunConfig(panel=PanelConfig(features=("close", "volume", "daily_return"), buckets=2))
GOLDEN = {1: "970472ebbeafebf24256a59c4804046a7c1d2592587a1e97bcdda013d873a425"}
"""Version of the rows -> fingerprint of the panel of `make_bars`, all features."""


def test_other_rows_are_another_version(tmp_path: Path) -> None:
    """If this fails, rows have changed: raise `ROWS_VERSION` and add the new fingerprint here."""
    write(tmp_path / "bars", make_bars())
    root = Storage(str(tmp_path / "storage"))
    panel = build.build_panel(str(tmp_path / "bars"), root, RunConfig(), runner=here)
    assert panel.fingerprint == GOLDEN[ROWS_VERSION]


class TestBuild:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Storage:
        return Storage(str(tmp_path / "storage"))

    @pytest.fixture
    def bars(self, tmp_path: Path) -> Path:
        write(tmp_path / "bars", make_bars())
        return tmp_path / "bars"

    @staticmethod
    def build(root: Storage, bars: Path) -> Manifest:
        return build.build_panel(str(bars), root, CFG, runner=here)

    @staticmethod
    def rewrite(bars: Path) -> None:
        frame = make_bars()
        frame.loc[frame["date"] == "2019-01-15", "volume"] += 100
        write(bars, frame)

    @staticmethod
    def make_old(root: Storage) -> None:
        """The panel as versions up to afc845f left it: they knew a hash of their sources."""
        manifest = root.child("panel").read_json("manifest.json")
        del manifest["source"]["rows_version"], manifest["source"]["users_code"]
        del manifest["checksum"]
        manifest["source"]["rows_code"] = "0" * 64
        root.child("panel").write_json("manifest.json", manifest)

    def test_rows_of_this_version_are_guarded(self, root: Storage, bars: Path) -> None:
        self.build(root, bars)
        self.rewrite(bars)
        with pytest.raises(PanelError, match=r"rewrite history: .* in 2019-01 \d row") as refused:
            self.build(root, bars)
        assert "earlier version" not in str(refused.value)

    def test_another_version_builds_again_and_may_change_rows(
        self, root: Storage, bars: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = self.build(root, bars)
        monkeypatch.setattr(build, "ROWS_VERSION", ROWS_VERSION + 1)
        again = self.build(root, bars)
        assert again.source["rows_version"] != first.source["rows_version"]
        assert (again.fingerprint, again.rewritten) == (first.fingerprint, {})
        self.rewrite(bars)
        monkeypatch.setattr(build, "ROWS_VERSION", ROWS_VERSION + 2)
        assert list(self.build(root, bars).rewritten) == ["2019-01"]

    def test_an_earlier_versions_panel_is_compared_once(
        self, root: Storage, bars: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        first = self.build(root, bars)
        self.make_old(root)
        logging.getLogger("gangru_dist").propagate = True
        with caplog.at_level(logging.INFO, logger="gangru_dist"):
            again = self.build(root, bars)
            assert "panel_code_unknown" in caplog.text
            caplog.clear()
            assert self.build(root, bars).to_json() == again.to_json()
            assert "panel_kept" in caplog.text
        assert again.to_json() == first.to_json()

    def test_an_earlier_versions_panel_is_guarded(self, root: Storage, bars: Path) -> None:
        self.build(root, bars)
        self.make_old(root)
        before = read_manifest(root).to_json()
        self.rewrite(bars)
        with pytest.raises(
            PanelError, match=r"rewrite history: .* An earlier version .*--overwrite"
        ):
            self.build(root, bars)
        assert read_manifest(root).to_json() == before
