"""Which topics the consumer groups of a use case commit offsets for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tailrace.contracts.topics import Topics

if TYPE_CHECKING:
    from tailrace.usecase.declaration import UseCase

MONITOR = "feedback-monitor"
"""Ending of the group of which one member merges what the tasks of feedback say of themselves."""


def subscriptions(use_case: UseCase) -> dict[str, tuple[str, ...]]:
    """Topics by what a group's name ends with: a service, or one of its loops as `<service>-<loop>`."""
    topics = Topics(use_case.name)
    outcomes = (topic.name for topic in use_case.outcome_topics)
    labels = (topics.labels,) if use_case.plan.online_views else ()
    joined = (topics.predictions, topics.shadow, *outcomes)
    feedback = {"feedback": (*joined, topics.retraining)}
    if use_case.parallel_feedback:
        feedback = {"feedback": joined, MONITOR: (topics.observations, topics.retraining)}
    return {
        "features": (use_case.requests.name, *labels),
        "inference": (topics.features,),
        **feedback,
        "trainer": (topics.retraining,),
        "rollout": (topics.retraining, topics.quality),
    }
