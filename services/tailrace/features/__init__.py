"""Features: exact windows over events and labels, as they flow."""
