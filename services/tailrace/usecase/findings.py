"""Collects everything that is wrong with a declaration, so that one run shows all of it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from tailrace.core.durations import milliseconds
from tailrace.usecase.sources import Event, fields_of

FieldKind = Literal["bool", "int", "float", "str", "other"]
NUMBERS: tuple[FieldKind, ...] = ("bool", "int", "float")
IDENTITIES: tuple[FieldKind, ...] = ("str", "int")


class FieldType(NamedTuple):
    """What an annotation of an event field means to features.

    `categories` holds the values of a `Literal` of strings; `optional` is True where None is allowed.
    """

    kind: FieldKind
    optional: bool = False
    categories: tuple[str, ...] = ()


def field_type(annotation: Any) -> FieldType:
    """Reads an annotation: plain types, `X | None`, `Annotated[X, ...]` and `Literal` of strings."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return field_type(get_args(annotation)[0])
    if origin in (Union, UnionType):
        members = [a for a in get_args(annotation) if a is not NoneType]
        inner = field_type(members[0]) if len(members) == 1 else FieldType("other")
        return inner._replace(optional=len(members) < len(get_args(annotation)))
    if origin is Literal:
        values = get_args(annotation)
        return FieldType("str", categories=values) if all(isinstance(v, str) for v in values) else FieldType("other")
    kinds: dict[Any, FieldKind] = {bool: "bool", int: "int", float: "float", str: "str"}
    return FieldType(kinds.get(annotation, "other"))


class Findings:
    """The problems found so far, one sentence each, in the order of the declaration."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def add(self, place: str, problem: str) -> None:
        """Notes a problem. `place` is the argument as the user wrote it."""
        self.sentences.append(f"{place}: {problem}")

    def known(self, place: str, name: str, valid: Iterable[str], *, what: str) -> bool:
        """Notes a name that is none of `valid`, with the nearest one; True when the name is valid."""
        names = list(valid)
        if name in names:
            return True
        self.add(place, f"{name!r} is no {what}{nearest(name, names)}")
        return False

    def duration(self, place: str, text: str, *, whole: str = "", zero: bool = False) -> int:
        """Reads a duration in milliseconds; 0 where it is noted as a problem.

        Args:
            place: Argument as the user wrote it.
            text: The duration.
            whole: Unit the duration must be a whole multiple of, such as "1d".
            zero: Whether no time at all is allowed.
        """
        try:
            value = milliseconds(text)
        except (ValueError, AttributeError, TypeError):
            self.add(
                place, f"{text!r} is not a duration; write a whole number and a unit, such as '250ms', '10m', '7d'"
            )
            return 0
        if value == 0 and not zero:
            self.add(place, f"{text!r} must be longer than nothing")
        if whole and value % milliseconds(whole):
            self.add(place, f"{text!r} must be a whole multiple of {whole!r}")
        return value

    def share(self, place: str, value: float) -> None:
        """Notes a number outside [0, 1], NaN included."""
        if not 0.0 <= value <= 1.0:
            self.add(place, f"{value!r} must lie in [0, 1]")

    def column(self, place: str, schema: type[Event], name: str, kinds: tuple[FieldKind, ...]) -> FieldType | None:
        """Looks up a field of an event type and notes it where it is absent or of no usable type."""
        fields = fields_of(schema)
        if name not in fields:
            self.add(place, f"{schema.__name__} has no field {name!r}{nearest(name, list(fields))}")
            return None
        found = field_type(fields[name])
        if found.kind not in kinds:
            self.add(place, f"{schema.__name__}.{name} must be {_spoken(kinds)}, it is {_shown(fields[name])}")
            return None
        return found

    def required(self, place: str, schema: type[Event], name: str, kinds: tuple[FieldKind, ...]) -> FieldType | None:
        """Like `column`, for fields without which a record means nothing: None is not allowed."""
        found = self.column(place, schema, name, kinds)
        if found is not None and found.optional:
            self.add(place, f"{schema.__name__}.{name} must always be there; take '| None' off its type")
        return found


def nearest(name: str, valid: list[str]) -> str:
    """The end of a sentence that leads from a wrong name to the right one."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(sorted(valid))}" if valid else "; there are none"


def _spoken(kinds: tuple[FieldKind, ...]) -> str:
    return " or ".join(kinds)


def _shown(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
