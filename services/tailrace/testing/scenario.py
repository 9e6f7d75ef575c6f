"""What befalls a loop and what is expected of it, as a file: the assertions of `simulation`, for the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from tailrace.errors import ConfigError
from tailrace.testing.faults import AnyFault, Candidate, moment_ms, read_words
from tailrace.testing.simulation import Simulation, Verdict


class Expectation(msgspec.Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    """Something that a simulation is held to; fields are those of the method of `Simulation` of the same name.

    Where a method takes a fault, its name stands here, or its type where it has none; or a moment.
    """

    def judge(self, loop: Simulation) -> Verdict:
        """Whether it holds."""
        raise NotImplementedError


class Detects(Expectation, frozen=True):
    """See `Simulation.detects`."""

    drift: str
    within: str

    def judge(self, loop: Simulation) -> Verdict:
        """Whether it holds."""
        return loop.detects(self.drift, self.within)


class StaysQuiet(Expectation, frozen=True):
    """See `Simulation.stays_quiet`."""

    until: str = ""

    def judge(self, loop: Simulation) -> Verdict:
        """Whether it holds."""
        return loop.stays_quiet(self.until)


class Retrains(Expectation, frozen=True):
    """See `Simulation.retrains`."""

    at_least: int = 0
    at_most: int | None = None
    after: str = ""
    within: str = ""
    trigger: str = ""

    def judge(self, loop: Simulation) -> Verdict:
        """Whether it holds."""
        return loop.retrains(
            at_least=self.at_least, at_most=self.at_most, after=self.after, within=self.within, trigger=self.trigger
        )


class Promotes(Expectation, frozen=True):
    """See `Simulation.promotes`."""

    model: str = ""
    after: str = ""
    within: str = ""

    def judge(self, loop: Simulation) -> Verdict:
        """Whether it holds."""
        model = _candidate(loop, self.model) if self.model else None
        return loop.promotes(model, after=self.after, within=self.within)


class NeverPromotes(Expectation, frozen=True):
    """See `Simulation.never_promotes`."""

    model: str = "Candidate"

    def judge(self, loop: Simulation) -> Verdict:
        """Whether it holds."""
        return loop.never_promotes(_candidate(loop, self.model))


class RollsBack(Expectation, frozen=True):
    """See `Simulation.rolls_back`."""

    after: str = ""
    within: str = ""

    def judge(self, loop: Simulation) -> Verdict:
        """Whether it holds."""
        return loop.rolls_back(after=self.after, within=self.within)


class Recovers(Expectation, frozen=True):
    """See `Simulation.recovers`."""

    drift: str
    within: str
    share: float = 0.5

    def judge(self, loop: Simulation) -> Verdict:
        """Whether it holds."""
        return loop.recovers(self.drift, within=self.within, share=self.share)


class LabelsInTime(Expectation, frozen=True):
    """See `Simulation.labels_in_time`."""

    within: str

    def judge(self, loop: Simulation) -> Verdict:
        """Whether it holds."""
        return loop.labels_in_time(self.within)


AnyExpectation = Detects | StaysQuiet | Retrains | Promotes | NeverPromotes | RollsBack | Recovers | LabelsInTime


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Faults and expectations."""

    faults: list[AnyFault] = []
    expect: list[AnyExpectation] = []

    def check(self) -> None:
        """Checks what expectations refer to, before hours are simulated.

        Raises:
            ConfigError: lists every reference that is neither a fault's name nor a moment.
        """
        labels = {fault.label for fault in self.faults}
        models = {fault.label for fault in self.faults if isinstance(fault, Candidate)}
        findings = []
        for expectation in self.expect:
            named = {field: getattr(expectation, field, "") for field in ("drift", "after", "until")}
            for field, text in named.items():
                if text and text not in labels and not _is_moment(text):
                    findings.append(f"{type(expectation).__name__}: {field}={text!r} is neither a fault nor a moment")
            model = getattr(expectation, "model", "")
            if model and model not in models:
                findings.append(f"{type(expectation).__name__}: there is no candidate {model!r}")
        if findings:
            raise ConfigError("expectations are wrong:\n  " + "\n  ".join(findings))


def read_scenario(path: Path) -> Scenario:
    """Reads a YAML file with the lists `faults` and `expect`, each entry with its `type`.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    try:
        return msgspec.yaml.decode(path.read_bytes(), type=Scenario)
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"scenario {path}: {error}") from error


def read_expectation(text: str) -> AnyExpectation:
    """Reads an expectation as people type it: its type, then its fields.

    Raises:
        ConfigError: there is no such type, or a field is wrong; says which there are.

    Example:
        >>> read_expectation("Detects drift=ConceptShift within=3d")
        Detects(drift='ConceptShift', within='3d')
    """
    found: Any = read_words(text, AnyExpectation)
    return found  # type: ignore[no-any-return]  # converted to the union


def _candidate(loop: Simulation, name: str) -> Candidate:
    fault = loop.fault(name)
    if not isinstance(fault, Candidate):
        raise ConfigError(f"there is no candidate {name!r}")
    return fault


def _is_moment(text: str) -> bool:
    try:
        moment_ms(text, 0)
    except ConfigError:
        return False
    return True
