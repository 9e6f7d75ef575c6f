"""Drift detectors, as use cases name them: `tr.drift.PSI(every="1d")`."""

from tailrace.core.monitors import ADWIN, PSI, EDetector, PageHinkley

__all__ = ["ADWIN", "PSI", "EDetector", "PageHinkley"]
