"""Records of a batch: all of it, in order, in as few as their size allows, and the watermark at their end."""

from __future__ import annotations

import msgspec
import pytest

from tailrace.feedback import observations as module
from tailrace.feedback.observations import Observation, Observed, Vectors, observations


def flat(records: list[Observation]) -> list[list[tuple[str, bytes]]]:
    """What each label says, kind by kind in order."""
    return [
        [
            (name, getattr(record.labels[at], name))
            for record in records
            for name in ("touched", "changed", "gone")
            if getattr(record.labels[at], name)
        ]
        for at in range(len(records[0].labels))
    ]


def test_small_batch_of_several_labels_is_one_record() -> None:
    parts = [[Observed(touched=b"1"), Observed(changed=b"2")], [Observed(gone=b"3")]]
    (record,) = observations(4, 10, 20, parts, [Vectors("v", b"4", b"5")])
    assert record == Observation(
        4, 20, [Observed(touched=b"1", changed=b"2"), Observed(gone=b"3")], [Vectors("v", b"4", b"5")]
    )


def test_large_batch_is_split_and_only_its_last_record_moves_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    first = [Observed(touched=b"a" * 60), Observed(touched=b"b" * 20), Observed(changed=b"c" * 90)]
    second = [Observed(changed=b"d" * 5), Observed(changed=b"e" * 5), Observed(gone=b"f" * 200)]
    vectors = [Vectors("v", bytes(40), b""), Vectors("v", bytes(40), b"")]
    records = list(observations(0, 10, 20, [first, second], vectors))
    assert [record.watermark_ms for record in records] == [10] * (len(records) - 1) + [20]
    expected = [
        [(name, getattr(part, name)) for part in label for name in module._said(part)] for label in (first, second)
    ]
    assert flat(records) == expected
    assert [one for record in records for one in record.vectors] == vectors
    sizes = [len(msgspec.msgpack.encode(record)) for record in records]
    assert sorted(sizes)[-2] < 200 < sorted(sizes)[-1]


def test_batch_in_which_nothing_happened_is_no_record_before_a_minute_is_over() -> None:
    assert list(observations(0, 10, 59_999, [[], []], [])) == []
    assert list(observations(0, 10, 60_000, [[]], [])) == [Observation(0, 60_000, [Observed()])]
