"""The error tree. The class tells the loop what to do, the message tells a person what to do next.

TailraceError
├── UseCaseError        a declaration is wrong: refuse to start, list every finding
├── ConfigError         a setting is wrong or has no effect: refuse to start (exit code 78)
├── BadRecord           one record is bad: dead-letter it, go on
├── ImmatureLabels      labels are no sample of what they will be: train nothing on them, wait
├── Retryable           an outside system is away: back off, try again
│   ├── BrokerUnavailable
│   ├── StoreUnavailable
│   └── RegistryUnavailable
└── Fatal               going on would lose or double something: stop the service
    ├── StateCorrupt
    ├── ArtifactInvalid
    ├── PlanMismatch
    ├── DeviceLost
    └── QuarantineExceeded
"""

from __future__ import annotations

from collections.abc import Sequence


class TailraceError(Exception):
    """Root of everything this package raises on purpose."""


class UseCaseError(TailraceError):
    """A use case declaration is wrong; `findings` holds every problem, not only the first.

    Args:
        name: Use case name, or the path of its module where it has none yet.
        findings: One sentence per problem, each naming the place and the nearest valid name.
    """

    def __init__(self, name: str, findings: Sequence[str]) -> None:
        self.name = name
        self.findings = tuple(findings)
        lines = "\n".join(f"  {i}. {finding}" for i, finding in enumerate(self.findings, 1))
        super().__init__(f"use case {name!r} has {len(self.findings)} problem(s):\n{lines}")


class ConfigError(TailraceError):
    """A setting is unknown, malformed or without effect."""


class BadRecord(TailraceError):
    """One record cannot be used.

    Args:
        reason: Stable snake_case code, used as a metric label and to group dead letters.
        detail: What is wrong, in words, for the person who reads the dead letter.
    """

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


class ImmatureLabels(TailraceError):
    """The labels that have come are no sample of those still to come; a model would learn who is reported first."""


class Retryable(TailraceError):
    """An outside system did not answer; the same call may succeed later."""


class BrokerUnavailable(Retryable):
    """Kafka cannot be reached, or refuses this client."""


class StoreUnavailable(Retryable):
    """The online store cannot be reached or is too slow."""


class RegistryUnavailable(Retryable):
    """The model registry cannot be reached."""


class Fatal(TailraceError):
    """Going on would break a guarantee; the service stops and says why."""


class StateCorrupt(Fatal):
    """Restored state contradicts itself or its source topics."""


class ArtifactInvalid(Fatal):
    """A model bundle is damaged, unreadable or not what its manifest says."""


class PlanMismatch(Fatal):
    """A model was trained for another feature plan than the one being served."""


class DeviceLost(Fatal):
    """A GPU does not answer any more; whatever it is asked next would fail alike, so only a new process can go on."""


class QuarantineExceeded(Fatal):
    """Too many bad records in a row or by share: the deploy is what is bad, not the data."""
