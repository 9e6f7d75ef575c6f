"""Which outcome counts where several speak of the same: by trust, then revision, then content; whoever came first.

Of predictions of one id the first counts.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from tailrace.core.join_records import Reports
from tailrace.core.join_table import NO_OUTCOME, JoinTable, Rows
from tailrace.core.outcome_sources import SourceBook
from tailrace.core.outcome_table import OutcomeTable, Said
from tailrace.core.reductions import Reduction


def chain_predictions(table: JoinTable, places: list[int], heads: Rows, rows: Rows, counts: Counter[str]) -> list[int]:
    """Chains predictions to their events.

    Args:
        table: Where they stand.
        places: Which of `rows` are not the first of their event.
        heads: int64 (n,), first rows of the events.
        rows: int64 (n,), rows of predictions.
        counts: Where duplicates and conflicts are counted.

    Returns:
        The places of those that are no duplicates.
    """
    chained = []
    for at in places:
        head, row = int(heads[at]), int(rows[at])
        chain = table.chain(head)
        again = next((r for r in chain if table.is_same_id(r, row)), None)
        if again is None:
            table.next[chain[-1]], table.head[row] = row, head
            chained.append(at)
        else:
            # Predictions come exactly once per event record; two of one id mean that a producer used an
            # event id twice. The first keeps its label, or windows already counted would have to move.
            counts["duplicate" if table.is_same(again, row) else "conflict"] += 1
            table.remove(np.array([row]))
    return chained


def enter_single(
    table: JoinTable,
    new: Reports,
    places: NDArray[np.int64],
    heads: Rows,
    counts: Counter[str],
    book: SourceBook | None = None,
) -> NDArray[np.bool_]:  # hot path
    """Enters outcomes of distinct events, all of which are revisions of one outcome.

    Args:
        table: Takes what is known of each event.
        new: Outcomes; those at `places`, int64 (n,), are entered.
        places: Which of them.
        heads: int64 (n,), first rows of their events.
        counts: Where duplicates, stale revisions and conflicts are counted.
        book: Sources by code; None where outcomes name none.

    Returns:
        bool (n,), which of them hold now.
    """
    said = _said(new, places, book)
    wins = np.ones(len(places), np.bool_)
    judged = np.flatnonzero(table.outcome[heads] != NO_OUTCOME)
    if judged.size:
        wins[judged] = _beats(said.taken(judged), _known(table, heads[judged]), counts, book)
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
    book: SourceBook | None = None,
) -> NDArray[np.bool_]:
    """Enters outcomes with ids, distinct by event and id, and what those of each event come to together.

    Args and result as in `enter_single`; `outcomes` holds the newest of each id, `rule` reduces them.
    """
    said = _said(new, places, book)
    wins = np.ones(len(places), np.bool_)
    ids = [new.outcome_ids[place] for place in places.tolist()]
    rows = outcomes.find(heads, ids)
    again = np.flatnonzero(rows >= 0)
    if again.size:
        wins[again] = _beats(said.taken(again), outcomes.said(rows[again]), counts, book)
    outcomes.put(heads[wins], [ids[at] for at in np.flatnonzero(wins).tolist()], said.taken(wins))
    changed = np.unique(heads[wins])
    if changed.size:
        _write(table, changed, outcomes.reduced(changed, rule))
    return wins


def _beats(new: Said, held: Said, counts: Counter[str], book: SourceBook | None) -> NDArray[np.bool_]:
    """Whether outcomes replace those that are known: their fields, compared one by one in their order."""
    greater = np.zeros(len(new.value), np.bool_)
    equal = np.ones(len(new.value), np.bool_)
    for mine, theirs in zip(new.columns(book), held.columns(book), strict=True):
        greater |= equal & (mine > theirs)
        equal &= mine == theirs
    alike = np.True_ if book is None else book.tiers[new.source] == book.tiers[held.source]
    stale = alike & (new.revision < held.revision)
    conflict = alike & ~equal & (new.revision == held.revision)
    for name, which in (("duplicate", equal), ("stale_revision", stale), ("conflict", conflict)):
        if which.any():
            counts[name] += int(which.sum())
    return greater


def _said(new: Reports, places: NDArray[np.int64], book: SourceBook | None) -> Said:
    if book is None or not new.sources:
        source = np.zeros(len(places), np.uint8)
    else:
        source = book.codes([new.sources[place] for place in places.tolist()])
    return Said(new.revision[places], new.kinds(places), new.value[places], new.time_ms[places], source)


def _known(table: JoinTable, heads: Rows) -> Said:
    source = table.source[heads]
    return Said(table.revision[heads], table.outcome[heads], table.value[heads], table.outcome_time_ms[heads], source)


def _write(table: JoinTable, heads: Rows, said: Said) -> None:
    table.revision[heads], table.outcome[heads], table.value[heads] = said.revision, said.kind, said.value
    table.outcome_time_ms[heads], table.source[heads] = said.time_ms, said.source
