"""Two builds of one panel: one at a time, whoever dies or is slow."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gangru_dist.base.errors import PanelError
from gangru_dist.base.storage import Storage
from gangru_dist.cluster.map import here
from gangru_dist.config.settings import PanelConfig, RunConfig
from gangru_dist.panel import build as build_module
from gangru_dist.panel import lock as turn_module
from gangru_dist.panel.build import build_panel
from gangru_dist.panel.lock import TURN, turn
from gangru_dist.panel.store import read_manifest
from tests.made_bars import make_bars, write

CFG = RunConfig(panel=PanelConfig(features=("close", "daily_return"), buckets=2))
GONE = {"token": "x", "machine": "elsewhere", "pid": 1, "began": 0.0, "beat": 0}


@pytest.fixture
def panel(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path / "root")).child("panel")


@pytest.fixture
def bars(tmp_path: Path) -> str:
    write(tmp_path / "bars", make_bars())
    return str(tmp_path / "bars")


class TestTurn:
    def test_the_second_waits(self, panel: Storage) -> None:
        order: list[str] = []

        def second() -> None:
            with turn(panel):
                order.append("second")

        with turn(panel) as held:
            other = threading.Thread(target=second)
            other.start()
            other.join(1.5)
            order.append("first")
            held.require()
        other.join(20)
        assert order == ["first", "second"]
        assert panel.list_files() == []

    def test_a_killed_one_is_not_waited_for(self, panel: Storage) -> None:
        words = "import os, sys; from gangru_dist.panel.lock import turn; "
        words += "from gangru_dist.base.storage import Storage; "
        words += "held = turn(Storage(sys.argv[1])); held.__enter__(); os.kill(os.getpid(), 9)"
        killed = subprocess.run([sys.executable, "-c", words, panel.uri])
        assert killed.returncode == -9
        assert panel.exists(TURN)
        with turn(panel) as held:
            held.require()

    def test_nor_one_whose_number_another_process_has(self, panel: Storage) -> None:
        with turn(panel):
            me = panel.read_json(TURN)
        panel.write_json(TURN, {**me, "began": me["began"] - 100})
        with turn(panel) as held:
            held.require()

    @pytest.mark.parametrize("content", [GONE, "nonsense"])
    def test_elsewhere_its_beat_decides(
        self, panel: Storage, content: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(turn_module, "DEAD_SECONDS", 1.5)
        panel.write_json(TURN, content)
        took = threading.Event()

        def wait() -> None:
            with turn(panel):
                took.set()

        thread = threading.Thread(target=wait)
        thread.start()
        for beat in range(4):
            assert not took.wait(0.7)
            panel.write_json(TURN, {**GONE, "beat": beat + 1})
        assert took.wait(10)
        thread.join()

    def test_the_beat_changes(self, panel: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(turn_module, "BEAT_SECONDS", 0.05)
        with turn(panel) as held:
            before = panel.read_json(TURN)
            threading.Event().wait(0.5)
            assert panel.read_json(TURN) != before
            assert held.is_held()


class TestBuild:
    def test_whoever_lost_the_turn_changes_nothing(
        self, panel: Storage, bars: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A build that was silent for too long finds another's token before its manifest."""
        real = build_module.check_built

        def overtaken(*args: object) -> None:
            panel.write_bytes("staging-other/unit", b"x")
            panel.write_bytes(f"bucket=00/2018-{'0' * 12}.parquet", b"x")
            panel.write_json(TURN, GONE)
            real(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(build_module, "check_built", overtaken)
        root = Storage(str(tmp_path / "root"))
        with pytest.raises(PanelError, match=r"another build .* has begun.*Run the same"):
            build_panel(bars, root, CFG, runner=here)
        assert panel.read_json(TURN) == GONE
        assert {"staging-other/unit", f"bucket=00/2018-{'0' * 12}.parquet"} <= {*panel.list_files()}
        assert not panel.exists("manifest.json")

    def test_what_a_killed_build_left_goes_even_where_nothing_is_to_be_done(
        self, panel: Storage, bars: str, tmp_path: Path
    ) -> None:
        """It was killed between manifest and the removal of its staging."""
        root = Storage(str(tmp_path / "root"))
        build_panel(bars, root, CFG, runner=here)
        before = panel.list_files()
        panel.write_bytes("staging-killed/unit", b"x")
        build_panel(bars, root, CFG, runner=here)
        assert panel.list_files() == before

    def test_two_at_once(self, panel: Storage, bars: str, tmp_path: Path) -> None:
        """Each used to delete the other's staged rows."""
        root = Storage(str(tmp_path / "root"))
        found: list[object] = []

        def work() -> None:
            try:
                found.append(build_panel(bars, root, CFG, runner=here).fingerprint)
            except Exception as error:  # noqa: BLE001  # to be seen
                found.append(error)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [read_manifest(root).fingerprint] * 3
        assert not any(name.startswith("staging") or name == TURN for name in panel.list_files())
