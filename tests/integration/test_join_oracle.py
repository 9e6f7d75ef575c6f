"""The join on a real broker, killed while it works, against a group-by of pandas; a small run of the study."""

from __future__ import annotations

from pathlib import Path

import pytest

from load_tests.studies.join_oracle import study
from tailrace.backends.settings import Settings

pytestmark = pytest.mark.timeout(300)


def test_every_final_label_is_the_oracles_though_the_worker_was_killed(settings: Settings, tmp_path: Path) -> None:
    figures = study(settings, tmp_path / "use-cases", 20_000, seed=1, kills=1)
    assert [] == [figure for figure in figures if not figure.met]
    assert 20_000 == next(figure.value for figure in figures if figure.name == "predictions")
