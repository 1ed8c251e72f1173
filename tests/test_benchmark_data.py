"""The benchmark of the data pipeline measures what it says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import common
import data as benchmark

from manyfill.data import open_source


def test_many_pictures_are_real_ones_with_captions_under_many_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "PER_SHARD", 10)
    source, record = benchmark.indexing(benchmark.many(tmp_path / "many", 40))
    assert len(source) == record["pictures"] == 40 and len({source.name(i) for i in range(40)}) == 40
    assert source[37].pixels.shape == (64, 64, 3) and source[37].captions[0].startswith("a caption")
    assert len(list((tmp_path / "many").glob("*.index"))) == 4
    assert record["first"]["seconds"] > 0 and record["again"]["seconds"] > 0 and record["stored_mib"] > 0


WATCHING = """
import json, numpy, common
record = {}
with common.watched(record):
    kept = numpy.ones(40 * 2**20, numpy.uint8)
    numpy.ones(80 * 2**20, numpy.uint8).sum()
print(json.dumps(record | {"kept": int(kept[0])}))
"""


def test_memory_is_watched() -> None:
    # In a process of its own: in this one, memory that other tests have left may be given back meanwhile.
    command = [sys.executable, "-c", WATCHING]
    done = subprocess.run(command, cwd=Path(benchmark.__file__).parent, capture_output=True, text=True, check=True)
    record = json.loads(done.stdout)
    assert 35 < record["held_mib"] < 60 and record["peak_mib"] > 110
    assert record["processor_seconds"] > 0 and record["kept"] == 1


def test_rates_are_medians_of_whole_rounds(tmp_path: Path) -> None:
    source = open_source(benchmark.many(tmp_path / "many", 20))
    calls: list[str] = []
    tasks = {name: (lambda name=name: calls.append(name), 100) for name in "ab"}  # type: ignore[misc]
    tasks["reading"] = (benchmark.reading(source, 0, 2), 2 * benchmark.BATCH)
    rates = benchmark.throughput(tasks, rounds=3)
    assert calls == ["a", "b"] * 3
    assert 0 < rates["reading"]["pictures_per_second"] < rates["a"]["pictures_per_second"]


def test_memory_is_flat_where_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "WARM_UP", 32)
    record = benchmark.flatness(open_source(benchmark.many(tmp_path / "many", 20)), 100)
    assert record["draws"] == 96 and record["worker_start_mib"] > 0
    assert abs(record["loop_end_mib"] - record["loop_start_mib"]) < 20


def test_bad_input_is_one_line_and_exit_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["data.py", "--draws", "3"])
    with pytest.raises(SystemExit) as end:
        common.run(benchmark.main)
    error = capsys.readouterr().err
    assert end.value.code == 2 and "--draws 16 or more" in error and error.count("\n") == 1
