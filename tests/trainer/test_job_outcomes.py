from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tailrace.backends.settings import Settings
from tailrace.contracts.records import CandidateRefused, RetrainRequested
from tailrace.core.sampling import DataSet
from tailrace.trainer import job
from tailrace.trainer.tasks import task_of
from tailrace.usecase.load import load_use_case

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


@pytest.mark.parametrize(("first", "rows"), [(3_000, 3_000), (5_000, 6_000), (5_900, 6_000)])
def test_a_concept_is_trained_on_alone_once_each_part_of_its_rows_has_both_labels(first: int, rows: int) -> None:
    task = task_of(load_use_case(Path("feature_repo"), "card_fraud").plan)
    labels = np.zeros(6_000, np.bool_)
    labels[::50] = True
    labels[5_800:5_950] = False
    window = DataSet(np.zeros((6_000, 1), np.float32), labels, np.arange(6_000, dtype=np.int64))
    asked = msgspec.structs.replace(REQUEST, train_from_ms=first)
    assert rows == len(job.rows_of_concept(window, asked, task).labels)
