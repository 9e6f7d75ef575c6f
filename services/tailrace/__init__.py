"""Tailrace: closed-loop streaming machine learning on Kafka.

This module is the language of use cases, meant to be read as `import tailrace as tr`.
"""

from tailrace.usecase import drift, metrics
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.features import (
    Category,
    Count,
    DayOfWeek,
    DistinctCount,
    Field,
    GroupBy,
    HourOfDay,
    IsNight,
    IsWeekend,
    Max,
    Mean,
    Min,
    OneHot,
    SinceLast,
    Std,
    Sum,
)
from tailrace.usecase.policies import AtLeast, Binary, Budget, Default, Immediate, NotWorse, Regression, Retrain, Shadow
from tailrace.usecase.sources import Event, Label, Topic

__all__ = [
    "AtLeast",
    "Binary",
    "Budget",
    "Category",
    "Count",
    "DayOfWeek",
    "Default",
    "DistinctCount",
    "Event",
    "Field",
    "GroupBy",
    "HourOfDay",
    "Immediate",
    "IsNight",
    "IsWeekend",
    "Label",
    "Max",
    "Mean",
    "Min",
    "NotWorse",
    "OneHot",
    "Regression",
    "Retrain",
    "Shadow",
    "SinceLast",
    "Std",
    "Sum",
    "Topic",
    "UseCase",
    "drift",
    "metrics",
]
