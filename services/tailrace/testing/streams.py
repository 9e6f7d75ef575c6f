"""Seeded streams with known faults planted in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
START_MS = 1_736_121_600_000
"""2025-01-06 00:00 UTC, a Monday: far enough back that no event lies ahead of the wall clock."""
CHANNELS = ("web", "pos", "atm")

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class CardFraudStream:
    """Card payments with fraud that can be learned, and a day on which the fraudsters change their ways.

    Until `drift_day` stolen cards are emptied fast (bursts of large payments on the web) and skimming
    merchants leak cards (a third of their payments are fraud while it lasts). From `drift_day` on
    stolen cards are drained by small cash withdrawals at night, and honest customers begin to pay
    large amounts on the web, which is what fraud used to look like. Skimming goes on as before.

    Args:
        seed: Same seed, same stream.
        days: Length of the stream.
        per_day: Honest payments per day, about.
        drift_day: First day of the new pattern; `days` or more for a stream without drift.
        cards: Number of cards.
        merchants: Number of merchants.
    """

    seed: int = 7
    days: int = 42
    per_day: int = 2_400
    drift_day: int = 24
    cards: int = 800
    merchants: int = 120

    @property
    def drift_ms(self) -> int:
        """Event time at which the pattern changes, epoch milliseconds."""
        return START_MS + self.drift_day * DAY_MS

    def tables(self) -> tuple[pa.Table, pa.Table]:
        """Transactions and chargebacks, each sorted in time.

        Returns:
            Transactions (transaction_id, card_id, merchant_id, amount_eur, channel, occurred_at_ms)
            and chargebacks (transaction_id, fraud, reported_at_ms): frauds only, two hours to two
            days after the payment.
        """
        rng = np.random.default_rng(self.seed)
        usual_eur = rng.lognormal(3.3, 0.4, self.cards)
        parts = []
        for day in range(self.days):
            honest = self._honest(rng, day, usual_eur)
            stolen = self._drained(rng, day) if day >= self.drift_day else self._emptied(rng, day)
            parts += [honest, stolen]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        self._skim(rng, columns)
        order = np.argsort(columns["at_ms"], kind="stable")
        return _tables(rng, {name: column[order] for name, column in columns.items()})

    def _honest(self, rng: np.random.Generator, day: int, usual_eur: NDArray[np.float64]) -> Columns:
        n = int(rng.poisson(self.per_day))
        hours = np.clip(rng.normal(14.5, 4.5, n), 0, 23.999)
        cards = (self.cards * rng.random(n) ** 1.5).astype(np.int64)
        channel = rng.choice(3, n, p=[0.35, 0.55, 0.10])
        amount = usual_eur[cards] * rng.lognormal(0.0, 0.5, n)
        if day >= self.drift_day:
            large = (channel == 0) & (rng.random(n) < 0.25)
            amount[large] = rng.lognormal(5.6, 0.35, int(large.sum()))
        return {
            "at_ms": START_MS + day * DAY_MS + (hours * HOUR_MS).astype(np.int64),
            "card": cards,
            "merchant": (self.merchants * rng.random(n) ** 1.3).astype(np.int64),
            "amount": amount,
            "channel": channel,
            "fraud": np.zeros(n, np.bool_),
        }

    def _emptied(self, rng: np.random.Generator, day: int) -> Columns:
        bursts = int(rng.poisson(self.per_day * 0.006))
        sizes = rng.integers(3, 8, bursts)
        n = int(sizes.sum())
        began_ms = START_MS + day * DAY_MS + rng.integers(8 * HOUR_MS, 22 * HOUR_MS, bursts)
        return {
            "at_ms": np.repeat(began_ms, sizes) + rng.integers(0, HOUR_MS, n),
            "card": np.repeat(rng.integers(0, self.cards, bursts), sizes),
            "merchant": rng.integers(0, self.merchants, n),
            "amount": rng.lognormal(5.6, 0.35, n),
            "channel": np.where(rng.random(n) < 0.9, 0, 1),
            "fraud": np.ones(n, np.bool_),
        }

    def _drained(self, rng: np.random.Generator, day: int) -> Columns:
        bursts = int(rng.poisson(self.per_day * 0.006))
        sizes = rng.integers(3, 8, bursts)
        n = int(sizes.sum())
        began_ms = START_MS + day * DAY_MS + rng.integers(0, 5 * HOUR_MS, bursts)
        return {
            "at_ms": np.repeat(began_ms, sizes) + rng.integers(0, HOUR_MS, n),
            "card": np.repeat(rng.integers(0, self.cards, bursts), sizes),
            "merchant": rng.integers(0, self.merchants, n),
            "amount": rng.lognormal(2.6, 0.3, n),
            "channel": np.where(rng.random(n) < 0.9, 2, 1),
            "fraud": np.ones(n, np.bool_),
        }

    def _skim(self, rng: np.random.Generator, columns: Columns) -> None:
        merchant, at_ms = columns["merchant"], columns["at_ms"]
        for week in range(-(-self.days // 7)):
            begin_ms = START_MS + week * 7 * DAY_MS
            for leaking in rng.choice(self.merchants, 2, replace=False):
                hit = (merchant == leaking) & (at_ms >= begin_ms) & (at_ms < begin_ms + 7 * DAY_MS)
                columns["fraud"] = columns["fraud"] | (hit & (rng.random(len(hit)) < 0.33))


def _tables(rng: np.random.Generator, columns: Columns) -> tuple[pa.Table, pa.Table]:
    n = len(columns["at_ms"])
    ids = np.array([f"t{number:07d}" for number in range(n)])
    transactions = pa.table(
        {
            "transaction_id": ids,
            "card_id": np.char.add("c", columns["card"].astype(str)),
            "merchant_id": np.char.add("m", columns["merchant"].astype(str)),
            "amount_eur": np.round(columns["amount"].astype(np.float64), 2),
            "channel": np.array(CHANNELS)[columns["channel"].astype(np.int64)],
            "occurred_at_ms": columns["at_ms"],
        }
    )
    frauds = np.flatnonzero(columns["fraud"])
    reported_ms = columns["at_ms"][frauds].astype(np.int64) + rng.integers(2 * HOUR_MS, 2 * DAY_MS, len(frauds))
    order = np.argsort(reported_ms, kind="stable")
    chargebacks = pa.table(
        {
            "transaction_id": ids[frauds][order],
            "fraud": np.ones(len(frauds), np.bool_),
            "reported_at_ms": reported_ms[order],
        }
    )
    return transactions, chargebacks
