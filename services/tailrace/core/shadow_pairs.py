"""Pairs of a shadow and a model with traffic that scored the same event."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tailrace.core.join_table import DECIDED, JoinTable, Rows


def pairs(table: JoinTable, rows: Rows) -> tuple[Rows, NDArray[np.bool_]]:
    """The pairs of a shadow and a model with traffic in which at least one of some predictions takes part.

    Args:
        table: Where they stand.
        rows: int64 (n,), distinct.

    Returns:
        int64 (m,) rows of shadows, and bool (m,) whether the other of the pair decided alike.
    """
    heads = np.unique(table.head[rows])
    heads = heads[table.next[heads] >= 0].astype(np.int64)
    if not heads.size:
        return np.empty(0, np.int64), np.empty(0, np.bool_)
    new = set(rows.tolist())
    shadows, agrees = [], []
    for head in heads.tolist():
        chain = [(row, table.cohorts[table.cohort[row]].variant == "shadow") for row in table.chain(head)]
        for shadow in [row for row, is_shadow in chain if is_shadow]:
            for traffic in [row for row, is_shadow in chain if not is_shadow]:
                if shadow in new or traffic in new:
                    shadows.append(shadow)
                    agrees.append(bool((table.flags[shadow] ^ table.flags[traffic]) & DECIDED == 0))
    return np.array(shadows, dtype=np.int64), np.array(agrees, dtype=np.bool_)
