"""What may be replayed: one recording of each topic that the use case reads."""

from __future__ import annotations

from pathlib import Path

import loops
import pytest
from typer.testing import CliRunner

from tailrace import cli
from tailrace.backends.recordings import to_recording
from tailrace.errors import ConfigError
from tailrace.local.replay import Replay


def test_recordings_of_other_topics_and_two_of_one_are_refused(tmp_path: Path) -> None:
    use_case, settings = loops.use_case(tmp_path / "with", with_repairs=True)
    other, _ = loops.use_case(tmp_path / "without")
    readings, failures = loops.tables(days=0.1)
    events = to_recording(readings, use_case.requests)
    repairs = to_recording(loops.repairs(failures), use_case.outcome_topics[1])
    with pytest.raises(
        ConfigError, match=r"'pumps.repairs' is no topic of the use case; those are pumps.failures, pump"
    ):
        Replay(settings, other, events, repairs)
    with pytest.raises(ConfigError, match=r"two recordings are of topic 'pumps.readings'"):
        Replay(settings, use_case, events, repairs, events)


@pytest.mark.parametrize("given", ["pumps.repairs", "pumps.failures=failures.csv", "pumps.repair=repairs.csv"])
def test_a_recording_is_given_with_the_name_of_its_topic(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loops.use_case(tmp_path, with_repairs=True)
    monkeypatch.setenv("TAILRACE_USE_CASES", str(tmp_path))
    words = ["replay", "readings.csv", "failures.csv", "--use-case", "pumps", "--recording", given]
    error = CliRunner().invoke(cli.app, words).exception
    assert isinstance(error, ConfigError)
    assert str(error) == f"--recording {given!r}: write TOPIC=FILE; topics are pumps.repairs"
