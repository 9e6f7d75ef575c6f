"""Card payments and chargebacks for `tailrace simulate`: what fraud looks like stays as it is, faults change it."""

import pyarrow as pa

from tailrace.testing.streams import CardFraudStream


def tables(seed: int, days: int) -> tuple[pa.Table, pa.Table]:
    """Transactions and chargebacks, each sorted in time."""
    return CardFraudStream(seed=seed, days=days, drift_day=days).tables()
