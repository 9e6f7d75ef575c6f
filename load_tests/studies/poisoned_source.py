"""One of several sources of labels lies: is it found and named, is the model kept from it, and is honest drift let be?

    python -m load_tests.studies.poisoned_source [--seeds 4] [--json]

First the watch alone, on sources of different shares, errors and delays: false alarms without a change, with honest
drift of several sizes, and after a better model; and how many labels it takes to find a source that flips as many of
its labels as make up 1, 2, 5 or 10 % of all. Then the whole loop, by the simulator: a stream, the same with a source
that flips 5 % of all labels, the same where outcomes do not say who reports, and honest drift that changes as many.
What is served is judged by the truth, which an auxiliary label of the same records holds.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from load_tests.studies.report import Figure, report
from tailrace.backends.settings import Settings
from tailrace.contracts.retraining import RetrainHeld, RetrainRequested
from tailrace.core.label_sources import LabelBlock, LabelSources, SourceFinding
from tailrace.core.outcome_sources import SourceBook
from tailrace.core.source_state import LabelSourcesData
from tailrace.testing.simulator import ConceptShift, Poison, Simulation, simulate
from tailrace.usecase.load import load_use_case

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
START_MS = 1_736_121_600_000
NAMES = ("a", "b", "c", "d")
SHARES = (0.4, 0.3, 0.2, 0.1)
ERRORS = (0.0, 0.01, 0.03, 0.06)
"""Share of labels that each source gets wrong honestly."""
DELAYS_H = (0.5, 1.0, 2.0, 5.0)
PER_HOUR = 100
DAYS = 30
POISONED = 1
SIZES = (0.01, 0.02, 0.05, 0.1)
PERFORMANCE = ("drift", "metric_drop", "refit")

LOOP_DAYS, PER_DAY, CHANGE_DAY = 10, 2_400, 5
_MODULE = """
import tailrace as tr


class Reading(tr.Event):
    reading_id: str
    pump: str
    heat: float
    load: float
    at_ms: int


class Failure(tr.Event):
    reading_id: str
    failed: bool
    truth: bool
    reporter: str
    at_ms: int


readings = tr.Topic("pumps.readings", Reading, key="pump", event_time="at_ms", lateness="2m")
failures = tr.Topic("pumps.failures", Failure, key="reading_id", event_time="at_ms", lateness="2m")
failed = tr.Label(failures, on="reading_id", value="failed", matures_after="6h", closes="outcome", SOURCE)
truth = tr.Label(failures, on="reading_id", value="truth", matures_after="6h", closes="outcome")
usecase = tr.UseCase(
    name="pumps",
    requests=readings,
    prediction_id="reading_id",
    features=[tr.Field("heat"), tr.Field("load")],
    label=failed,
    auxiliary_labels=[truth],
    model=tr.Binary(train="boosting", threshold=0.5, on_failure=tr.Default(0.3)),
    monitor=[tr.metrics.LogLoss("1d"), tr.drift.EDetector("accuracy")],
    retrain=tr.Retrain(on=["drift"], at_most_every="6h", at_least_every="4d", min_labels=2_000, window="4d"),
    gates=[tr.NotWorse("log_loss", margin=0.02)],
    rollout=tr.Shadow(hold="6h", max_disagreement=0.9),
)
"""


class Scene(NamedTuple):
    """What befalls the sources: labels that flip from hour `at` on, of one source or of all, and the model's slope."""

    at: int
    source: int | None = None
    flipped: float = 0.0
    slope_after: float = 3.0


class Hours:
    """Hours of labels of four sources, one after the other."""

    def __init__(self, seed: int, base: float = -2.0) -> None:
        self._rng = np.random.default_rng(seed)
        self._base = base
        self._hour = 0
        self.book = SourceBook({})
        self._codes = self.book.codes(NAMES)

    def next(self, scene: Scene, hours: int = 1) -> LabelBlock:
        """So many hours as one block."""
        rng, n = self._rng, int(self._rng.poisson(PER_HOUR * hours))
        changed = self._hour >= scene.at
        slope = scene.slope_after if changed else 3.0
        scores = 1.0 / (1.0 + np.exp(-(self._base + slope * rng.normal(size=n))))
        source = rng.choice(len(NAMES), n, p=SHARES)
        positive = (rng.random(n) < scores) ^ (rng.random(n) < np.array(ERRORS)[source])
        if changed:
            hit = np.ones(n, np.bool_) if scene.source is None else source == scene.source
            positive ^= hit & (rng.random(n) < scene.flipped)
        delay_ms = (rng.exponential(np.array(DELAYS_H)[source]) * HOUR_MS).astype(np.int64)
        start, end = self._hour * HOUR_MS, (self._hour + hours) * HOUR_MS
        times = np.linspace(start, end, n, endpoint=False).astype(np.int64)
        self._hour += hours
        return LabelBlock(start, end, times, scores, positive, self._codes[source], delay_ms, n)


def watch(seed: int, scene: Scene, *, hours: int, base: float = -2.0) -> list[SourceFinding]:
    """What the watch finds in a stream; times are hours from its begin."""
    stream, state = Hours(seed, base), LabelSources()
    found = [one for _ in range(hours) for one in state.judge(stream.next(scene), stream.book)]
    return [one for one in found if not one.resolved]


def accusations(seed: int, scene: Scene, *, trials: int, hours: int = 6) -> list[set[str]]:
    """Sources to which a rise of the loss is laid, each time that so many hours after the change are looked at."""
    stream, state = Hours(seed), LabelSources()
    for _ in range(scene.at):
        state.judge(stream.next(scene), stream.book)
    known = msgspec.json.encode(state.data)
    found = []
    for _ in range(trials):
        again = LabelSources(msgspec.json.decode(known, type=LabelSourcesData))
        accused = again.accuse(stream.next(scene, hours), stream.book, looks=3)
        found.append({one.source for one in accused})
    return found


def study(seeds: int) -> list[Figure]:
    return [*_false_alarms(seeds), *_power(seeds), *_accusations(seeds), *_loops(seeds)]


def _false_alarms(seeds: int) -> list[Figure]:
    hours = DAYS * 24
    never, middle = hours + 1, hours // 2
    scenes = {f"no change, base {base:+.0f}": (Scene(never), base) for base in (-4.0, -2.0, 0.0)}
    scenes |= {f"honest drift, {size:.0%} of all labels": (Scene(middle, None, size), -2.0) for size in (*SIZES, 0.3)}
    scenes["a much better model"] = (Scene(middle, slope_after=8.0), -2.0)
    figures = []
    for name, (scene, base) in scenes.items():
        alarms = [one for seed in range(seeds) for one in watch(seed, scene, hours=hours, base=base)]
        days = seeds * DAYS
        figures.append(Figure(f"false alarms in {days} days, four sources: {name}", float(len(alarms)), 0.0))
    return figures


def _power(seeds: int) -> list[Figure]:
    figures, at = [], 10 * 24
    for size in SIZES:
        scene = Scene(at, POISONED, size / SHARES[POISONED])
        found = [watch(100 + seed, scene, hours=at + 10 * 24) for seed in range(seeds)]
        named = [one[0].source == NAMES[POISONED] and one[0].found_ms > at * HOUR_MS for one in found if one]
        wrong = sum(len({finding.source for finding in one} - {NAMES[POISONED]}) for one in found)
        labels = [(one[0].found_ms / HOUR_MS - at) * PER_HOUR for one in found if one]
        text = f"flips {size:.0%} of all labels:"
        judged = size >= 0.05
        figures += [
            Figure(
                f"{text} found and named within ten days, of seeds", sum(named) / seeds, 1.0 if judged else None, ">="
            ),
            Figure(f"{text} median of all labels until found", float(np.median(labels)) if labels else np.inf),
            Figure(f"{text} others suspected", float(wrong), 0.0),
        ]
    return figures


def _accusations(seeds: int, trials: int = 100) -> list[Figure]:
    at, liar = 200, {NAMES[POISONED]}
    honest = [one for seed in range(seeds) for one in accusations(seed, Scene(at, None, 0.06), trials=trials)]
    figures = [Figure("an honest rise of the loss is laid to a source, share of looks", _share(honest), 0.05)]
    for size in (0.05, 0.1):
        scene = Scene(at, POISONED, size / SHARES[POISONED])
        found = [one == liar for seed in range(seeds) for one in accusations(seed, scene, trials=trials)]
        figures.append(
            Figure(f"flips {size:.0%} of all labels: named at a look at six hours, share", float(np.mean(found)))
        )
    return figures


def _share(found: list[set[str]]) -> float:
    return float(np.mean([bool(one) for one in found]))


def tables(seed: int, *, days: int = LOOP_DAYS, per_day: int = PER_DAY) -> tuple[pa.Table, pa.Table]:
    """Readings of pumps, and what became of each an hour or so later, told by one of four reporters."""
    rng = np.random.default_rng(seed)
    n = days * per_day
    at_ms = START_MS + np.sort(rng.integers(0, days * DAY_MS, n))
    heat, load = rng.normal(50.0, 10.0, n), rng.normal(0.0, 1.0, n)
    failed = rng.random(n) < 1.0 / (1.0 + np.exp(-(heat - 55.0) / 2.0))
    ids = np.array([f"r{at:06d}" for at in range(n)])
    pump = np.char.add("p", rng.integers(0, 20, n).astype(str))
    readings = pa.table({"reading_id": ids, "pump": pump, "heat": heat, "load": load, "at_ms": at_ms})
    reported_ms = at_ms + rng.integers(HOUR_MS // 2, 2 * HOUR_MS, n)
    order = np.argsort(reported_ms, kind="stable")
    reporter = np.array(NAMES)[rng.choice(len(NAMES), n, p=SHARES)]
    failures = {"reading_id": ids, "failed": failed, "truth": failed, "reporter": reporter, "at_ms": reported_ms}
    return readings, pa.table({name: column[order] for name, column in failures.items()})


def play(seed: int, faults: list[ConceptShift | Poison], *, names_source: bool = True, step: str = "1h") -> Simulation:
    """The whole loop on `tables`, with outcomes that name their source or do not."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pumps").mkdir()
        text = _MODULE.replace("SOURCE", 'source="reporter"' if names_source else "")
        (Path(folder) / "pumps" / "usecase.py").write_text(text)
        settings = Settings(use_cases=Path(folder), partitions=2, threads=1)
        use_case = load_use_case(Path(folder), "pumps")
        return simulate(use_case, *tables(seed), faults=faults, seed=seed, settings=settings, step=step)


def poison(size: float) -> Poison:
    """A source that flips so much of its labels that they are `size` of all."""
    return Poison(
        source=f"reporter={NAMES[POISONED]}", share=size / SHARES[POISONED], at=f"{CHANGE_DAY}d", name="poison"
    )


def shift() -> ConceptShift:
    """Honest drift that changes 5 % of all labels: half of them positives of 0.32."""
    return ConceptShift(share=0.05 / (2.0 * 0.32), column="load", at=f"{CHANGE_DAY}d", name="shift")


def accuracy(loop: Simulation) -> float:
    """Share of right decisions of what was served since the change, by the truth."""
    since_ms = START_MS + CHANGE_DAY * DAY_MS
    served = [
        (record.metrics["accuracy"] or 0.0, record.labelled)
        for (_, start_ms, variant, _), record in loop.auxiliary_records.items()
        if start_ms >= since_ms and variant != "shadow" and record.labelled
    ]
    return sum(value * labelled for value, labelled in served) / sum(labelled for _, labelled in served)


def asked(loop: Simulation) -> list[RetrainRequested]:
    """Requests by performance since the change."""
    since_ms = START_MS + CHANGE_DAY * DAY_MS
    requests = [record for record in loop.retraining if isinstance(record, RetrainRequested)]
    return [one for one in requests if one.requested_at_ms >= since_ms and one.trigger in PERFORMANCE]


def _loops(seeds: int) -> list[Figure]:
    rows: list[NDArray[np.float64]] = []
    for seed in range(seeds):
        twin, poisoned = play(seed, []), play(seed, [poison(0.05)])
        unnamed, drifted = play(seed, [poison(0.05)], names_source=False), play(seed, [shift()])
        alone = play(seed, [shift()], names_source=False)
        sources = {alarm.subject for alarm in poisoned.alarms if alarm.kind == "label_source"}
        falsely = [alarm for loop in (twin, drifted) for alarm in loop.alarms if alarm.kind == "label_source"]
        held = [record for record in drifted.retraining if isinstance(record, RetrainHeld)]
        rows.append(
            np.array(
                [
                    sources == {NAMES[POISONED]},
                    len(asked(poisoned)),
                    len(asked(unnamed)),
                    abs(accuracy(poisoned) - accuracy(twin)),
                    abs(accuracy(unnamed) - accuracy(twin)),
                    len(falsely) + len(held),
                    len(asked(drifted)) > 0,
                    drifted.log_hash() == alone.log_hash(),
                ],
                dtype=np.float64,
            )
        )
    named, on_poison, unguarded, moved, moved_unguarded, disturbed, cured, same = np.mean(rows, axis=0).tolist()
    return [
        Figure("loop, 5 % flipped: the source is named, and no other, of seeds", named, 1.0, ">="),
        Figure("loop, 5 % flipped: models asked for because of it", on_poison, 0.0),
        Figure("loop, 5 % flipped, sources not named: models asked for", unguarded),
        Figure("loop, 5 % flipped: accuracy of what is served, off its twin's", moved, 0.002),
        Figure("loop, 5 % flipped, sources not named: off its twin's", moved_unguarded),
        Figure("loop, no change and honest drift: alarms and holds", disturbed, 0.0),
        Figure("loop, honest drift: a model is asked for, of seeds", cured, 1.0, ">="),
        Figure("loop, honest drift: decisions as without names of sources", same, 1.0, ">="),
    ]


if __name__ == "__main__":
    report(study)
