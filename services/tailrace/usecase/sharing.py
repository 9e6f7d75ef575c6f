"""Whether several workers can share the joins of a use case: which outcomes stand, or can be put, beside their predictions.

Predictions stand on the partition of their request, which its key decides. An outcome can be joined by whoever owns
that partition if it stands on the same one, and can be put there if it says which key its request had.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tailrace.usecase.sources import Label, Topic, fields_of

if TYPE_CHECKING:
    from tailrace.usecase.declaration import UseCase


class Sharing(NamedTuple):
    """How outcomes topics are keyed.

    Attributes:
        fields: By topic, the field of the outcome that holds the key of the request.
        elsewhere: Topics that are keyed by something else: their outcomes have to be repartitioned.
        obstacles: Why one worker has to join all, with what to do; empty where several can share.
    """

    fields: dict[str, str]
    elsewhere: tuple[str, ...]
    obstacles: tuple[str, ...]


def sharing_of(use_case: UseCase) -> Sharing:
    """How the joins of a use case can be shared."""
    fields: dict[str, str] = {}
    obstacles: list[str] = []
    for label in use_case.labels:
        field, obstacle = _field(use_case.requests, label)
        if fields.setdefault(label.topic.name, field) != field and not obstacle:
            obstacle = (
                f"labels of {label.topic.name!r} disagree about who is meant: by {fields[label.topic.name]!r} and by "
                f"{field!r}; publish their outcomes on topics of their own"
            )
        if obstacle and obstacle not in obstacles:
            obstacles.append(obstacle)
    elsewhere = tuple(topic.name for topic in use_case.outcome_topics if topic.key != fields[topic.name])
    return Sharing(fields, elsewhere, tuple(obstacles))


def workers_of(use_case: UseCase) -> str:
    """How many workers of feedback a use case has, or what keeps it from more, as a sentence."""
    sharing = sharing_of(use_case)
    if use_case.parallel_feedback:
        return "parallel: as many workers as the requests have partitions"
    if sharing.obstacles:
        return f"one worker: {'; '.join(sharing.obstacles)}"
    if sharing.elsewhere:
        keyed = ", ".join(f"{name!r} by {sharing.fields[name]!r}" for name in sharing.elsewhere)
        return f"one worker; for more, key {keyed} and declare parallel_feedback=True"
    return "one worker; for more, declare parallel_feedback=True"


def _field(requests: Topic, label: Label) -> tuple[str, str]:
    """The field of a label's outcomes that holds the key of the request, and what stands against it."""
    key, topic = requests.key, label.topic
    if label.entity is not None:
        if label.entity == key:
            return label.on, ""
        return label.on, (
            f"{label.name!r} is about {label.entity!r}, whose predictions lie on several partitions: {requests.name!r} is "
            f"keyed by {key!r}; key the requests by {label.entity!r}, or run one feedback worker"
        )
    known, asked = fields_of(topic.schema), fields_of(requests.schema)[key]
    if key not in known:
        return key, (
            f"outcomes of {topic.name!r} do not say which {key!r} their request was keyed by; publish the field "
            f"{key!r} with each of them, or run one feedback worker"
        )
    if known[key] != asked:
        return key, (
            f"{key!r} of {topic.name!r} is of another type than that of {requests.name!r}, so that its bytes as a key "
            "differ; declare and publish it alike, or run one feedback worker"
        )
    return key, ""
