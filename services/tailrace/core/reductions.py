"""Words for how several outcomes become one label, and for which predictions an outcome judges."""

from __future__ import annotations

from typing import Literal

Reduction = Literal["any", "sum", "max", "last"]
"""How several outcomes of one event become one label; see `OutcomeTable.reduced`."""

Touch = Literal["every_touch", "last_touch", "first_touch", "linear"]
"""Which predictions in the window of an entity's outcome get the credit; `linear` gives each an equal share."""
