"""One module per scenario: docstring, `CANDIDATES`, `FLOORS`, and where they differ `PEERS`, `UNIT`, `EVENTS`, `SHORT`, `RATE`, `LIMITS`."""
