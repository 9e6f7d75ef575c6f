"""Events: card payments with eighteen numbers, about 300 bytes of JSON, the same for all candidates."""

from __future__ import annotations

import time

import msgspec
import numpy as np
from numpy.typing import NDArray

from load_tests import streams
from load_tests.bench import Bench
from load_tests.streams import PARTITIONS, Keyed

NUMBERS = 17
"""Numbers of an event beside its amount."""
CARDS = 10_000
TERMINALS = 2_000
SKEW = 0.8
"""Exponent of the Zipf law of the cards: the busiest of them sends 3.5 % of all payments."""
DAYS = 14
"""Stream time of a prefilled topic: two of the longest window."""
START_MS = 1_700_000_000_000


class Payment(msgspec.Struct, frozen=True):
    """What every event has beside its numbers, and what a candidate without them reads."""

    payment_id: str
    card: str
    terminal: str
    channel: str
    amount: float
    at_ms: int


def filled(bench: Bench) -> str:
    """Name of the topic that holds the payments of this seed; filled when first asked for."""
    return streams.filled(
        bench.settings,
        f"payments.{bench.seed}.{bench.events}",
        lambda: payments(bench.events, seed=bench.seed, at_ms=times_ms(bench.events, seed=bench.seed)),
    )


def payments(count: int, *, seed: int, at_ms: NDArray[np.int64], first: int = 0) -> list[Keyed]:
    """Events; `payment_id` is the place in the list, counted from `first`.

    Args:
        count: How many.
        seed: Same seed, same events.
        at_ms: int64 (count,), event times, epoch milliseconds.
        first: Identity of the first, where they continue others.
    """
    rng = np.random.default_rng(seed)
    cards = cards_of(rng, count)
    amounts = np.round(rng.lognormal(3.3, 0.8, count), 2).tolist()
    texts = _number_texts(rng)
    picks = rng.integers(0, len(texts), count).tolist()
    form = b'{"payment_id":"%d","card":"c%d","terminal":"t%d","channel":"web","amount":%.2f,"at_ms":%d,%b}'
    return [
        (b"c%d" % card, form % (place, card, terminal_of(place), amount, at, texts[pick]), card % PARTITIONS)
        for place, (card, amount, at, pick) in enumerate(
            zip(cards, amounts, at_ms.tolist(), picks, strict=True), start=first
        )
    ]


def probe(name: str, partition: int) -> tuple[bytes, bytes]:
    """Key and value of an event of this identity, of a card that nobody else has."""
    card, at_ms = b"probe%d" % partition, time.time_ns() // 1_000_000
    plain = Payment(payment_id=name, card=card.decode(), terminal="t0", channel="web", amount=1.0, at_ms=at_ms)
    numbers = {f"x{number:02d}": 0.0 for number in range(NUMBERS)}
    return card, msgspec.json.encode(msgspec.to_builtins(plain) | numbers)


def times_ms(count: int, *, seed: int) -> NDArray[np.int64]:
    """Event times over `DAYS`, epoch milliseconds, int64 (count,), rising but for two steps."""
    step_ms = max(DAYS * 86_400_000 // count, 1)
    disorder = np.random.default_rng(seed).integers(0, 2 * step_ms, count)
    return START_MS + np.arange(count, dtype=np.int64) * step_ms - disorder


def cards_of(rng: np.random.Generator, count: int) -> list[int]:
    """Numbers of cards, by Zipf's law."""
    weights = 1.0 / np.arange(1, CARDS + 1) ** SKEW
    drawn: list[int] = rng.choice(CARDS, count, p=weights / weights.sum()).tolist()
    return drawn


def terminal_of(place: int) -> int:
    """Number of the terminal of an event."""
    return place * 31 % TERMINALS


def _number_texts(rng: np.random.Generator) -> list[bytes]:
    """A thousand variants of the numbers of an event: formatting each anew would take longer than the test."""
    rows = np.round(rng.normal(0, 1, (1_000, NUMBERS)), 3).tolist()
    return [b",".join(b'"x%02d":%.3f' % (number, value) for number, value in enumerate(row)) for row in rows]
