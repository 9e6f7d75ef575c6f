from __future__ import annotations

import io
import socket
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from rich.console import Console

from load_tests import results
from load_tests.bench import Bench, Figures, Scenario, Unavailable, passed, run_interleaved, scenario_of
from tailrace.backends.settings import Settings
from tailrace.errors import ConfigError


def bench_in(folder: Path) -> Bench:
    return Bench(settings=Settings.model_construct(), directory=folder, seed=7, events=10)


def figure(value: float) -> Any:
    return lambda bench: value


def scenario(candidates: dict[str, Any], floors: dict[str, float], **more: Any) -> Scenario:
    return Scenario(name="invented", about="Invented.", candidates=candidates, floors=floors, **more)


def broken(bench: Bench) -> float:
    raise ValueError("broke down")


def not_installed(bench: Bench) -> float:
    raise Unavailable("not installed")


def test_more_events_per_second_than_a_peer_is_a_ratio_above_one(tmp_path: Path) -> None:
    found = run_interleaved(
        scenario({"tailrace": figure(100), "peer": figure(25)}, {"peer": 4.0}), bench_in(tmp_path), repeat=1
    )
    assert (4.0, True) == (found["peer"].ratio, found["peer"].met)
    assert passed(found)


def test_less_milliseconds_than_a_peer_is_a_ratio_above_one(tmp_path: Path) -> None:
    asked = scenario({"tailrace": figure(20), "peer": figure(90)}, {"peer": 3.0}, unit="ms")
    found = run_interleaved(asked, bench_in(tmp_path), repeat=1)
    assert (4.5, True) == (found["peer"].ratio, found["peer"].met)


def test_a_ratio_below_its_floor_fails_the_scenario(tmp_path: Path) -> None:
    asked = scenario({"tailrace": figure(10), "light": figure(25)}, {"light": 0.5})
    found = run_interleaved(asked, bench_in(tmp_path), repeat=1)
    assert found["light"].met is False
    assert not passed(found)


def test_a_candidate_without_a_floor_is_for_the_report_only(tmp_path: Path) -> None:
    found = run_interleaved(scenario({"tailrace": figure(1), "peer": figure(99)}, {}), bench_in(tmp_path), repeat=1)
    assert found["peer"].met is None
    assert passed(found)


def test_medians_are_compared_so_that_one_slow_run_changes_nothing(tmp_path: Path) -> None:
    ours = iter([100.0, 1.0, 110.0])
    asked = scenario({"tailrace": lambda bench: next(ours), "peer": figure(50)}, {"peer": 2.0})
    found = run_interleaved(asked, bench_in(tmp_path), repeat=3)
    assert (100.0, [100.0, 1.0, 110.0]) == (found["tailrace"].median, found["tailrace"].runs)
    assert 2.0 == found["peer"].ratio


def test_each_round_runs_all_candidates_on_one_seed_and_begins_with_another(tmp_path: Path) -> None:
    order: list[tuple[str, int]] = []

    def noted(name: str) -> Any:
        def run(bench: Bench) -> float:
            order.append((name, bench.seed))
            return 1.0

        return run

    run_interleaved(scenario({"tailrace": noted("a"), "peer": noted("b")}, {}), bench_in(tmp_path), repeat=3)
    assert [("a", 7), ("b", 7), ("b", 8), ("a", 8), ("a", 9), ("b", 9)] == order


def test_a_peer_that_is_not_installed_gives_no_verdict_and_is_asked_once(tmp_path: Path) -> None:
    asked = scenario({"tailrace": figure(1), "peer": not_installed}, {"peer": 2.0})
    found = run_interleaved(asked, bench_in(tmp_path), repeat=2)
    assert (None, "not installed") == (found["peer"].met, found["peer"].absent)
    assert passed(found)


def test_a_candidate_with_a_floor_that_breaks_down_fails_the_scenario(tmp_path: Path) -> None:
    asked = scenario({"tailrace": figure(1), "peer": broken}, {"peer": 2.0})
    found = run_interleaved(asked, bench_in(tmp_path), repeat=1)
    assert "failed: ValueError: broke down" == found["peer"].absent
    assert not passed(found)


def test_why_a_candidate_broke_down_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    def lost(bench: Bench) -> float:
        raise OSError(f"{bench.directory}/network.onnx is gone")

    found = run_interleaved(scenario({"peer": lost}, {}), bench_in(tmp_path), repeat=1)
    assert "failed: OSError: …/network.onnx is gone" == found["peer"].absent


def test_ours_breaking_down_fails_a_scenario_without_floors(tmp_path: Path) -> None:
    assert not passed(run_interleaved(scenario({"tailrace": broken}, {}), bench_in(tmp_path), repeat=1))


def test_notes_of_a_run_are_its_own_and_their_medians_are_kept(tmp_path: Path) -> None:
    def noting(bench: Bench) -> float:
        assert {} == bench.notes
        bench.notes["p50_ms"] = float(bench.seed)
        return 1.0

    found = run_interleaved(scenario({"tailrace": noting}, {}), bench_in(tmp_path), repeat=3)
    assert {"p50_ms": 8.0} == found["tailrace"].notes


def test_a_floor_for_an_unknown_candidate_is_refused() -> None:
    module = ModuleType("invented")
    module.__dict__.update(CANDIDATES={"tailrace": figure(1)}, FLOORS={"tailrade": 1.0})
    with pytest.raises(ConfigError, match="tailrade"):
        scenario_of("invented", module)


def test_a_result_names_versions_and_machine_but_not_the_host(tmp_path: Path) -> None:
    asked = scenario({"tailrace": figure(100), "peer": figure(25)}, {"peer": 5.0})
    found = run_interleaved(asked, bench_in(tmp_path), repeat=1)
    result = results.result_of(asked, found, where=results.machine(), events=10, repeat=1, seed=7)
    written = results.write(result, tmp_path)
    assert "invented_peers.json" == results.write(result, tmp_path, peers=True).name
    again = msgspec.json.decode(written.read_bytes(), type=results.Result)
    assert result == again
    assert {"python", "kafka", "librdkafka", "tailrace"} <= again.versions.keys()
    assert again.machine.cores > 0
    assert not again.passed
    assert socket.gethostname() not in {again.machine.cpu, again.commit, *again.versions.values()}


def test_the_table_shows_ratio_verdict_limit_and_why_a_candidate_is_absent(tmp_path: Path) -> None:
    def noting(bench: Bench) -> float:
        bench.notes["p50_ms"] = 55.0
        return 60.0

    candidates = {"tailrace": noting, "quick": figure(120), "slow": figure(600), "gone": not_installed}
    asked = scenario(candidates, {"quick": 3.0, "slow": 3.0}, unit="ms", limits={"p50_ms": 40.0})
    found = run_interleaved(asked, bench_in(tmp_path), repeat=1)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(results.table(results.result_of(asked, found, where=results.machine(), events=1, repeat=1, seed=7)))
    text = console.export_text()
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "2.00 ×" in lines["quick"]
    assert "3 × not met" in lines["quick"]
    assert "10.00 ×" in lines["slow"]
    assert "3 × met" in lines["slow"]
    assert "p50_ms 55 (limit 40)" in text
    assert "gone: not installed" in text


def test_figures_without_runs_have_neither_median_nor_ratio() -> None:
    figures = Figures(floor=2.0, absent="not installed")
    assert (None, None) == (figures.median, figures.ratio)
