"""A concept that comes back (A, B, A): the whole loop, in the simulator, against an oracle that knows the concept.

    python -m load_tests.studies.recurring [--seeds 8] [--json]

The champion of the first concept must serve again within one evaluation window, a day, of the concept's return. From
the next day on its average precision is held against that of the probabilities that the outcomes were drawn from,
which no model can beat but by chance.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from load_tests.studies.concepts import DAY_MS, START_MS, tables, use_case
from load_tests.studies.report import Figure, report
from tailrace import Retrain, Shadow
from tailrace.backends.settings import Settings
from tailrace.contracts.quality import Quality
from tailrace.contracts.retraining import CandidateRegistered, RetrainRequested
from tailrace.core.metrics import merge, metrics_of
from tailrace.testing.simulation import Simulation
from tailrace.testing.simulator import simulate

PHASES = [("A", 5.0), ("B", 5.0), ("A", 5.0)]
PER_DAY = 10_000
POLICY = Retrain(on=["drift", "metric_drop"], at_most_every="3h", at_least_every="7d", min_labels=2_000, window="5d")
WINDOW_H = 24.0
MOST_BEHIND = 0.02


class Outcome(NamedTuple):
    """What a run showed.

    `hours` from the concept's return to that of its champion, -1 for never; average precision behind the oracle's
    from the next day on, and over all of the last phase; trainings, and requests that were met by a recall.
    """

    hours: float
    behind: float
    behind_in_all: float
    trainings: int
    recalled: int


def outcome(seed: int) -> Outcome:
    """One run."""
    readings, reports, probability, failed = tables(seed, PHASES, PER_DAY)
    case = use_case(POLICY, rollout=Shadow(hold="3h", max_disagreement=0.9))
    settings = Settings(partitions=2, threads=1)
    loop = simulate(case, readings, reports, seed=seed, settings=settings)
    changed_ms = START_MS + int(PHASES[0][1] * DAY_MS)
    returned_ms = changed_ms + int(PHASES[1][1] * DAY_MS)
    old = [version for at_ms, version in loop.champions() if at_ms <= changed_ms][-1]
    back = [at_ms for at_ms, version in loop.champions() if at_ms >= returned_ms and version == old]
    at_ms = readings["at_ms"].to_numpy()

    def behind(since_ms: int) -> float:
        mine = at_ms >= since_ms
        oracle = metrics_of(probability[mine], failed[mine], 0.5)["pr_auc"] or 0.0
        return oracle - (merge(_served(loop, since_ms))["pr_auc"] or 0.0)

    next_day_ms = -(-back[0] // DAY_MS) * DAY_MS if back else returned_ms
    asked = sum(isinstance(record, RetrainRequested) for record in loop.retraining)
    recalled = sum(isinstance(record, CandidateRegistered) and record.recalled for record in loop.retraining)
    hours = (back[0] - returned_ms) / 3_600_000 if back else -1.0
    return Outcome(hours, behind(next_day_ms), behind(returned_ms), asked - recalled, recalled)


def figures(seeds: int) -> list[Figure]:
    """The worst of all seeds, and means that are told."""
    runs = [outcome(seed) for seed in range(1, seeds + 1)]
    late = [run.hours if run.hours >= 0.0 else np.inf for run in runs]
    return [
        Figure("hours from the concept's return to its old champion's", max(late), WINDOW_H),
        Figure("average precision behind the oracle, from the next day on", max(r.behind for r in runs), MOST_BEHIND),
        Figure("the same over the whole phase, worst", max(r.behind_in_all for r in runs)),
        Figure("trainings, mean", float(np.mean([run.trainings for run in runs]))),
        Figure("former champions recalled, mean", float(np.mean([run.recalled for run in runs]))),
    ]


def _served(loop: Simulation, since_ms: int) -> list[Quality]:
    return [q for q in loop.quality_records.values() if q.variant != "shadow" and q.window_start_ms >= since_ms]


if __name__ == "__main__":
    report(figures)
