"""Adaptive accuracy: the loss detector, the retraining policy, the trainer and the gates, together on a changing stream.

    python -m load_tests.studies.adaptive [--seeds 2] [--json]

River's Agrawal generator, functions 0, 2, 5 and 7 for 25,000 events each, changed at once; every event is predicted
before its label is known, and labels come at once or 1,000 events later. A tick is 100 events, one configuration serves
both. Bars: accuracy over all events, the first included; trainings; events from each change to its alarm, counted from
the first label behind it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from river.datasets import synth

from load_tests.studies.report import Figure, report
from tailrace.core.e_detector import Baseline, EDetectorState
from tailrace.core.monitors import EDetector
from tailrace.core.retraining import Evidence, RetrainSpec, RetrainState
from tailrace.core.sampling import DataSet, split_by_time
from tailrace.core.validation import GateSpec, judge
from tailrace.trainer.boosting import fit
from tailrace.trainer.fitting import EVEN, Choice, Recipe, Taken, take
from tailrace.trainer.tasks import Probabilities
from tailrace.usecase.load import load_use_case

FUNCTIONS, EACH = (0, 2, 5, 7), 25_000
TICK = 100
DELAYS = {0: 0.950, 1_000: 0.935}
"""Label delays in events, and the least accuracy under each."""
MOST_TRAININGS, MOST_EVENTS = 50, 200
POLICY = RetrainSpec(
    on=frozenset({"drift"}), at_most_every_ms=0, at_least_every_ms=None, min_labels=200, window_ms=2 * EACH
)
GATES = [GateSpec("log_loss")]
PLAN = load_use_case(Path(__file__).parents[2] / "feature_repo", "elec2").plan
"""Of a use case with the threshold 0.5; nothing else of it is looked at."""
RECIPE, TASK = Recipe(fit, False, PLAN, 0), Probabilities(PLAN)


class Outcome(NamedTuple):
    """What a run showed: accuracy in [0, 1], trainings, and events from each change to its alarm, -1 for none."""

    accuracy: float
    trainings: int
    alarmed_after: list[int]


def stream(seed: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Rows float32 (n, 9) and labels bool (n,) of all four functions."""
    rows, labels = [], []
    for function in FUNCTIONS:
        for row, label in synth.Agrawal(classification_function=function, seed=seed).take(EACH):
            rows.append(list(row.values()))
            labels.append(bool(label))
    return np.array(rows, dtype=np.float32), np.array(labels, dtype=np.bool_)


class Loop:
    """The loop on a stream whose time is the number of the event."""

    def __init__(self, rows: NDArray[np.float32], labels: NDArray[np.bool_], delay: int) -> None:
        self._data = DataSet(rows, labels, np.arange(len(labels), dtype=np.int64))
        self._delay = delay
        self._champion: Taken | None = None
        self._detector: EDetectorState | None = None
        self._served_from = 0
        self._retrain = RetrainState()
        self._drift = ""
        self._wrong = np.ones(len(labels), np.bool_)
        self.trainings = 0
        self.alarms: list[int] = []

    def run(self) -> float:
        """Accuracy over all events; what is predicted before the first model counts as wrong."""
        known = 0
        for now in range(TICK, len(self._wrong) + 1, TICK):
            if self._champion is not None:
                scores = _said(self._champion, self._data.rows[now - TICK : now])
                self._wrong[now - TICK : now] = (scores >= 0.5) != self._data.labels[now - TICK : now]
            before, known = known, max(now - self._delay, 0)
            self._judge(np.arange(max(before, self._served_from), known))
            self._decide(now, known)
        return 1.0 - float(self._wrong.mean())

    def _judge(self, new: NDArray[np.int64]) -> None:
        if self._detector is None or not new.size:
            return
        self._retrain.observe(new)
        since = self._detector.update(self._wrong[new].astype(np.float64), new)
        if since is not None:
            self.alarms.append(int(new[-1]))
            self._retrain.changed(POLICY, since, int(new[-1]) + 1 - since)
            self._drift = f"since event {since}"

    def _decide(self, now: int, known: int) -> None:
        evidence = Evidence(now_ms=now, has_champion=self._champion is not None, labels=known, drift=self._drift)
        if self._retrain.decide(POLICY, evidence) is None:
            return
        self._retrain.requested(POLICY, evidence, "run")
        self._retrain.ended("run")
        self._drift = ""
        self.trainings += 1
        self._train(self._retrain.change_ms or max(known - POLICY.window_ms, 0), known, now)

    def _train(self, first: int, known: int, now: int) -> None:
        data = self._data.where(slice(first, known))
        split = split_by_time(data)
        if any(part.labels.all() or not part.labels.any() for part in split):
            return
        choices = [Choice("concept", data, EVEN)]
        if first > (oldest := max(known - POLICY.window_ms, 0)):
            choices.append(Choice("window", self._data.where(slice(oldest, known)), EVEN))
        taken, gates = take(RECIPE, TASK, choices, split), split.gates
        scores = _said(taken, gates.rows)
        held, worse = None, {}
        if self._champion is not None:
            champions = _said(self._champion, gates.rows)
            held = TASK.metrics(champions, gates)
            worse = {"log_loss": TASK.losses(scores, gates) - TASK.losses(champions, gates)}
        answers = gates.labels.astype(np.float64)
        results = judge(GATES, TASK.metrics(scores, gates), held, scores, answers=answers, worse=worse)
        if all(result.passed for result in results):
            self._champion, self._served_from = taken, now
            wrong = (scores >= 0.5) != gates.labels
            self._detector = EDetectorState.begun(EDetector(), Baseline.of(wrong.astype(np.float64)), 1.0)


def _said(taken: Taken, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    return TASK.published(taken.ending(taken.model.predict(rows)))


def outcome(seed: int, delay: int) -> Outcome:
    """One run."""
    loop = Loop(*stream(seed), delay)
    accuracy = loop.run()
    changes = [EACH * number for number in range(1, len(FUNCTIONS))]
    after = [next((at + 1 - change for at in loop.alarms if change <= at < change + EACH), -1) for change in changes]
    return Outcome(accuracy, loop.trainings, after)


def figures(seeds: int) -> list[Figure]:
    """The worst of some seeds under each label delay."""
    found = []
    for delay, least in DELAYS.items():
        runs = [outcome(seed, delay) for seed in range(1, seeds + 1)]
        slowest = max(after if after >= 0 else EACH for run in runs for after in run.alarmed_after)
        found += [
            Figure(f"accuracy, labels after {delay} events", min(run.accuracy for run in runs), least, ">="),
            Figure(f"trainings, labels after {delay} events", max(run.trainings for run in runs), MOST_TRAININGS),
            Figure(f"events from change to alarm, labels after {delay} events", slowest, MOST_EVENTS),
        ]
    return found


if __name__ == "__main__":
    report(figures)
