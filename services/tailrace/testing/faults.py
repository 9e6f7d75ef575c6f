"""What can befall a stream and the system that reads it, declared; `injection` and `simulator` carry it out.

Times are durations since the stream's first event ("10d"), or dates and times, UTC ("2025-01-16T12:00").
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from tailrace.contracts.quality import AlarmKind
from tailrace.core.durations import milliseconds
from tailrace.errors import ConfigError

Side = Literal["events", "outcomes"]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class Fault(msgspec.Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """Something that happens from `at` until `until`.

    Args:
        at: When it begins.
        until: When it ends; "" for never.
        name: What expectations call it; "" for its type.

    Attributes:
        alarms: Kinds of alarms that tell of it.
    """

    alarms: ClassVar[frozenset[AlarmKind]] = frozenset({"drift", "metric_drop"})
    at: str = "0s"
    until: str = ""
    name: str = ""

    @property
    def label(self) -> str:
        """What it is called."""
        return self.name or type(self).__name__

    def span_ms(self, begin_ms: int) -> tuple[int, int]:
        """Begin and end, epoch milliseconds, of a stream that begins at `begin_ms`."""
        end_ms = moment_ms(self.until, begin_ms) if self.until else 2**62
        return moment_ms(self.at, begin_ms), end_ms


class CovariateShift(Fault, frozen=True):
    """A numeric column of the events moves; outcomes stay as they are.

    Args:
        column: Field of the events.
        by: How far its mean moves, in standard deviations of the whole recording.
        spread: Factor on its standard deviation.
    """

    column: str
    by: float = 0.0
    spread: float = 1.0


class ConceptShift(Fault, frozen=True):
    """The relation between events and outcomes changes: positives trade their outcomes with negatives.

    The rate of positives and the law of their delays stay as they were.

    Args:
        share: Of the positives of the span, in [0, 1].
        column: Numeric field of the events; new positives are drawn from its highest tenth, so that the
            new concept can be learned. "" draws from all.
    """

    share: Share = 1.0
    column: str = ""


class LabelDelay(Fault, frozen=True):
    """Outcomes reported in the span come later after their events.

    Args:
        times: Factor on the recorded delays.
        mean: Draws delays anew from the exponential law of this mean, before `times`; "" keeps them.
    """

    alarms: ClassVar[frozenset[AlarmKind]] = frozenset({"label_delay", "broken_join"})
    times: float = 1.0
    mean: str = ""


class Drop(Fault, frozen=True):
    """Records are lost before they reach Kafka.

    Args:
        side: Events or outcomes.
        share: Of the records of the span, in [0, 1].
    """

    alarms: ClassVar[frozenset[AlarmKind]] = frozenset({"broken_join", "label_delay"})
    side: Side = "outcomes"
    share: Share = 1.0


class Silence(Fault, frozen=True):
    """Nothing is sent on any partition: stream time has to go on by the clock, or nothing would ever come to its end.

    What would have been sent is lost. Producers state no watermarks, neither now nor before: stream time follows the
    records, as it does where producers do not know of Tailrace.
    """


class Duplicate(Fault, frozen=True):
    """A producer sends records a second time.

    Args:
        side: Events or outcomes.
        share: Of the records of the span, in [0, 1].
        within: How long after the first at most.
    """

    side: Side = "events"
    share: Share = 0.01
    within: str = "1m"


class Disorder(Fault, frozen=True):
    """Records arrive late, so that others overtake them. The producer's watermark then trails by the lateness declared.

    Args:
        side: Events or outcomes.
        share: Of the records of the span, in [0, 1].
        by: How late at most; beyond the declared lateness of the topic they are late for good.
    """

    side: Side = "events"
    share: Share = 1.0
    by: str = "1s"


class Malformed(Fault, frozen=True):
    """Records that nobody can use come among the events; see `testing.malformed`.

    Args:
        share: Of the events of the span, in [0, 1].
    """

    share: Share = 0.01


class Poison(Fault, frozen=True):
    """A source reports outcomes that are not true.

    Args:
        source: "column=value" of the outcomes, or else of the events judged; "" for all.
        share: Of the events that the source speaks of, in [0, 1].
    """

    alarms: ClassVar[frozenset[AlarmKind]] = frozenset({"label_source", "broken_join", "drift", "metric_drop"})
    source: str = ""
    share: Share = 0.05


class Crash(Fault, frozen=True):
    """A service is killed in the middle of a batch, loses its memory and goes on from what is committed.

    Args:
        service: features, inference, feedback, trainer or rollout.
    """

    service: Literal["features", "inference", "feedback", "trainer", "rollout"]


class Candidate(Fault, frozen=True):
    """Somebody registers a model past the trainer, so that only the rollout stands before it.

    Args:
        model: ONNX file: float32 rows (n, d) in the order of the plan to n probabilities.
    """

    model: str


class Erasure(Fault, frozen=True):
    """A person asks that nothing be kept of an entity, of events before that moment.

    Args:
        entity: Column of the entity.
        value: Which one.
    """

    entity: str
    value: str


AnyFault = (
    CovariateShift
    | ConceptShift
    | LabelDelay
    | Drop
    | Silence
    | Duplicate
    | Disorder
    | Malformed
    | Poison
    | Crash
    | Candidate
    | Erasure
)


def check(faults: Sequence[AnyFault], begin_ms: int) -> None:
    """Checks what a constructor does not: ranges, moments, names that say which.

    Args:
        faults: Faults of one simulation.
        begin_ms: Begin of its stream.

    Raises:
        ConfigError: lists everything that is wrong.
    """
    findings = []
    for fault in faults:
        try:
            msgspec.convert(msgspec.to_builtins(fault), AnyFault)
            begin, end = fault.span_ms(begin_ms)
            if begin >= end:
                findings.append(f"{fault.label}: until={fault.until!r} is no later than at={fault.at!r}")
        except (msgspec.ValidationError, ConfigError) as error:
            findings.append(f"{fault.label}: {error}")
    labels = [fault.label for fault in faults if fault.name]
    findings += [f"{label!r} names {labels.count(label)} faults" for label in set(labels) if labels.count(label) > 1]
    if findings:
        raise ConfigError("faults are wrong:\n  " + "\n  ".join(sorted(findings)))


def moment_ms(text: str, begin_ms: int) -> int:
    """Epoch milliseconds of a moment: a duration since `begin_ms`, or a date and time, UTC.

    Raises:
        ConfigError: it is neither.
    """
    try:
        return begin_ms + milliseconds(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no moment; write '10d' after the begin, or '2025-01-16T12:00'") from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000)


def read_fault(text: str) -> AnyFault:
    """Reads a fault as people type it: its type, then its fields.

    Raises:
        ConfigError: there is no such type, or a field is wrong; says which there are.

    Example:
        >>> read_fault("ConceptShift at=10d share=0.5")
        ConceptShift(share=0.5, column='', at='10d', until='', name='')
    """
    return read_words(text, AnyFault)  # type: ignore[no-any-return]  # converted to the union


def read_words(text: str, kinds: Any) -> Any:
    """Reads one of several tagged types, written as `Type field=value field=value`; see `read_fault`."""
    kind, *words = shlex.split(text) or [""]
    fields: dict[str, Any] = {"type": kind}
    for word in words:
        field, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"{text!r}: {word!r} is no field=value")
        fields[field] = value
    try:
        return msgspec.convert(fields, kinds, strict=False)
    except msgspec.ValidationError as error:
        known = ", ".join(one.__name__ for one in kinds.__args__)
        raise ConfigError(f"{text!r}: {error}; types are {known}") from error
