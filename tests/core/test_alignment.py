"""Streams in steps: what is taken before a barrier is the same however the streams interleave."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tailrace.core.alignment import Alignment, Said

STEP_MS = 10


def taken(streams: list[list[int]], order: list[int]) -> tuple[list[tuple[int, set[tuple[int, int]]]], int]:
    """Each stream time that is reached with the items known by then, and how many items are left waiting."""
    alignment: Alignment[tuple[int, int]] = Alignment(range(len(streams)), STEP_MS)
    known: set[tuple[int, int]] = set()
    steps = []
    threads = [iter(enumerate(stream)) for stream in streams]
    for stream in order:
        number, watermark_ms = next(threads[stream])
        for aligned in alignment.put(stream, (stream, number), Said(watermark_ms)):
            known |= set(aligned.items)
            steps.append((aligned.reached_ms, set(known)))
    return steps, alignment.waiting


def naive(streams: list[list[int]]) -> list[tuple[int, set[tuple[int, int]]]]:
    """From whole streams: each is read up to the first item at or past the barrier, again and again."""
    reached_ms, places, steps = -1, [0] * len(streams), []
    marks = [-1] * len(streams)
    while True:
        barrier_ms = (reached_ms // STEP_MS + 1) * STEP_MS
        for at, stream in enumerate(streams):
            while marks[at] < barrier_ms and places[at] < len(stream):
                marks[at] = max(marks[at], stream[places[at]])
                places[at] += 1
        if min(marks) < barrier_ms:
            return steps
        reached_ms = min(marks)
        steps.append((reached_ms, {(at, number) for at, end in enumerate(places) for number in range(end)}))


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
    assert steps == [(5, {(0, 0), (1, 0)})]
    assert waiting == 3
