"""What to predict, when to retrain, how to roll out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Default:
    """The score published when no model can score: before the first model, or when scoring fails."""

    score: float


@dataclass(frozen=True, kw_only=True)
class Binary:
    """A yes-or-no prediction.

    Args:
        train: "module:function" below `feature_repo/`, or the name of a trainer that comes with
            Tailrace: "torch" (tabular network) or "boosting" (gradient boosting).
        threshold: Scores at or above it decide yes.
        latency_budget: Time from reading an event to its prediction that a worker aims to keep.
        on_failure: Score published when there is no model or the model fails.
        seed: Seed of everything random in training.
    """

    train: str = "torch"
    threshold: float = 0.5
    latency_budget: str = "50ms"
    on_failure: Default = field(default_factory=lambda: Default(0.0))
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Regression:
    """A number.

    Published numbers lie between `low` and `high`, on a grid of 4,096 steps. Outcomes beyond an end are taken as that
    end wherever errors are counted, and models are fitted to them so.

    Args:
        low: Least number that is told from smaller ones.
        high: Greatest number that is told from greater ones.
        train: "module:function" below `feature_repo/`, or "boosting".
        quantile: What is predicted of the distribution of outcomes, in (0, 1); None for its mean.
        threshold: Numbers at or above it decide yes; None: at `high` alone.
        latency_budget: Time from reading an event to its prediction that a worker aims to keep.
        on_failure: Number published when there is no model or the model fails; None for `low`.
        seed: Seed of everything random in training.
    """

    low: float
    high: float
    train: str = "boosting"
    quantile: float | None = None
    threshold: float | None = None
    latency_budget: str = "50ms"
    on_failure: Default | None = None
    seed: int = 0


Model = Binary | Regression
Trigger = Literal["drift", "metric_drop"]


@dataclass(frozen=True)
class Budget:
    """At most so many trainings within any span of stream time, such as `Budget(10, per="30d")`."""

    trainings: int
    per: str


@dataclass(frozen=True, kw_only=True)
class Retrain:
    """When a new model is trained; all times are stream time.

    While a candidate is trained or in rollout, none is asked for. After drift, models are trained on what came
    since, and again each time its labels have doubled.

    Args:
        on: Triggers besides schedule and volume.
        at_most_every: Cool-down after a request, whatever its trigger.
        at_least_every: Schedule; None for no schedule.
        every_labels: New final labels of the champion's predictions that ask for a model; None for no such trigger.
        budget: Most trainings; None for no limit. Beyond it only a person may ask.
        min_labels: Fewest final labels in the training window; below it no request is made.
        window: Span of events, back from the newest mature label, a model is trained on.
        immature: Labels that may still change: "drop" them, or "weight" those that have come by how many of their
            age are still to come, so that the newest days are trained on too. A trainer of one's own then gets
            float64 targets of 0 or more in place of bool labels; the loss of a row is linear in them.
        negative_sampling_rate: Share of the negatives that models are fitted to, beside all positives, in (0, 1]; 30,000
            of them are kept where there are as many. The log-odds of what is served are corrected by its logarithm, so
            that scores are probabilities of all events. Everything else sees all rows: calibration, gates, metrics
            and the references of drift.
    """

    on: Sequence[Trigger] = ("drift", "metric_drop")
    at_most_every: str = "6h"
    at_least_every: str | None = None
    every_labels: int | None = None
    budget: Budget | None = None
    min_labels: int = 1_000
    window: str = "30d"
    immature: Literal["drop", "weight"] = "drop"
    negative_sampling_rate: float = 1.0


@dataclass(frozen=True)
class NotWorse:
    """Gate: the candidate's metric is no worse than the champion's by more than `margin`."""

    metric: str
    margin: float = 0.0


@dataclass(frozen=True)
class AtLeast:
    """Gate: the candidate's metric reaches `value` (or, for losses, stays at or below it)."""

    metric: str
    value: float


Gate = NotWorse | AtLeast


@dataclass(frozen=True, kw_only=True)
class Shadow:
    """Rollout by shadow: a candidate scores everything unseen for `hold`, then becomes champion.

    Args:
        hold: Stream time in shadow.
        min_predictions: Fewest shadow predictions before a promotion.
        max_disagreement: Largest share of decisions that may differ from the champion's.
    """

    hold: str = "1d"
    min_predictions: int = 100
    max_disagreement: float = 0.2


@dataclass(frozen=True, kw_only=True)
class Immediate:
    """Rollout without shadow: a candidate that passed its gates becomes champion at once."""


Rollout = Shadow | Immediate
