"""What came of a simulation, and what a policy can be held to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from tailrace.backends.codec import BatchDecoder
from tailrace.contracts.quality import Alarm
from tailrace.contracts.retraining import CandidateRegistered, RetrainRequested
from tailrace.core.durations import milliseconds
from tailrace.testing.decisions import DecisionLog, champion_of
from tailrace.testing.faults import AnyFault, Candidate, Fault, moment_ms

FOREVER_MS = 2**62
_BY_TIMEOUT = b'"reason":"timeout"'


class _TimedOut(msgspec.Struct):
    """What is looked at of a label that a prediction got because no outcome came."""

    event_time_ms: int
    auxiliary: bool = False


class Verdict:
    """Whether something holds, and what happened; what `assert` shows of it is the latter."""

    def __init__(self, holds: bool, why: str) -> None:
        self.holds = holds
        self.why = why

    def __bool__(self) -> bool:
        return self.holds

    def __repr__(self) -> str:
        return self.why


class QualityPoint(NamedTuple):
    """A metric of one version in one window; times in epoch milliseconds."""

    window_start_ms: int
    version: str
    value: float


class Counts(NamedTuple):
    """Records that went through a simulation, watermarks left out."""

    events: int = 0
    outcomes: int = 0
    predictions: int = 0
    shadow_predictions: int = 0
    labels: int = 0
    dead_letters: int = 0


class Simulation(DecisionLog):
    """The decisions of a simulated loop. `assert loop.detects(...)` says what happened where it does not hold.

    Args:
        use_case: Name of the use case.
        begin_ms: Begin of the stream, from which durations count, epoch milliseconds.
        faults: What was injected.
        closes_ms: From an event to the end of its attribution window, lateness included, milliseconds.

    Attributes:
        end_ms: Stream time at which it ended.
        counts: What went through.
        timed_out: Labels that predictions got because their windows closed without an outcome.
        latest_timeout_ms: Longest time from the end of such a window to its label, on the simulation's clock.
    """

    def __init__(self, use_case: str, begin_ms: int, faults: tuple[AnyFault, ...], closes_ms: int = 0) -> None:
        super().__init__(use_case)
        self.begin_ms = self.end_ms = begin_ms
        self.faults = faults
        self.counts = Counts()
        self.timed_out = 0
        self._closes_ms = closes_ms
        self.latest_timeout_ms = 0
        self._timeouts = BatchDecoder(_TimedOut)

    def take_labels(self, values: Sequence[bytes | None], now_ms: int) -> None:
        """Takes in records of LABELS, written when the clock of the simulation said `now_ms`."""
        found = self._timeouts.decode([value for value in values if value is not None and _BY_TIMEOUT in value])
        closed = [record.event_time_ms for record in found if not record.auxiliary]
        if closed:
            self.timed_out += len(closed)
            self.latest_timeout_ms = max(self.latest_timeout_ms, now_ms - min(closed) - self._closes_ms)

    def quality(self, metric: str, *, shadow: bool = False) -> list[QualityPoint]:
        """A metric over time, by window and version; windows without data are left out."""
        points = [
            QualityPoint(record.window_start_ms, record.model_version, value)
            for record in self.quality_records.values()
            if (record.variant == "shadow") == shadow and (value := record.metrics.get(metric)) is not None
        ]
        return sorted(points)

    def detects(self, drift: Fault | str, within: str) -> Verdict:
        """Whether an alarm that tells of a fault is raised no later than `within` after the fault begins.

        Drift and metric alarms tell of drift; alarms of broken joins and of delays tell of outcomes that are lost
        or late; see `alarms` of each fault.

        Args:
            drift: What was injected, its name, or a moment of drift as `faults` writes them.
            within: Longest delay.
        """
        at_ms, kinds = self._begin_of(drift), self._kinds_of(drift)
        # What is raised at the very moment speaks of the time before it.
        after = [alarm for alarm in self._raised() if alarm.kind in kinds and alarm.raised_at_ms > at_ms]
        first = min(after, key=lambda alarm: alarm.raised_at_ms, default=None)
        if first is None:
            asked = " or ".join(sorted(kinds))
            return Verdict(False, f"no {asked} alarm after {_when(at_ms)}; all alarms: {_listed(self._raised())}")
        late = first.raised_at_ms - at_ms
        return Verdict(
            late <= milliseconds(within),
            f"first alarm {_span(late)} after {_when(at_ms)}, asked for within {within}: {first.kind} {first.subject}",
        )

    def stays_quiet(self, until: Fault | str = "") -> Verdict:
        """Whether no alarm is raised before a moment, or at all."""
        end_ms = self._begin_of(until) if until else FOREVER_MS
        raised = [alarm for alarm in self._raised() if alarm.raised_at_ms <= end_ms]
        return Verdict(not raised, f"{len(raised)} alarms: {_listed(raised)}" if raised else "no alarm")

    def retrains(
        self,
        *,
        at_least: int = 1,
        at_most: int | None = None,
        after: Fault | str = "",
        within: str = "",
        trigger: str = "",
    ) -> Verdict:
        """Whether as many trainings are asked for as told, of one trigger or of any."""
        begin_ms = self._begin_of(after) if after else self.begin_ms
        end_ms = begin_ms + milliseconds(within) if within else FOREVER_MS
        asked = [
            r
            for r in self.retraining
            if isinstance(r, RetrainRequested)
            and begin_ms <= r.requested_at_ms <= end_ms
            and trigger in ("", r.trigger)
        ]
        fits = at_least <= len(asked) and (at_most is None or len(asked) <= at_most)
        listed = ", ".join(f"{r.trigger} at {_when(r.requested_at_ms)}" for r in asked[:10]) or "none"
        bounds = f"{at_least} to {'any number of' if at_most is None else at_most}"
        return Verdict(fits, f"{len(asked)} trainings asked for, {bounds} expected: {listed}")

    def promotes(self, model: Candidate | None = None, *, after: Fault | str = "", within: str = "") -> Verdict:
        """Whether a model becomes champion after a moment: any, or the candidate that was injected."""
        begin_ms = self._begin_of(after) if after else self.begin_ms
        end_ms = begin_ms + milliseconds(within) if within else FOREVER_MS
        version = self.version_of(model) if model is not None else ""
        became = [(at, v) for at, v in self.champions() if begin_ms <= at <= end_ms and version in ("", v)]
        said = f"champion was {self._champions_said()}"
        return Verdict(bool(became), said if became else f"not promoted from {_when(begin_ms)} on; {said}")

    def never_promotes(self, model: Candidate) -> Verdict:
        """Whether a candidate that was injected never becomes champion."""
        version = self.version_of(model)
        became = [at for at, champion in self.champions() if champion == version]
        reasons = [table.reason for table in self.tables if f"version {version} " in table.reason]
        why = f"version {version}: {'; '.join(reasons) or 'never considered'}"
        return Verdict(not became, f"promoted at {_when(became[0])}; {why}" if became else why)

    def rolls_back(self, *, after: Fault | str = "", within: str = "") -> Verdict:
        """Whether a former champion comes back after a moment."""
        begin_ms = self._begin_of(after) if after else self.begin_ms
        end_ms = begin_ms + milliseconds(within) if within else FOREVER_MS
        seen: set[str] = set()
        for at_ms, version in self.champions():
            if version in seen and begin_ms <= at_ms <= end_ms:
                return Verdict(True, f"version {version} came back at {_when(at_ms)}")
            seen.add(version)
        return Verdict(False, f"no former champion came back; champion was {self._champions_said()}")

    def recovers(self, drift: Fault | str, *, within: str, share: float = 0.5) -> Verdict:
        """Whether so much of the log loss that a drift costs is won back.

        Args:
            drift: What was injected, its name, or a moment.
            within: Time for it; the loss from then on is compared with that until then.
            share: Of the rise over the time before the drift, in [0, 1].
        """
        at_ms = self._begin_of(drift)
        new_ms = at_ms + milliseconds(within)
        spans = ((self.begin_ms, at_ms), (at_ms, new_ms), (new_ms, FOREVER_MS))
        before, during, after = (self.log_loss(*span) for span in spans)
        if before is None or during is None or after is None:
            return Verdict(False, "log loss is not known before, during and after the drift")
        figures = f"log loss {before:.4f} before, {during:.4f} until {_when(new_ms)}, {after:.4f} after"
        return Verdict(during > before and after <= during - share * (during - before), figures)

    def labels_in_time(self, within: str) -> Verdict:
        """Whether predictions whose outcome never came were told so in time.

        Args:
            within: Longest time from the end of an attribution window, lateness included, to the label; a step of
                the simulation, and where nothing is sent a minute, are part of it.
        """
        late = f"{self.timed_out} labels by time-out, the latest {_span(self.latest_timeout_ms)} after its window had closed"
        return Verdict(bool(self.timed_out) and self.latest_timeout_ms <= milliseconds(within), late)

    def champions(self) -> list[tuple[int, str]]:
        """Stream time and version of each change of champion, in order."""
        changes: list[tuple[int, str]] = []
        for table in self.tables:
            version = champion_of(table)
            if not changes or changes[-1][1] != version:
                changes.append((table.decided_at_ms, version))
        return changes

    def version_of(self, model: Candidate) -> str:
        """Version under which a candidate that was injected was registered; "" where it never was."""
        run = run_of(self.faults.index(model))
        return next(
            (r.model_version for r in self.retraining if isinstance(r, CandidateRegistered) and r.run_id == run), ""
        )

    def fault(self, name: str) -> AnyFault | None:
        """What was injected under a name."""
        return next((fault for fault in self.faults if fault.label == name), None)

    def _begin_of(self, moment: Fault | str) -> int:
        fault = self.fault(moment) if isinstance(moment, str) else moment
        return fault.span_ms(self.begin_ms)[0] if fault is not None else moment_ms(str(moment), self.begin_ms)

    def _kinds_of(self, moment: Fault | str) -> Collection[str]:
        fault = self.fault(moment) if isinstance(moment, str) else moment
        return fault.alarms if fault is not None else Fault.alarms

    def _raised(self) -> list[Alarm]:
        return [alarm for alarm in self.alarms if not alarm.resolved]

    def _champions_said(self) -> str:
        return ", ".join(f"{version} from {_when(at)}" for at, version in self.champions()) or "never any"


def run_of(number: int) -> str:
    """Run id of the candidate that is fault `number`."""
    return f"injected-{number}"


def _listed(alarms: list[Alarm]) -> str:
    return ", ".join(f"{a.kind} {a.subject} at {_when(a.raised_at_ms)}" for a in alarms[:10]) or "none"


def _when(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M")


def _span(span_ms: int) -> str:
    days, rest = divmod(span_ms // 60_000, 1_440)
    return f"{days}d {rest // 60}h {rest % 60}m" if days else f"{rest // 60}h {rest % 60}m"
