"""Records of how good the models are: live metrics, alarms and distances from the training data."""

from __future__ import annotations

from typing import Literal

import msgspec


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a window's metrics before its labels are final.

    `intervals` holds [low, high] for some of `metrics`: with 95 % the final value will lie there. `effective`
    is the number of positive labels that would tell as much; `arrived` the share of the labels that matter
    (the positive ones, where a prediction without outcome becomes negative) that have come, in [0, 1], None
    where that cannot be told. `withheld` says why there are no metrics, "" where there are.
    """

    metrics: dict[str, float | None] = {}
    intervals: dict[str, list[float]] = {}
    effective: float = 0.0
    arrived: float | None = None
    withheld: str = ""


class TopPrediction(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A prediction among those with the highest scores of a window.

    `position` is that of its score on the grid of `core.scoring`, `key` the entity; `positive` its final label, None
    while there is none.
    """

    position: int
    prediction_id: str
    key: str
    positive: bool | None = None


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """How good one model was in one window (topic QUALITY, compacted, the newest holds).

    `bins`, `n` and `positives` are the sparse score histogram over labelled predictions: integers,
    so partial records add up exactly. `metrics` is derived from them; None means no data.
    `predictions` counts all predictions of the window; `maturity` = final labels / predictions.
    `slice` is "" for the whole, else "column=value". For a shadow, `paired` counts the events that
    the champion scored too, and `disagreements` those on which the two decisions differ. `auxiliary` says that
    `label_name` is not the label that judges models; such records are kept under keys of their own.

    There are three readings of a window. `metrics` speaks of final labels; its `intervals` of what as many others
    would show. `provisional`, None once every label is final, corrects for the labels that are still to come.
    `estimate` needs no labels of the window: it supposes that scores mean what they meant when older labels came.

    Where numbers are predicted, `bins` are errors, outcome less prediction in steps of `metrics["error_step"]`, and
    `positives` count outcomes above their prediction. Where the use case names an amount, `amounts` and
    `positive_amounts` are hundredths of it at each of `bins`, of all labels and of the positive ones. `top` holds the
    `top_size` predictions with the highest scores, the highest first, of each key at most one where `top_distinct`.
    `fading`, of the champion's newest window alone, speaks of the days before it as well, each counting less than the
    next, and compares the champion's decisions with the no-change classifier; see `core.fading`, `core.prequential`.
    """

    use_case: str
    label_name: str
    window_start_ms: int
    window_end_ms: int
    variant: str
    model_version: str
    slice: str
    predictions: int
    labelled: int
    final: int
    maturity: float
    bins: list[int]
    n: list[int]
    positives: list[int]
    metrics: dict[str, float | None]
    watermark_ms: int
    paired: int = 0
    disagreements: int = 0
    intervals: dict[str, list[float]] = {}
    provisional: Reading | None = None
    estimate: Reading | None = None
    auxiliary: bool = False
    amounts: list[int] = []
    positive_amounts: list[int] = []
    top: list[TopPrediction] = []
    top_size: int = 0
    fading: dict[str, float | None] = {}
    top_distinct: bool = False


AlarmKind = Literal[
    "drift", "metric_drop", "broken_join", "label_delay", "freshness", "no_data", "service", "label_source"
]


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """Something a person or the retraining policy should know (topic ALARMS).

    `subject` is a metric, a feature, the score or a rate, `slice` "" for all of the traffic, else
    "column=value". `since_ms` is when it began, as far as is known, in event time; `raised_at_ms` when it was
    found. `value` passed `threshold`; `size` is how far it is from what was usual: the rise of a mean loss or
    of a share, for a distribution the shift in ranges between the quartiles; 0 where the detector cannot tell.
    While a `broken_join` or a `label_delay` stands, no new model is asked for. While a `label_source` does, labels of
    the source that is its subject are not trusted.
    """

    use_case: str
    kind: AlarmKind
    subject: str
    detector: str
    value: float
    threshold: float
    since_ms: int
    raised_at_ms: int
    detail: str
    resolved: bool = False
    slice: str = ""
    size: float = 0.0


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """How far one feature, or the score, is from the champion's training data (topic DRIFT, compacted).

    `value` is the detector's statistic over the `rows` predictions between `since_ms` and `measured_at_ms`,
    epoch milliseconds of stream time; above `threshold` it speaks of drift by itself. `edges` cut the line
    into bins; `reference` and `current` count rows by bin, the last bin holding the missing values; where
    `seasonal`, the reference is that of the same hours of the week. `ks` is the Kolmogorov-Smirnov distance,
    `shift` the first Wasserstein distance in ranges between the quartiles, `p_value` how seldom chance alone
    moves this subject as far. `signs` names what alarms: "PSI", "missing", "out_of_range", "unknown_category".
    Of `design_effect` rows that go together, by what the training data show, one counts.
    """

    use_case: str
    subject: str
    detector: str
    value: float
    threshold: float
    rows: int
    since_ms: int
    measured_at_ms: int
    model_version: str
    edges: list[float]
    reference: list[int]
    current: list[int]
    ks: float = 0.0
    shift: float = 0.0
    p_value: float = 1.0
    seasonal: bool = False
    signs: list[str] = []
    design_effect: float = 1.0
