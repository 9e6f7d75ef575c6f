"""What feedback keeps follows what is open, and not how long it has run: a year holds no more than the months before."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
from declared import payments, prediction

from tailrace.backends.codec import encode
from tailrace.backends.ports import Assigned, Message, Output
from tailrace.backends.telemetry import Metrics
from tailrace.contracts.records import Prediction, Source
from tailrace.contracts.retraining import CandidateRefused, RetrainRequested
from tailrace.contracts.topics import Topics
from tailrace.core.monitor_state import Champion
from tailrace.feedback.processor import FeedbackProcessor
from tailrace.feedback.specs import kept_ms

HOUR_MS = 3_600_000
WEEK_MS = 7 * 24 * HOUR_MS
START_MS = 2_860 * WEEK_MS
WALL_MS = START_MS + 100 * WEEK_MS
WEEKS = 10
STEP_MS = 24 * HOUR_MS
EVENTS = 24
"""Of a step; every third has an outcome."""

POLICIES = """
monitor=[tr.metrics.LogLoss("1d"), tr.drift.PSI(every="1d"), tr.drift.PageHinkley("brier")],
retrain=tr.Retrain(on=["drift"], at_most_every="1d", min_labels=10, window="7d", every_labels=50),
"""


class Year:
    """A worker whose every week is like the last, but for the model that serves and the channel that sells."""

    def __init__(self, folder: Path) -> None:
        self.use_case = payments(folder, "kept", label='corrected_within="1d"', policies=POLICIES)
        self.topics = Topics("kept")
        self.requests = 0
        self.deleted: list[dict[str, object]] = []
        self.newest: dict[tuple[str, bytes], dict[str, object]] = {}
        self._changelog: dict[bytes, bytes] = {}
        self._champion: list[tuple[int, Champion]] = []
        self._step = 0
        self.restart()

    def restart(self) -> None:
        """Ends the process and begins anew from the changelog."""
        self.processor = FeedbackProcessor(
            self.use_case,
            lambda: list(self._changelog.items()),
            lambda: self._champion.pop() if self._champion else None,
            Metrics("kept"),
        )
        topics = (self.topics.predictions, self.topics.shadow, "kept.reports", self.topics.retraining)
        self.processor.assigned([Assigned(topic, 0, -1, "") for topic in topics])

    def run(self, weeks: int) -> Counter[str]:
        """Lets weeks pass; gives the most that was held at any time of the last two."""
        most: Counter[str] = Counter()
        steps = weeks * WEEK_MS // STEP_MS
        for left in range(steps, 0, -1):
            week, first = divmod(self._step, WEEK_MS // STEP_MS)
            if first == 0:
                self._champion = [(week + 1, Champion(f"{week:02}", {"log_loss": 0.4}, {}))]
            self._take(self.processor.process(list(self._batch(week)), WALL_MS))
            self._step += 1
            if left <= 2 * WEEK_MS // STEP_MS:
                most |= held(self.processor)
        return most

    def _batch(self, week: int) -> Iterator[Message]:
        start_ms = START_MS + self._step * STEP_MS
        for at in range(EVENTS):
            number, at_ms = self._step * EVENTS + at, start_ms + at * STEP_MS // EVENTS
            yield self._message(self.topics.predictions, encode(self._prediction(number, at_ms, week)))
            if at % 3 == 0:
                outcome = {"payment_id": f"p{number:06}", "loss": float(at % 2 == 0), "at_ms": at_ms + HOUR_MS}
                yield self._message("kept.reports", encode(outcome))

    def _take(self, outputs: Iterable[Output]) -> None:
        refused = []
        for output in outputs:
            if output.topic == self.topics.feedback_changelog and output.value is None:
                self._changelog.pop(output.key or b"", None)
            elif output.topic == self.topics.feedback_changelog:
                self._changelog[output.key or b""] = output.value or b""
            elif output.topic == self.topics.quality and output.value is None:
                self.deleted.append(self.newest.pop((output.topic, output.key or b"")))
            elif output.topic in (self.topics.labels, self.topics.quality):
                self.newest[output.topic, output.key or b""] = _counted(output.value or b"")
            elif output.topic == self.topics.retraining:
                asked = msgspec.json.decode(output.value or b"", type=RetrainRequested)
                refused.append(_refused(asked))
        self.requests += len(refused)
        self.processor.process([self._message(self.topics.retraining, encode(record)) for record in refused], WALL_MS)

    def _prediction(self, number: int, at_ms: int, week: int) -> Prediction:
        return prediction(
            self.use_case,
            f"p{number:06}",
            at_ms,
            (number % 12 + 1) / 20,
            slices={"channel": f"shop{week:02}"},
            model_version=f"{week:02}",
            epoch=week + 1,
            source=Source("payments", 0, number),
        )

    def _message(self, topic: str, value: bytes) -> Message:
        return Message(topic, 0, 0, WALL_MS, b"k", value, [])


def _counted(record: bytes) -> dict[str, object]:
    """A label, or counts of a window: after a restart windows are published again, with what is known by then."""
    said: dict[str, object] = msgspec.json.decode(record)
    counts = ("predictions", "labelled", "maturity", "bins", "n", "positives", "intervals")
    return {name: said[name] for name in counts} if "bins" in said else said


def _refused(asked: RetrainRequested) -> CandidateRefused:
    return CandidateRefused(
        run_id=asked.run_id, use_case="kept", refused_at_ms=asked.requested_at_ms, reason="no better", gates=[]
    )


def held(root: object) -> Counter[str]:
    """Entries of all containers that are reachable, by the attributes that lead to them; what an entry holds is `[]`."""
    found: Counter[str] = Counter()
    seen: set[int] = set()
    waiting = [("", root)]
    while waiting:
        path, this = waiting.pop()
        if id(this) in seen or isinstance(this, type | ModuleType | str | bytes | int | float):
            continue
        seen.add(id(this))
        if isinstance(this, np.ndarray):
            found[path] += this.size
        elif isinstance(this, dict):
            found[path] += len(this)
            waiting += [(f"{path}[]", entry) for entry in [*this.keys(), *this.values()]]
        elif isinstance(this, list | tuple | set | frozenset | deque):
            found[path] += len(this)
            waiting += [(f"{path}[]", entry) for entry in this]
        else:
            waiting += [(f"{path}.{name}", getattr(this, name)) for name in _attributes(this)]
    return found


def _attributes(this: object) -> list[str]:
    slots = [getattr(kind, "__slots__", ()) for kind in type(this).__mro__]
    named = [name for names in slots for name in ([names] if isinstance(names, str) else names)]
    return [name for name in [*getattr(this, "__dict__", ()), *named] if hasattr(this, name)]


def test_restarted_worker_says_of_changing_versions_and_slices_what_one_that_ran_on_says(tmp_path: Path) -> None:
    year, other = Year(tmp_path / "one"), Year(tmp_path / "other")
    for _ in range(4):
        year.run(1)
        other.run(1)
        other.restart()
    assert len(year.newest) > 500
    assert other.newest == year.newest


def test_windows_of_quality_that_nobody_looks_back_at_are_deleted_once_whoever_restarts(tmp_path: Path) -> None:
    year, other = Year(tmp_path / "one"), Year(tmp_path / "other")
    for _ in range(6):
        year.run(1)
        other.run(1)
        other.restart()
    kept = kept_ms(year.use_case, year.use_case.label)
    starts = [int(key.split(b"|")[0]) for topic, key in year.newest if topic == year.topics.quality]
    last_ms = START_MS + 6 * WEEK_MS
    assert last_ms - kept - 2 * STEP_MS <= min(starts) < last_ms - kept + 2 * STEP_MS
    assert len(year.deleted) > 2 * len(starts)
    assert other.deleted == year.deleted
    assert other.newest == year.newest


def test_twice_as_many_weeks_leave_no_more(tmp_path: Path) -> None:
    year = Year(tmp_path)
    before = year.run(WEEKS)
    asked = year.requests
    after = year.run(WEEKS)
    assert year.requests > asked  # and versions and slices changed every week
    assert {path: (before[path], count) for path, count in after.items() if count > before[path]} == {}
