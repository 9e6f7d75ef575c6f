"""Half of the outcomes lost for an hour, and all partitions silent: the whole loop, in the simulator.

    python -m load_tests.studies.lost_outcomes [--seeds 8] [--json]

Outcomes are lost at another hour of the day with each seed, once where every event has its outcome and once where
only positives are reported. What is caused is what a run of the same stream without the loss does not ask for. A day
after the lost hour the concept does change, which has to be told and answered as it is without the loss. In the
silence nothing is sent on any partition and no producer states a watermark; predictions whose outcome never came must
have their negative label a minute of idle time and a step of the simulation after their window closed.
"""

from __future__ import annotations

from typing import NamedTuple

from load_tests.studies.concepts import tables, use_case
from load_tests.studies.report import Figure, report
from tailrace import Retrain
from tailrace.backends.settings import Settings
from tailrace.contracts.retraining import RetrainRequested
from tailrace.testing.faults import AnyFault, Drop, Silence
from tailrace.testing.simulation import Simulation
from tailrace.testing.simulator import simulate

HOUR_MS = 3_600_000
MOST_MINUTES = 5.0
LOST_DAY, LATER_H, DRIFT_H = 2, 24, 18
"""An hour of this day is lost; the concept changes so many hours after its end, and stays for so many."""
PER_DAY = {"all": 86_400, "failures": 259_200}
"""About 60 outcomes a minute, whoever reports them."""
FIRST_H = {"all": 0, "failures": 4}
"""Hours from an event to its first label: outcomes count at once, or silence at the end of the window."""
POLICY = Retrain(on=["drift", "metric_drop"], at_most_every="6h", at_least_every="1d", min_labels=5_000, window="1d")
STEP_S = 30
IDLE_S = 60


class Loss(NamedTuple):
    """What an hour of lost outcomes did: minutes to the alarm, -1 for none; what was caused; and how a drift was met.

    `told_h` are hours from the drift to the first alarm on the loss, a day for none; `later_h` by how much that is
    later than without the loss; `unanswered`, whether no model was asked for.
    """

    minutes: float
    retrainings: int
    rollbacks: int
    told_h: float
    later_h: float
    unanswered: bool


def loss(seed: int, reports: str) -> Loss:
    """One run with the loss, held against one without."""
    hour = (3 * seed) % 21
    lost = Drop(share=0.5, at=f"{24 * LOST_DAY + hour}h", until=f"{24 * LOST_DAY + hour + 1}h")
    stable_h = 24 * LOST_DAY + hour + 1 + LATER_H
    with_loss, without = (_played(seed, reports, stable_h, *faults) for faults in ((lost,), ()))
    begin_ms, _ = lost.span_ms(with_loss.begin_ms)
    drift_ms = with_loss.begin_ms + stable_h * HOUR_MS
    raised = [a.raised_at_ms for a in with_loss.alarms if a.kind in lost.alarms and a.raised_at_ms > begin_ms]
    minutes = (min(raised) - begin_ms) / 60_000 if with_loss.detects(lost, within="1d") else -1.0
    caused = len(_asked(with_loss, begin_ms, drift_ms)) - len(_asked(without, begin_ms, drift_ms))
    rolled_back = bool(with_loss.rolls_back(after=lost, within=f"{LATER_H}h"))
    # Before the first label that the drift may have turned, nothing speaks of it.
    first_h = FIRST_H[reports]
    told_h = [_told_h(loop, drift_ms, first_h) for loop in (with_loss, without)]
    answers = _asked(with_loss, drift_ms + first_h * HOUR_MS, drift_ms + DRIFT_H * HOUR_MS)
    unanswered = not any(record.trigger in ("drift", "metric_drop") for record in answers)
    return Loss(minutes, max(caused, 0), int(rolled_back), told_h[0], told_h[0] - told_h[1], unanswered)


def silence(seed: int) -> tuple[float, int]:
    """Seconds from the end of a window to the latest negative label, and labels that never came."""
    case = use_case(Retrain(on=[], min_labels=10**9))
    begin, hours = 5, 12
    faults: list[AnyFault] = [Drop(share=0.3), Silence(at=f"{begin}h", until=f"{hours}h")]
    readings, reports, _, _ = tables(seed, [("A", (hours + 0.25) / 24)], 20_000)
    loop = simulate(case, readings, reports, faults=faults, seed=seed, step=f"{STEP_S}s", settings=_settings())
    before = int((readings["at_ms"].to_numpy() < loop.begin_ms + begin * 3_600_000).sum())
    return loop.latest_timeout_ms / 1_000, max(before - loop.counts.labels, 0)


def figures(seeds: int) -> list[Figure]:
    """The worst of all seeds."""
    found = []
    for reports, who in (("all", "every event reported"), ("failures", "only positives reported")):
        runs = [loss(seed, reports) for seed in range(1, seeds + 1)]
        found += [
            Figure(f"minutes to the alarm, {who}", max(_or_never(run.minutes) for run in runs), MOST_MINUTES),
            Figure(f"retrainings caused, {who}", sum(run.retrainings for run in runs), 0),
            Figure(f"rollbacks caused, {who}", sum(run.rollbacks for run in runs), 0),
            Figure(f"hours until drift a day later is told, {who}", max(run.told_h for run in runs)),
            Figure(f"hours by which the loss delays that, {who}", max(run.later_h for run in runs), 1),
            Figure(f"drifts that were not answered, {who}", sum(run.unanswered for run in runs), 0),
        ]
    silent = [silence(seed) for seed in range(1, seeds + 1)]
    return [
        *found,
        Figure("silence: seconds from a window's end to its negatives", max(s for s, _ in silent), STEP_S + IDLE_S),
        Figure("silence: labels that never came", sum(missing for _, missing in silent), 0),
    ]


def _played(seed: int, reports: str, stable_h: int, *faults: AnyFault) -> Simulation:
    case = use_case(POLICY, reports=reports)
    readings, outcomes, _, _ = tables(
        seed, [("A", stable_h / 24), ("B", DRIFT_H / 24)], PER_DAY[reports], reports=reports
    )
    return simulate(case, readings, outcomes, faults=faults, seed=seed, settings=_settings())


def _asked(loop: Simulation, since_ms: int, until_ms: int) -> list[RetrainRequested]:
    asked = [record for record in loop.retraining if isinstance(record, RetrainRequested)]
    return [record for record in asked if since_ms <= record.requested_at_ms < until_ms]


def _told_h(loop: Simulation, drift_ms: int, first_h: int) -> float:
    kinds = ("drift", "metric_drop")
    times = [alarm.raised_at_ms for alarm in loop.alarms if alarm.kind in kinds and not alarm.resolved]
    after = [at_ms for at_ms in times if at_ms > drift_ms + first_h * HOUR_MS]
    return (min(after, default=drift_ms + 24 * HOUR_MS) - drift_ms) / HOUR_MS


def _or_never(minutes: float) -> float:
    return minutes if minutes >= 0.0 else 24.0 * 60.0


def _settings() -> Settings:
    return Settings(partitions=2, threads=1)


if __name__ == "__main__":
    report(figures)
