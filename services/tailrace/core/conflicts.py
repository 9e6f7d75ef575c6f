"""Which outcome counts where several speak of the same: the highest revision, then by content, whoever came first."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from tailrace.core.join_records import Reports
from tailrace.core.join_table import NO_OUTCOME, JoinTable, Rows
from tailrace.core.outcome_table import OutcomeTable, Said
from tailrace.core.reductions import Reduction


def enter_single(
    table: JoinTable, new: Reports, places: NDArray[np.int64], heads: Rows, counts: Counter[str]
) -> NDArray[np.bool_]:  # hot path
    """Enters outcomes of distinct events, all of which are revisions of one outcome.

    Args:
        table: Takes what is known of each event.
        new: Outcomes; those at `places`, int64 (n,), are entered.
        places: Which of them.
        heads: int64 (n,), first rows of their events.
        counts: Where duplicates, stale revisions and conflicts are counted.

    Returns:
        bool (n,), which of them hold now.
    """
    said = _said(new, places)
    wins = np.ones(len(places), np.bool_)
    judged = np.flatnonzero(table.outcome[heads] != NO_OUTCOME)
    if judged.size:
        wins[judged] = _beats(said.taken(judged), _known(table, heads[judged]), counts)
    _write(table, heads[wins], said.taken(wins))
    return wins


def enter_reduced(
    table: JoinTable,
    outcomes: OutcomeTable,
    rule: Reduction,
    new: Reports,
    places: NDArray[np.int64],
    heads: Rows,
    counts: Counter[str],
) -> NDArray[np.bool_]:
    """Enters outcomes with ids, distinct by event and id, and what those of each event come to together.

    Args and result as in `enter_single`; `outcomes` holds the newest of each id, `rule` reduces them.
    """
    said = _said(new, places)
    wins = np.ones(len(places), np.bool_)
    ids = [new.outcome_ids[place] for place in places.tolist()]
    rows = outcomes.find(heads, ids)
    again = np.flatnonzero(rows >= 0)
    if again.size:
        wins[again] = _beats(said.taken(again), outcomes.said(rows[again]), counts)
    outcomes.put(heads[wins], [ids[at] for at in np.flatnonzero(wins).tolist()], said.taken(wins))
    changed = np.unique(heads[wins])
    if changed.size:
        _write(table, changed, outcomes.reduced(changed, rule))
    return wins


def _beats(new: Said, held: Said, counts: Counter[str]) -> NDArray[np.bool_]:
    """Whether outcomes replace those that are known: their fields, compared one by one in their order."""
    greater = np.zeros(len(new.value), np.bool_)
    equal = np.ones(len(new.value), np.bool_)
    for mine, theirs in zip(new.columns(), held.columns(), strict=True):
        greater |= equal & (mine > theirs)
        equal &= mine == theirs
    stale = new.revision < held.revision
    conflict = ~equal & (new.revision == held.revision)
    for name, which in (("duplicate", equal), ("stale_revision", stale), ("conflict", conflict)):
        if which.any():
            counts[name] += int(which.sum())
    return greater


def _said(new: Reports, places: NDArray[np.int64]) -> Said:
    return Said(new.revision[places], new.kinds(places), new.value[places], new.time_ms[places])


def _known(table: JoinTable, heads: Rows) -> Said:
    return Said(table.revision[heads], table.outcome[heads], table.value[heads], table.outcome_time_ms[heads])


def _write(table: JoinTable, heads: Rows, said: Said) -> None:
    table.revision[heads], table.outcome[heads], table.value[heads], table.outcome_time_ms[heads] = said
