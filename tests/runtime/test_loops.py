"""Several loops of one service: they end together, and are ready together."""

from __future__ import annotations

import pytest

from tailrace.errors import ConfigError
from tailrace.runtime.loops import run_loops
from tailrace.runtime.service import Lifecycle


def test_a_service_is_ready_once_all_its_loops_are() -> None:
    lifecycle = Lifecycle("feedback", "shop")
    views = lifecycle.loops(["tasks", "monitor"])
    assert lifecycle.not_ready() == "starting"
    views["tasks"].ready(True)
    assert lifecycle.not_ready() == "starting"
    views["monitor"].ready(True)
    assert lifecycle.not_ready() == ""
    views["tasks"].ready(False, "the broker is away")
    assert lifecycle.not_ready() == "the broker is away"
    assert lifecycle.metrics.ready._value.get() == 0


def test_of_guarded_calls_in_several_loops_the_longest_is_exported() -> None:
    lifecycle = Lifecycle("feedback", "shop")
    for view, age_s in zip(lifecycle.loops(["tasks", "monitor"]).values(), (3.0, 1.0), strict=True):
        view.guarded(lambda age_s=age_s: age_s)  # type: ignore[misc]  # binds the age of this loop
    assert lifecycle.metrics.registry.get_sample_value("tailrace_guarded_call_seconds") == 3.0


def test_when_one_loop_fails_the_others_are_asked_to_end_and_its_error_is_raised() -> None:
    lifecycle = Lifecycle("feedback", "shop")
    ended = []

    def waits(view: Lifecycle) -> None:
        view.stopping.wait(30)
        ended.append("waits")

    def fails(view: Lifecycle) -> None:
        raise ConfigError("no topic")

    with pytest.raises(ConfigError, match="no topic"):
        run_loops(lifecycle, {"waits": waits, "fails": fails})
    assert ended == ["waits"]


def test_loops_that_end_as_asked_raise_nothing() -> None:
    lifecycle = Lifecycle("feedback", "shop")
    run_loops(lifecycle, {"one": lambda view: view.stopping.set(), "two": lambda view: None})
    assert lifecycle.stopping.is_set()
