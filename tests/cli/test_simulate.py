"""`tailrace simulate`: what it prints, and what its exit code says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import loops
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tailrace.cli_stream import app
from tailrace.errors import ConfigError, UseCaseError

SCENARIO = """
faults:
  - {type: ConceptShift, at: 42h, share: 0.9, name: new pattern}
  - {type: Crash, service: feedback, at: 30h}
expect:
  - {type: Detects, drift: new pattern, within: 12h}
  - {type: Retrains, at_least: 1, after: new pattern}
"""


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    loops.use_case(tmp_path / "use_cases")
    monkeypatch.setenv("TAILRACE_USE_CASES", str(tmp_path / "use_cases"))
    words = ["simulate", "pumps", "--step", "3h"]
    for name, table in zip(("events", "outcomes"), loops.tables(), strict=True):
        pq.write_table(table, tmp_path / f"{name}.parquet")
        words += [f"--{name}", str(tmp_path / f"{name}.parquet")]
    return words


def invoke(words: list[str], *more: str) -> Any:
    result = CliRunner().invoke(app, [*words, *more])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_scenario_that_is_met_exits_with_0_and_says_the_same_again(recorded: list[str], tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    first, second = (invoke(recorded, "--scenario", str(tmp_path / "scenario.yaml"), "--json") for _ in range(2))
    assert first.exit_code == 0, first.output
    one, two = json.loads(first.stdout), json.loads(second.stdout)
    assert one["log_hash"] == two["log_hash"]
    assert one["decisions"] == two["decisions"]
    assert [True, True] == [judged["holds"] for judged in one["expectations"]]
    assert 1500 == one["counts"]["predictions"]


def test_an_expectation_that_is_not_met_exits_with_1_and_says_what_happened(recorded: list[str]) -> None:
    result = invoke(
        recorded, "--drift", "ConceptShift at=42h share=0.9", "--expect", "Detects drift=ConceptShift within=1m"
    )
    assert result.exit_code == 1
    assert "not met Detects" in result.stdout
    assert "asked for within 1m" in result.stdout
    assert "log hash" in result.stdout


def test_wrong_words_are_refused_before_anything_is_played(recorded: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"types are CovariateShift, ConceptShift"):
        invoke(recorded, "--fault", "ConceptShfit at=3d")
    with pytest.raises(ConfigError, match="Expected `float`"):
        invoke(recorded, "--fault", "ConceptShift share=much")
    with pytest.raises(ConfigError, match="'ConceptShift' is neither a fault nor a moment"):
        invoke(recorded, "--expect", "Detects drift=ConceptShift within=1d")
    with pytest.raises(ConfigError, match="belong together"):
        invoke(recorded[:-2])


def test_a_use_case_without_a_stream_of_its_own_asks_for_recordings(recorded: list[str]) -> None:
    with pytest.raises(UseCaseError, match="give recordings"):
        invoke(recorded[:4])


def test_the_stream_of_the_example_is_played_where_nothing_else_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILRACE_USE_CASES", "feature_repo")
    result = invoke(["simulate", "card_fraud", "--days", "1", "--step", "6h", "--json"])
    assert result.exit_code == 0, result.output
    counts = json.loads(result.stdout)["counts"]
    assert counts["events"] == counts["predictions"] > 2_000
