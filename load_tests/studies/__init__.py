"""Studies: statistical promises checked on many seeds, each a command that prints figure, bar and whether it was met."""
