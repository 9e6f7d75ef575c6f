"""The state of the loop as the console shows it."""

from __future__ import annotations

from tailrace.backends.codec import encode
from tailrace.backends.ports import Message
from tailrace.contracts.quality import Quality
from tailrace.contracts.topics import Topics
from tailrace.ops.view import LoopView

TOPICS = Topics("payments")


def test_window_whose_key_was_deleted_is_shown_no_more() -> None:
    view = LoopView(TOPICS)
    for key, value in ((b"1", _quality(1)), (b"2", _quality(2)), (b"1", None), (b"never there", None)):
        view.apply(Message(TOPICS.quality, 0, 0, 0, key, value, []))
    assert [2] == [row["window_start_ms"] for row in view.quality()]


def _quality(start_ms: int) -> bytes:
    return encode(
        Quality(
            use_case="payments",
            label_name="fraud",
            window_start_ms=start_ms,
            window_end_ms=start_ms + 1,
            variant="champion",
            model_version="1",
            slice="",
            predictions=0,
            labelled=0,
            final=0,
            maturity=0.0,
            bins=[],
            n=[],
            positives=[],
            metrics={},
            watermark_ms=start_ms,
        )
    )
