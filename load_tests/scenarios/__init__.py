"""Scenarios: one module each, with its candidates and the ratios that must show."""
