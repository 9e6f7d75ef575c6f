from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tailrace.backends.settings import Settings
from tailrace.contracts.retraining import CandidateRefused, RetrainRequested
from tailrace.trainer import job

REQUEST = RetrainRequested(
    run_id="r", use_case="card_fraud", trigger="manual", reason="?", requested_at_ms=1, train_until_ms=1
)


def answered(monkeypatch: pytest.MonkeyPatch, error: Exception) -> CandidateRefused:
    def broken(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(job, "_candidate", broken)
    answer = job.run_job(Settings(use_cases=Path("feature_repo")), job.Job(request=REQUEST, champion=None, offsets={}))
    assert isinstance(answer, CandidateRefused)
    return answer


def test_a_training_that_breaks_is_told_from_one_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert answered(monkeypatch, ZeroDivisionError("planted")).failed
    assert not answered(monkeypatch, job._Refused("too few rows")).failed
