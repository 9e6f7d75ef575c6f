"""When to retrain: static, scheduled and triggered, on recorded streams through the whole loop, in the simulator.

    TAILRACE_DATA=DIR python -m load_tests.studies.policies [--stream elec2] [--share 1.0] [--json]

The streams are Elec2, its label known with the next half hour or a day later, with and without features of the newest
labels, and the fraud handbook with its delay of seven days. Static is the first model for ever; scheduled a training
each day, promoted after the gates; triggered is one policy for all: a slow schedule, which takes nine tenths of the
budget of a third of those trainings, the e-detector on errors, training from the change point, refits at doubling
counts, recall of former champions, and that budget. Everything else is the same for all three.

Bars, for the triggered policy: within a point of the scheduled one with at most a third of its trainings; and on the
fraud handbook, which hardly drifts, at most one performance trigger in 90 days. Told beside them: seconds of training.
"""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import typer

import tailrace as tr
from load_tests.studies.report import Figure, show
from tailrace.backends.settings import Settings
from tailrace.contracts.retraining import CandidateRefused, CandidateRegistered, RetrainRequested
from tailrace.core.metrics import merge
from tailrace.errors import ConfigError
from tailrace.testing.decisions import NO_MODEL
from tailrace.testing.simulation import Simulation
from tailrace.testing.simulator import simulate
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.load import load_use_case

FEATURE_REPO = Path(__file__).parents[2] / "feature_repo"
MOST_BEHIND = 0.01
MOST_TRAININGS = 1.0 / 3.0
MOST_TRIGGERS = 1.0
DAYS = 90.0
DAY_MS = 86_400_000
PERFORMANCE = ("drift", "metric_drop")


class Stream(NamedTuple):
    """A recorded stream and what is asked of it.

    `later` are hours added to its label delay. `told` are windows over the newest labels that models are given as
    features as well; then `step` is short enough for labels to be there for the events that follow, as in service.
    """

    folder: str
    metric: str
    step: str
    entity: str
    later: int = 0
    told: tuple[str, ...] = ()


class Outcome(NamedTuple):
    """What a policy did: its metric over all that a model scored, trainings by trigger, seconds, and days served."""

    value: float
    trainings: Counter[str]
    seconds: float
    days: float


STREAMS = {
    "elec2": Stream("elec2", "accuracy", "3h", "market"),
    "elec2, told the newest labels": Stream("elec2", "accuracy", "30m", "market", told=("30m", "2h", "1d")),
    "elec2, label a day late": Stream("elec2", "accuracy", "3h", "market", later=24),
    "fraud_handbook": Stream("fraud_handbook", "pr_auc", "6h", "terminal_id"),
}
POLICIES: dict[str, dict[str, Any]] = {
    "static": {"on": [], "at_most_every": "1d"},
    "scheduled": {"on": [], "at_most_every": "1d", "at_least_every": "1d"},
    "triggered": {
        "on": list(PERFORMANCE),
        "at_most_every": "1d",
        "at_least_every": "80h",
        "budget": tr.Budget(10, per="30d"),
    },
}


def outcome(stream: Stream, policy: str, share: float) -> Outcome:
    """Plays a stream under a policy; `share` of the entities, so that a few minutes tell something."""
    case = _use_case(stream, policy, share)
    settings = Settings(use_cases=FEATURE_REPO, partitions=2, threads=1)
    loop = simulate(case, *_tables(stream, share), settings=settings, step=stream.step)
    served = [q for q in loop.quality_records.values() if q.variant != "shadow" and q.model_version != NO_MODEL]
    value = merge(served, threshold=case.plan.threshold)[stream.metric]
    asked = Counter[str](r.trigger for r in loop.retraining if isinstance(r, RetrainRequested))
    return Outcome(value if value is not None else 0.0, asked, _seconds(loop), _days(loop))


def figures(names: Sequence[str], share: float) -> list[Figure]:
    """The table: each policy on each stream, and the bars."""
    found = []
    for name in names:
        stream = STREAMS[name]
        runs = {policy: outcome(stream, policy, share) for policy in POLICIES}
        for policy, run in runs.items():
            found += [
                Figure(f"{name}, {policy}: {stream.metric}", run.value),
                Figure(f"{name}, {policy}: trainings", run.trainings.total()),
                Figure(f"{name}, {policy}: seconds of training", run.seconds),
            ]
        ours, scheduled = runs["triggered"], runs["scheduled"]
        ratio = ours.trainings.total() / max(scheduled.trainings.total(), 1)
        found += [
            Figure(f"{name}: {stream.metric} behind the schedule's", scheduled.value - ours.value, MOST_BEHIND),
            Figure(f"{name}: trainings over the schedule's", ratio, MOST_TRAININGS),
        ]
        if stream.folder == "fraud_handbook":
            triggers = sum(ours.trainings[trigger] for trigger in PERFORMANCE)
            found.append(Figure(f"{name}: performance triggers in 90 days", triggers * DAYS / ours.days, MOST_TRIGGERS))
    return found


def _use_case(stream: Stream, policy: str, share: float) -> UseCase:
    """The use case as it is declared, but for what the study compares, and what must be one for all."""
    case = _told(copy.copy(load_use_case(FEATURE_REPO, stream.folder)), stream)
    least = max(round(case.retrain.min_labels * share), 1_000)
    case.retrain = tr.Retrain(**POLICIES[policy], min_labels=least, window=case.retrain.window)
    case.monitor = (*case.metrics, tr.drift.EDetector("accuracy"), tr.drift.EDetector("log_loss"))
    case.gates = (tr.NotWorse("log_loss"),)
    case.rollout = tr.Immediate()
    if stream.later:
        hours = f"{stream.later + 1}h"
        case.label = copy.copy(case.label)
        object.__setattr__(case.label, "matures_after", hours)
    return case


def _told(case: UseCase, stream: Stream) -> UseCase:
    """The use case with the share of positives among the newest labels as further features."""
    if not stream.told:
        return case
    newest = tr.GroupBy(case.label, by=stream.entity, windows=list(stream.told)).aggregate(tr.Mean("label"))
    return UseCase(
        name=case.name,
        requests=case.requests,
        prediction_id=case.prediction_id,
        features=[*case.features, *newest],
        label=case.label,
        model=case.model,
        retrain=case.retrain,
        monitor=case.monitor,
    )


def _tables(stream: Stream, share: float) -> tuple[pa.Table, pa.Table]:
    root = os.environ.get("TAILRACE_DATA")
    if not root:
        raise ConfigError("TAILRACE_DATA names no folder of recorded streams")
    events, outcomes = (
        pq.read_table(Path(root) / stream.folder / f"{side}.parquet") for side in ("events", "outcomes")
    )
    if share < 1.0:
        names = events[stream.entity].unique().sort()
        events = events.filter(pc.is_in(events[stream.entity], names[: max(round(len(names) * share), 1)]))
        outcomes = outcomes.filter(pc.is_in(outcomes["event_id"], events["event_id"]))
    if stream.later:
        later = pa.scalar(stream.later * 3_600_000, pa.duration("ms"))
        place = outcomes.column_names.index("outcome_time")
        outcomes = outcomes.set_column(place, "outcome_time", pc.add(outcomes["outcome_time"], later))
    return events, outcomes


def _seconds(loop: Simulation) -> float:
    ended = [r for r in loop.retraining if isinstance(r, CandidateRegistered | CandidateRefused)]
    return sum(record.seconds for record in ended)


def _days(loop: Simulation) -> float:
    """Days since the first model."""
    champions = loop.champions()
    return (loop.end_ms - champions[0][0]) / DAY_MS if champions else 1.0


def main(
    stream: Annotated[list[str] | None, typer.Option(help="Which of them; all by default.")] = None,
    share: Annotated[float, typer.Option(help="Share of the entities of a stream with many.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Prints the table."""
    show(figures(stream or list(STREAMS), share), as_json=as_json)


if __name__ == "__main__":
    typer.run(main)
