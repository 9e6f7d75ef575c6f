"""Feast objects derived from a plan, so that Feast's own tools see the rows Tailrace keeps.

Imported by `feature_repo/definitions.py` alone: services never import feast.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Float64, String

from tailrace.core.plan import Plan, WindowView

TIMESTAMP = "event_timestamp"
"""Column with the time of a row in files and pushes."""


def feast_objects(plans: Iterable[Plan]) -> dict[str, Any]:
    """Entities, feature views and feature services of the plans, by name.

    Entities of the same column are one entity: string valued, the column being its join key. Views
    hold float64 columns. Each use case has one feature service of its name.
    """
    entities: dict[str, Entity] = {}
    objects: dict[str, Any] = {}
    for plan in plans:
        for column in plan.entities:
            entities.setdefault(column, _entity(column))
        views = [_view(view, entities[view.entity], plan) for view in plan.views]
        objects.update({view.name: view for view in views})
        objects[plan.use_case] = FeatureService(
            name=plan.use_case,
            features=list(views),
            description=f"Window features of {plan.use_case}.",
            tags={"fingerprint": plan.fingerprint, "version": str(plan.version)},
        )
    return {**{f"entity_{name}": entity for name, entity in entities.items()}, **objects}


def _entity(column: str) -> Entity:
    return Entity(name=column, join_keys=[column], value_type=ValueType.STRING)


def _view(view: WindowView, entity: Entity, plan: Plan) -> FeatureView:
    batch = FileSource(name=f"{view.name}_rows", path=f"data/{view.name}.parquet", timestamp_field=TIMESTAMP)
    return FeatureView(
        name=view.name,
        entities=[entity],
        # Feast does not apply a TTL to online reads; inference judges ages itself. Zero keeps rows for ever.
        ttl=timedelta(milliseconds=view.fresh_within_ms or 0),
        schema=[Field(name=view.entity, dtype=String), *(Field(name=c.name, dtype=Float64) for c in view.columns)],
        source=PushSource(name=f"{view.name}_push", batch_source=batch),
        online=True,
        description=f"Sliding windows by {view.entity} over {view.source} of {plan.use_case}.",
        tags={"use_case": plan.use_case, "source": view.source},
    )
