"""What must hold of the labels of a use case before a service may start."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, get_args

from tailrace.core.reductions import Reduction, Touch
from tailrace.core.trust import TIERS
from tailrace.usecase.checks import check_topic
from tailrace.usecase.findings import IDENTITIES, NUMBERS, Findings
from tailrace.usecase.sharing import sharing_of
from tailrace.usecase.sources import Label

if TYPE_CHECKING:
    from tailrace.usecase.declaration import UseCase

_NAME = re.compile(r"[A-Za-z_][\w.-]{0,99}", re.ASCII)


def check_labels(use_case: UseCase, findings: Findings) -> None:
    """Checks every label and its topic, and that they can be told apart."""
    places = ["label", *(f"auxiliary_labels[{at}]" for at in range(len(use_case.auxiliary_labels)))]
    topics: dict[str, object] = {}
    names: set[str] = set()
    for place, label in zip(places, use_case.labels, strict=True):
        topic = label.topic
        if topics.setdefault(topic.name, topic) is not topic:
            findings.add(f"{place}.topic", f"{topic.name!r} is declared twice; let both labels name the same tr.Topic")
        check_topic(f"{place}.topic", topic, use_case.name, findings)
        if topic.name == use_case.requests.name:
            findings.add(f"{place}.topic", f"{topic.name!r} carries the requests; outcomes need a topic of their own")
        if label.name in names:
            findings.add(f"{place}.name", f"{label.name!r} is the name of another label; give each a name of its own")
        if not _NAME.fullmatch(label.name):
            findings.add(f"{place}.name", f"{label.name!r} must be letters, digits, '_', '.' and '-', at most 100")
        names.add(label.name)
        _check_label(place, label, findings)
        _check_reduction(place, label, use_case, findings)
        _check_source(place, label, findings)


def _check_label(place: str, label: Label, findings: Findings) -> None:
    schema = label.topic.schema
    findings.required(f"{place}.on", schema, label.on, IDENTITIES)
    findings.column(f"{place}.value", schema, label.value, NUMBERS)
    if label.revision is not None:
        findings.required(f"{place}.revision", schema, label.revision, ("int",))
    if label.retract is not None:
        findings.column(f"{place}.retract", schema, label.retract, ("bool",))
    findings.duration(f"{place}.matures_after", label.matures_after)
    findings.duration(f"{place}.corrected_within", label.corrected_within, zero=True)
    findings.known(f"{place}.closes", label.closes, ("window", "outcome"), what="way to close")
    if label.if_absent not in (False, None):
        findings.add(f"{place}.if_absent", f"{label.if_absent!r} must be False (negative) or None (censored)")


def _check_source(place: str, label: Label, findings: Findings) -> None:
    if label.source is not None:
        findings.required(f"{place}.source", label.topic.schema, label.source, IDENTITIES)
    elif label.trust is not None:
        findings.add(f"{place}.trust", "nothing is said of who reports; name the field of the outcome as source")
    for tier in (label.trust or {}).values():
        findings.known(f"{place}.trust", tier, TIERS, what="tier of trust")
    if label.entity is not None and len({*(label.trust or {}).values()}) > 1:
        findings.add(f"{place}.trust", "outcomes of an entity are of one tier: they are resolved by revision")


def _check_reduction(place: str, label: Label, use_case: UseCase, findings: Findings) -> None:
    """Checks what outcomes of one prediction come to together, and whose they are."""
    schema = label.topic.schema
    if label.outcome_id is not None:
        findings.required(f"{place}.outcome_id", schema, label.outcome_id, IDENTITIES)
    if label.left is not None:
        findings.column(f"{place}.left", schema, label.left, ("bool",))
    several = label.outcome_id is not None or label.entity is not None or label.left is not None
    if label.reduce is not None:
        findings.known(f"{place}.reduce", label.reduce, get_args(Reduction), what="rule of reduction")
        if not several:
            findings.add(
                f"{place}.reduce",
                "all outcomes of an event are revisions of one; name the field that tells them apart as outcome_id",
            )
    elif several:
        findings.add(f"{place}.reduce", f"say how outcomes become one label: one of {', '.join(get_args(Reduction))}")
    findings.known(f"{place}.attribution", label.attribution, get_args(Touch), what="rule of attribution")
    if label.entity is not None:
        findings.required(f"{place}.entity", use_case.requests.schema, label.entity, IDENTITIES)
    elif label.attribution != "every_touch":
        findings.add(
            f"{place}.attribution",
            f"{label.attribution!r} has no effect on outcomes of single events; name the entity they speak of",
        )


def check_parallel(use_case: UseCase, findings: Findings) -> None:
    """Checks that several feedback workers can share the joins, where they shall; sources and labels must be right."""
    if not use_case.parallel_feedback or findings.sentences:
        return
    sharing = sharing_of(use_case)
    for obstacle in sharing.obstacles:
        findings.add("parallel_feedback", obstacle)
    for name in sharing.elsewhere if not sharing.obstacles else ():
        field = sharing.fields[name]
        findings.add(
            "parallel_feedback", f"outcomes of {name!r} lie elsewhere than their requests; key them by {field!r}"
        )
