"""One module per scenario: docstring, `CANDIDATES`, `FLOORS`, and where they differ `UNIT`, `EVENTS`, `SHORT`, `LIMITS`."""
