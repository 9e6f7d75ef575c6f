"""Feast definitions of every use case in this folder."""

from pathlib import Path

from tailrace.usecase.feast_objects import feast_objects
from tailrace.usecase.load import load_use_case, use_case_names

HERE = Path(__file__).parent

globals().update(feast_objects(load_use_case(HERE, name).plan for name in use_case_names(HERE)))
