"""The declaration of a use case: one object per module `feature_repo/<name>/usecase.py`."""

from __future__ import annotations

from collections.abc import Sequence

from tailrace.core.monitors import Detector, Metric
from tailrace.core.plan import Plan
from tailrace.usecase.features import Feature
from tailrace.usecase.policies import Gate, Immediate, Model, NotWorse, Regression, Retrain, Rollout, Shadow
from tailrace.usecase.sources import Label, Topic


class UseCase:
    """All that is particular to one use case.

    Args:
        name: Letters, digits and underscores; prefix of the topics Tailrace owns.
        version: Raised by hand when the meaning of the declaration changes.
        owner: Team to call.
        requests: Topic whose events are scored.
        prediction_id: Field of the requests that identifies an event; outcomes refer to it.
        features: Model inputs, in order.
        label: What outcomes say: the label that models are trained on and judged by.
        auxiliary_labels: What else becomes of a prediction; joined and published under their own names, and no more.
        model: What is predicted and how it is trained.
        slices: Fields of the requests by which metrics are also reported.
        amount: Feature that is the money at stake, a `Field` of the requests: metrics are then reported in money as well.
        monitor: Live metrics and drift detectors.
        retrain: When a new model is trained.
        gates: What a candidate must meet on recent data, besides being sane; None: no worse than the champion, by log
            loss, or by the mean absolute error of numbers.
        rollout: How a candidate becomes champion.
        parallel_feedback: Whether several workers of `feedback` share the joins, each the partitions of some numbers, as
            the tasks of Kafka Streams are shared; outcomes then have to be co-partitioned with the requests.

    Raises:
        UseCaseError: the declaration is wrong; every finding is listed.
    """

    def __init__(
        self,
        *,
        name: str,
        requests: Topic,
        prediction_id: str,
        features: Sequence[Feature],
        label: Label,
        model: Model,
        auxiliary_labels: Sequence[Label] = (),
        version: int = 1,
        owner: str = "",
        slices: Sequence[str] = (),
        amount: str = "",
        monitor: Sequence[Metric | Detector] = (),
        retrain: Retrain | None = None,
        gates: Sequence[Gate] | None = None,
        rollout: Rollout | None = None,
        parallel_feedback: bool = False,
    ) -> None:
        self.name = name
        self.version = version
        self.owner = owner
        self.requests = requests
        self.prediction_id = prediction_id
        self.features = tuple(features)
        self.label = label
        self.auxiliary_labels = tuple(auxiliary_labels)
        self.model = model
        self.slices = tuple(slices)
        self.amount = amount
        self.monitor = tuple(monitor)
        self.retrain = retrain or Retrain()
        usual = NotWorse("mae" if isinstance(model, Regression) else "log_loss")
        self.gates: tuple[Gate, ...] = (usual,) if gates is None else tuple(gates)
        self.rollout: Shadow | Immediate = rollout or Shadow()
        self.parallel_feedback = parallel_feedback
        # The compiler needs the finished declaration; importing it above would be circular.
        from tailrace.usecase.compiler import compile_plan

        self.plan: Plan = compile_plan(self)

    @property
    def labels(self) -> tuple[Label, ...]:
        """All labels, the one that judges models first."""
        return (self.label, *self.auxiliary_labels)

    @property
    def outcome_topics(self) -> tuple[Topic, ...]:
        """Topics of all labels, each once, that of the first label first."""
        return tuple({label.topic.name: label.topic for label in self.labels}.values())

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The live metrics among `monitor`."""
        return tuple(m for m in self.monitor if isinstance(m, Metric))

    @property
    def detectors(self) -> tuple[Detector, ...]:
        """The drift detectors among `monitor`."""
        return tuple(m for m in self.monitor if not isinstance(m, Metric))
