"""The Grafana dashboard as code: panels are data here, the SDK knows what Grafana wants to read."""

from __future__ import annotations

from string import ascii_uppercase
from typing import Literal, NamedTuple

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

UID = "tailrace"
SPAN = 8
HEIGHT = 7
_SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")


class Query(NamedTuple):
    """A PromQL expression and the name of each of its series."""

    expr: str
    legend: str


class Panel(NamedTuple):
    """A panel: what it shows, in which of Grafana's units, and what an empty one means, if that is in order."""

    title: str
    unit: str
    queries: tuple[Query, ...]
    description: str = ""
    kind: Literal["series", "stat"] = "series"


_OF = 'use_case=~"$use_case"'

ROWS: dict[str, tuple[Panel, ...]] = {
    "Now": (
        Panel("Alerts firing", "short", (Query('count(ALERTS{alertstate="firing"}) or vector(0)', "firing"),), kind="stat"),
        Panel(
            "Services that answer", "short",
            (Query('sum(up{job=~"(.*-)?(features|inference|feedback|trainer|rollout|ops)"})', "of 6"),), kind="stat",
        ),
        Panel("Model in service", "none", (Query(f"tailrace_inference_model_info{{{_OF}}}", "{{variant}} {{version}}"),)),
    ),
    "Flow": (
        Panel(
            "Events and predictions", "reqps",
            (
                Query(f"use_case:tailrace_events:rate5m{{{_OF}}}", "events {{use_case}}"),
                Query(f"use_case:tailrace_predictions:rate5m{{{_OF}}}", "predictions {{use_case}}"),
            ),
        ),
        Panel(
            "Records by service", "reqps", (Query(f"use_case_stage:tailrace_records:rate5m{{{_OF}}}", "{{stage}}"),),
        ),
        Panel(
            "Lag: age of the oldest record not dealt with", "s",
            (Query(f"use_case_consumer:tailrace_lag_seconds:max{{{_OF}}}", "{{consumer}}"),),
            "Of the trainer: how long a request has waited for its answer.",
        ),
        Panel(
            "Lag in records", "short", (Query(f"use_case_consumer:tailrace_lag_records:max{{{_OF}}}", "{{consumer}}"),),
        ),
        Panel(
            "Dead letters", "reqps",
            (Query(f"sum by (stage, reason) (rate(tailrace_dead_letters_total{{{_OF}}}[5m])) > 0", "{{stage}}: {{reason}}"),),
            "Empty while every record can be used.",
        ),
        Panel(
            "Share of events that end as dead letters", "percentunit",
            (Query(f"use_case:tailrace_dead_letters:ratio_rate5m{{{_OF}}}", "{{use_case}}"),), "Empty while no event comes.",
        ),
    ),
    "Latency": (
        Panel(
            "Event produced to prediction made", "s",
            tuple(
                Query(f"use_case:tailrace_end_to_end_seconds:p{q}_5m{{{_OF}}}", f"p{q} {{{{use_case}}}}") for q in (50, 95, 99)
            ),
            "Empty while no prediction is made.",
        ),
        Panel(
            "Micro-batch, p99", "s", (Query(f"use_case_stage:tailrace_batch_seconds:p99_5m{{{_OF}}}", "{{stage}}"),),
            "Empty while there is nothing to do.",
        ),
        Panel(
            "Commit, p99", "s",
            (
                Query(
                    f"histogram_quantile(0.99, sum by (stage, le) (rate(tailrace_commit_seconds_bucket{{{_OF}}}[5m])))",
                    "{{stage}}",
                ),
            ),
            "Empty while there is nothing to commit.",
        ),
    ),
    "Features": (
        Panel(
            "Predictions with defaults in them", "percentunit",
            (Query(f"use_case_reason:tailrace_degraded:ratio_rate5m{{{_OF}}}", "{{reason}}"),),
            "Empty while no prediction is made.",
        ),
        Panel(
            "Mean age of the rows read", "s",
            (Query(f"use_case_view:tailrace_feature_age_seconds:mean5m{{{_OF}}}", "{{view}}"),),
            "In event time. Empty while no row is read.",
        ),
        Panel(
            "Rows asked of the online store", "reqps",
            (
                Query(
                    f"sum by (view, state) (rate(tailrace_inference_feature_rows_total{{{_OF}}}[5m]))", "{{view}} {{state}}"
                ),
            ),
        ),
        Panel(
            "Failed calls to the online store", "reqps",
            (Query(f"sum by (stage, operation) (rate(tailrace_online_store_errors_total{{{_OF}}}[5m]))", "{{stage}} {{operation}}"),),
        ),
    ),
    "Quality": (
        Panel(
            "Log loss of the newest mature day", "none",
            (Query(f'tailrace_quality{{{_OF}, metric="log_loss"}}', "{{use_case}} {{variant}}"),),
            "Empty until half of a day's labels are final.",
        ),
        Panel(
            "Other metrics of the newest mature day", "none",
            (Query(f'tailrace_quality{{{_OF}, metric!="log_loss"}}', "{{variant}} {{metric}}"),),
            "Empty until half of a day's labels are final.",
        ),
        Panel(
            "Outcomes that repeat or contradict what is known", "reqps",
            (Query(f"sum by (kind) (rate(tailrace_feedback_join_repeats_total{{{_OF}}}[5m])) > 0", "{{kind}}"),),
            "Empty while every outcome is news.",
        ),
        Panel(
            "Events forgotten before their time", "reqps",
            (Query(f"sum by (kind) (rate(tailrace_feedback_evictions_total{{{_OF}}}[5m])) > 0", "{{kind}}"),),
            "Empty while there is room for all.",
        ),
        Panel(
            "Log loss or mean absolute error of the newest day", "none",
            (
                Query(f'tailrace_quality_reading{{{_OF}, metric=~"log_loss|mae", variant="champion"}}', "{{use_case}} {{reading}}"),
                Query(
                    f'tailrace_quality_reading_bound{{{_OF}, metric=~"log_loss|mae", variant="champion", '
                    'reading!="final"}', "{{use_case}} {{reading}} {{bound}}",
                ),
            ),
            "Estimated from scores, provisional with labels corrected for those to come, and final. Empty before the first "
            "champion has predicted for some hours.",
        ),
        Panel(
            "Labels of the newest day that are final", "percentunit",
            (Query(f"tailrace_quality_reading_maturity_ratio{{{_OF}}}", "{{use_case}} {{variant}}"),),
            "Empty before the first champion.",
        ),
        Panel(
            "Label maturity of that day", "percentunit",
            (Query(f"tailrace_quality_maturity_ratio{{{_OF}}}", "{{use_case}} {{variant}}"),),
            "Empty until half of a day's labels are final.",
        ),
        Panel(
            "Worse than at the gates", "none",
            (
                Query(f"tailrace_quality_drop{{{_OF}}}", "{{metric}}"),
                Query(f"tailrace_quality_drop_limit{{{_OF}}}", "limit of {{metric}}"),
            ),
            "Empty until the champion has enough final labels, and where the use case names no drop.",
        ),
        Panel(
            "Drift of features and score", "none",
            (Query(f"topk(10, tailrace_drift_score{{{_OF}}})", "{{feature}}"),),
            "Population stability index. Empty until the champion has served for a whole period.",
        ),
        Panel("Alarms that stand", "short", (Query(f"tailrace_alarms_active{{{_OF}}}", "{{kind}}"),)),
    ),
    "Models": (
        Panel(
            "Requests for a new model", "short",
            (Query(f"sum by (trigger) (tailrace_retrain_requests_total{{{_OF}}})", "{{trigger}}"),), "Since the start of the service.",
        ),
        Panel(
            "Trainings", "short", (Query(f"sum by (outcome) (tailrace_trainings_total{{{_OF}}})", "{{outcome}}"),),
            "Since the start of the service.",
        ),
        Panel("Routing epoch", "none", (Query(f"tailrace_control_epoch{{{_OF}}}", "{{stage}}"),)),
    ),
    "Health": (
        Panel(
            "Stream time behind the wall clock", "s",
            (Query(f"use_case:tailrace_watermark_lag_seconds:min{{{_OF}}}", "{{use_case}}"),), "In a replay: the age of what is replayed.",
        ),
        Panel("Memory", "bytes", (Query(f"process_resident_memory_bytes{{{_OF}}}", "{{stage}}"),)),
        Panel("Processor", "percentunit", (Query(f"rate(process_cpu_seconds_total{{{_OF}}}[5m])", "{{stage}}"),)),
    ),
}  # fmt: skip
"""Panels by row."""


def dashboard_json() -> str:
    """The dashboard as Grafana imports it; the same panels give the same text."""
    built = (
        dashboard.Dashboard("Tailrace")
        .uid(UID)
        .description("The loop of one use case: flow, latency, features, quality, models. What to do: docs/runbook.md.")
        .tags(["tailrace"])
        .readonly()
        .refresh("15s")
        .time("now-1h", "now")
        .timezone("browser")
        .with_variable(dashboard.DatasourceVariable("source").label("Source").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("use_case")
            .label("Use case")
            .datasource(_SOURCE)
            .query("label_values(tailrace_build_info, use_case)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .include_all(True)
            .multi(True)
        )
    )
    number = 0
    for title, panels in ROWS.items():
        number += 1
        built = built.with_row(dashboard.Row(title).id(number))
        for panel in panels:
            number += 1
            built = built.with_panel(_built(panel, number))
    return JSONEncoder(sort_keys=True, indent=1).encode(built.build()) + "\n"


def _built(panel: Panel, number: int) -> stat.Panel | timeseries.Panel:
    made = _stat() if panel.kind == "stat" else _series()
    made = made.id(number).title(panel.title).unit(panel.unit).datasource(_SOURCE).span(SPAN).height(HEIGHT)
    if panel.description:
        made = made.description(panel.description)
    for letter, query in zip(ascii_uppercase, panel.queries, strict=False):
        made = made.with_target(prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(letter))
    return made


def _series() -> timeseries.Panel:
    return timeseries.Panel().legend(
        common.VizLegendOptions()
        .show_legend(True)
        .placement(LegendPlacement.BOTTOM)
        .display_mode(LegendDisplayMode.LIST)
    )


def _stat() -> stat.Panel:
    return stat.Panel().reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
