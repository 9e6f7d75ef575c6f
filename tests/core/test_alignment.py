"""Streams in steps: what is taken before a barrier, and in which order, is the same however the streams interleave."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.core import alignment as module
from tailrace.core.alignment import PAUSE_MS, SILENT_AFTER_MS, Alignment, AlignmentState, Said

STEP_MS = 10


def taken(streams: list[list[int]], order: list[int]) -> tuple[list[tuple[int, list[tuple[int, int]]]], int]:
    """Each stream time that is reached with the items taken with it, and how many items are left waiting."""
    alignment: Alignment[tuple[int, int]] = Alignment(range(len(streams)), STEP_MS)
    steps = []
    threads = [iter(enumerate(stream)) for stream in streams]
    for stream in order:
        number, watermark_ms = next(threads[stream])
        for aligned in alignment.put(stream, (stream, number), Said(watermark_ms)):
            steps.append((aligned.reached_ms, aligned.items))
    return steps, alignment.waiting


def naive(streams: list[list[int]]) -> list[tuple[int, list[tuple[int, int]]]]:
    """From whole streams: each is read up to the first item at or past the barrier, again and again."""
    reached_ms, places, steps = -1, [0] * len(streams), []
    marks = [-1] * len(streams)
    while True:
        barrier_ms = (reached_ms // STEP_MS + 1) * STEP_MS
        items = []
        for at, stream in enumerate(streams):
            while marks[at] < barrier_ms and places[at] < len(stream):
                marks[at] = max(marks[at], stream[places[at]])
                items.append((at, places[at]))
                places[at] += 1
        if min(marks) < barrier_ms:
            return steps
        reached_ms = min(marks)
        steps.append((reached_ms, items))


@given(st.data())
def test_what_is_known_at_each_step_follows_from_the_streams_and_not_from_who_is_faster(data: st.DataObject) -> None:
    rising = st.lists(st.integers(-1, 80), max_size=12).map(sorted)
    streams = data.draw(st.lists(rising, min_size=1, max_size=4))
    one_by_one = [at for at, stream in enumerate(streams) for _ in stream]
    order = data.draw(st.permutations(one_by_one))
    expected = naive(streams)
    assert expected == taken(streams, order)[0]
    assert expected == taken(streams, one_by_one)[0]


def test_what_is_ahead_of_the_slowest_stream_waits() -> None:
    steps, waiting = taken([[5, 15, 25, 35], [5]], [0, 0, 0, 0, 1])
    assert steps == [(5, [(0, 0), (1, 0)])]
    assert waiting == 3


def reached(alignment: Alignment[int], stream: int, said: Said) -> list[int]:
    """Stream times that an item brings."""
    return [aligned.reached_ms for aligned in alignment.put(stream, 0, said)]


def test_stream_that_says_it_is_idle_is_left_out_until_it_has_come_to_the_others() -> None:
    # 0:  5        5 idle      18 (behind)   31
    # 1:     25 35                       45      55
    alignment: Alignment[int] = Alignment(range(2), STEP_MS)
    assert reached(alignment, 0, Said(5)) == []
    assert reached(alignment, 1, Said(25)) == [5]
    assert reached(alignment, 1, Said(35)) == []
    assert reached(alignment, 0, Said(5, idle=True)) == [25, 35]
    assert reached(alignment, 0, Said(18)) == []
    assert reached(alignment, 1, Said(45)) == [45]
    assert reached(alignment, 0, Said(51)) == []
    assert reached(alignment, 1, Said(65)) == [51]


def test_streams_that_are_all_idle_come_to_the_time_of_the_one_that_is_furthest() -> None:
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        alignment: Alignment[int] = Alignment(range(3), STEP_MS)
        found = [time for at in order for time in reached(alignment, at, Said((12, 25, 38)[at]))]
        found += [time for at in order for time in reached(alignment, at, Said((12, 25, 38)[at], idle=True))]
        assert found[-1] == 38


def test_stream_that_is_silent_for_long_while_others_speak_is_left_out() -> None:
    alignment: Alignment[int] = Alignment(range(2), STEP_MS)
    times = range(0, SILENT_AFTER_MS + 2 * PAUSE_MS, PAUSE_MS)
    found = [reached(alignment, 0, Said(number * STEP_MS, time)) for number, time in enumerate(times)]
    assert [] == [one for one in found[:-1] if one]
    assert found[-1] == [number * STEP_MS for number in range(len(times))]


def test_pause_in_which_nobody_speaks_counts_as_a_minute() -> None:
    alignment: Alignment[int] = Alignment(range(2), STEP_MS)
    for number in range(5):
        assert reached(alignment, 0, Said(number * STEP_MS, number * 100 * SILENT_AFTER_MS)) == []


def test_streams_are_waited_for_no_longer_once_too_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 1_000)
    alignment: Alignment[int] = Alignment(range(2), STEP_MS)
    found = [reached(alignment, 0, Said(number * STEP_MS, 0, 300)) for number in range(6)]
    assert found == [[], [], [], [0, 10, 20, 30], [40], [50]]


@given(st.data())
def test_alignment_that_is_restored_anywhere_goes_on_as_if_nothing_had_been(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 4))
    puts = data.draw(
        st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, 25), st.integers(0, 90_000), st.booleans()))
    )
    calm: Alignment[int] = Alignment(range(count), STEP_MS)
    killed: Alignment[int] = Alignment(range(count), STEP_MS)
    marks, told, log, taken_by = [-1] * count, 0, [], set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST_BYTES", 400)
        for number, (stream, step, pause, idle) in enumerate(puts):
            marks[stream], told = marks[stream] + step, told + pause
            said = Said(marks[stream], told, 50, idle)
            log.append((stream, number, said))
            found = list(killed.put(stream, number, said))
            assert found == list(calm.put(stream, number, said))
            taken_by.update(item for aligned in found for item in aligned.items)
            if data.draw(st.booleans()):
                kept = msgspec.json.decode(msgspec.json.encode(killed.state), type=AlignmentState)
                killed = Alignment(range(count), STEP_MS, kept)
                for item in log:
                    if item[1] not in taken_by:
                        killed.wait(*item)
        assert killed.waiting == calm.waiting
