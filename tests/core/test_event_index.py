"""The index of events against a dict, with hashes that seldom and that often collide."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.core.event_index import EventIndex

IDS = st.lists(st.text("abc", max_size=3), max_size=12)
STEPS = st.lists(st.tuples(st.sampled_from(["enter", "remove", "find"]), IDS), max_size=12)


class Naive:
    """Rows by id in a dict."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}

    def enter(self, ids: list[str], rows: list[int]) -> list[int]:
        return [self.rows.setdefault(name, row) for name, row in zip(ids, rows, strict=True)]

    def find(self, ids: list[str]) -> list[int]:
        return [self.rows.get(name, -1) for name in ids]


def check(steps: list[tuple[str, list[str]]], hashed: Callable[[str], int]) -> None:
    texts: list[str] = []
    index, naive = EventIndex(lambda rows: [texts[row] for row in rows.tolist()], hashed), Naive()
    for step, ids in steps:
        if step == "enter":
            rows = list(range(len(texts), len(texts) + len(ids)))
            texts += ids
            assert naive.enter(ids, rows) == index.enter(ids, np.array(rows, dtype=np.int64)).tolist()
        elif step == "remove":
            there = sorted({name for name in ids if name in naive.rows})
            index.remove(there)
            for name in there:
                del naive.rows[name]
        assert naive.find(ids) == index.find(ids).tolist()
        assert len(naive.rows) == len(index)


@given(STEPS)
def test_index_finds_what_a_dict_finds(steps: list[tuple[str, list[str]]]) -> None:
    check(steps, hash)


@given(STEPS)
def test_ids_with_the_same_hash_are_told_apart(steps: list[tuple[str, list[str]]]) -> None:
    check(steps, lambda name: len(name) - 2)


@pytest.mark.parametrize("modulus", [2**61, 7_000])
def test_index_grows_with_what_is_there_and_not_with_what_was(modulus: int) -> None:
    names = [f"e{at}" for at in range(40_000)]
    index = EventIndex(lambda rows: [names[row] for row in rows.tolist()], lambda name: int(name[1:]) % modulus)
    for start in range(0, len(names), 1_000):
        index.enter(names[start : start + 1_000], np.arange(start, start + 1_000))
        if start >= 2_000:
            index.remove(names[start - 2_000 : start - 1_000])
    assert len(index) == 2_000
    assert index.find(names[-2_000:]).tolist() == list(range(38_000, 40_000))
    assert (index.find(names[:38_000]) == -1).all()
    assert index._rows.size <= 2**14
