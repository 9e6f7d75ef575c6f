// One function per panel: a snapshot goes in, the page changes.
import { age, button, day, element, fill, metric, minute, number, share } from "./format.js";
import { bins, clear, lines } from "./charts.js";

const $ = id => document.getElementById(id);
const METRICS = ["log_loss", "roc_auc", "pr_auc", "brier", "calibration_error", "accuracy", "precision", "recall", "f1"];
const READINGS = ["estimate", "provisional", "final"];
const TERMS = ["threshold", "error_step", "quantile"];
const NAMES = { events: "Events", features: "Features", inference: "Predictions", feedback: "Outcomes" };
let chosen = { metric: "log_loss", subject: null };

export function status(state) {
  $("use-case").textContent = state.use_case;
  $("status").dataset.level = state.status.level;
  if ($("status").textContent !== state.status.sentence) $("status").textContent = state.status.sentence;
  $("stream-time").textContent = state.watermark_ms == null ? "No stream time yet." : `Stream time ${minute(state.watermark_ms)}.`;
  const findings = state.status.findings;
  $("findings").hidden = findings.length < 2;
  $("findings").querySelector("ul").replaceChildren(...findings.map(text => element("li", text)));
}

export function flow(state) {
  $("flow").replaceChildren(...state.flow.stages.map(stage => element("li", [
    element("b", NAMES[stage.stage]),
    stage.per_s == null ? "rate not known yet" : `${number(stage.per_s)} records/s`,
    element("br", []),
    stage.stage === "events" ? "" : stage.lag_records == null ? "lag not known yet"
      : element("span", `lag ${number(stage.lag_records)} records, ${number(stage.lag_s, 1)} s`, { class: stage.lag_s > 60 ? "late" : "" }),
  ])));
}

export function latency(state) {
  const l = state.latency;
  $("latency-figures").textContent = l.p50_ms == null ? "No prediction in the last minute: produce events to see figures."
    : `last minute: p50 ${number(l.p50_ms)} ms, p95 ${number(l.p95_ms)} ms, p99 ${number(l.p99_ms)} ms, max below ${number(l.max_ms)} ms; model budget ${number(l.budget_ms)} ms`;
}

export function history(points) {
  if (points.at_ms.length < 2) return;
  lines("traffic-chart", points.at_ms, { events: points.events_per_s, predictions: points.inference_per_s }, { unit: "per s" });
  lines("latency-chart", points.at_ms, { p50: points.p50_ms, p95: points.p95_ms, p99: points.p99_ms }, { unit: "ms" });
}

export function quality(state) {
  const rows = state.quality;
  const select = choices(rows);
  select.state = state;
  const name = chosen.metric;
  fill("quality", ["day", "role", "version", "predictions", "labels in", ...READINGS],
    rows.slice(-20).reverse().map(q => [day(q.window_start_ms), q.variant, q.model_version, number(q.predictions),
      share(q.maturity), ...READINGS.map(reading => said(readingOf(q, reading), name))]),
    "No predictions yet. Produce events to the requests topic, or run `tailrace replay`.");
  const days = [...new Set(rows.map(q => q.window_start_ms))].sort((a, b) => a - b);
  const column = (role, reading) => days.map(at => readingOf(newest(rows, at, role), reading)?.metrics[name] ?? null);
  const columns = { final: column("champion", "final"), provisional: column("champion", "provisional"), estimate: column("champion", "estimate") };
  if (rows.some(q => q.variant === "shadow")) columns.challenger = column("shadow", "final");
  if (days.length > 1) lines("quality-chart", days, columns, { stream: true });
}

// What may be chosen: every metric that any reading holds; the select keeps its choice.
function choices(rows) {
  const select = $("metric");
  const known = new Set(rows.flatMap(q => READINGS.flatMap(reading => Object.keys(readingOf(q, reading)?.metrics ?? {}))));
  const names = known.size ? [...known].filter(name => !TERMS.includes(name)) : METRICS;
  if (select.dataset.shown !== names.join()) {
    if (!select.dataset.shown) select.addEventListener("change", () => { chosen.metric = select.value; quality(select.state); });
    select.dataset.shown = names.join();
    if (!names.includes(chosen.metric)) chosen.metric = names[0];
    select.replaceChildren(...names.map(name => element("option", name.replaceAll("_", " "), { value: name })));
    select.value = chosen.metric;
  }
  return select;
}

const readingOf = (q, reading) => q == null ? null : reading === "final" ? q : q[reading];

// A figure with the interval it lies in; why there is none, where that is known.
function said(reading, name) {
  const value = reading?.metrics[name];
  if (value == null) return element("span", "–", { title: reading?.withheld || null });
  const interval = reading.intervals[name];
  return element("span", [metric(value), interval ? element("span", ` ${metric(interval[0])} to ${metric(interval[1])}`, { class: "quiet" }) : ""]);
}

const newest = (rows, at, role) => rows.filter(q => q.window_start_ms === at && q.variant === role).at(-1);

export function drift(state) {
  const found = state.drift;
  if (!found.some(d => d.subject === chosen.subject)) chosen.subject = found[0]?.subject ?? null;
  fill("drift", ["feature", "index", "limit", "rows", "measured"],
    found.map(d => [
      button(d.subject, () => { chosen.subject = d.subject; distribution(found); }, { class: "link", "data-key": `drift-${d.subject}` }),
      element("span", [d.value.toFixed(3), d.signs.length ? ` drifted (${d.signs.join(", ")})` : ""], { class: d.signs.length ? "beyond" : "" }),
      d.threshold.toFixed(3), number(d.rows), minute(d.measured_at_ms)]),
    "Nothing measured yet: it starts with the first champion, and needs PSI among the monitors of the use case.");
  distribution(found);
}

function distribution(found) {
  const d = found.find(one => one.subject === chosen.subject);
  $("drift-subject").textContent = d ? `${d.subject}: population stability index against version ${d.model_version}'s training data` : "";
  if (!d) return clear("drift-chart");
  const shares = counts => { const sum = counts.reduce((a, b) => a + b, 0) || 1; return counts.map(n => n / sum); };
  const edge = value => Number(value.toPrecision(3)).toString();
  const labels = d.edges.map(e => `< ${edge(e)}`).concat(d.edges.length ? `≥ ${edge(d.edges.at(-1))}` : "any", "missing");
  bins("drift-chart", labels, shares(d.reference), shares(d.current));
}

export function models(state, promote) {
  const head = ["version", "role", "traffic", "trained for", "gates", "log loss", "ROC AUC", "PR AUC", "lineage", "action"];
  fill("models", head, state.models.map(m => [m.model_version, m.role || "registered", share(m.share), m.run_id,
    m.gates.length ? m.gates.map(g => `${g.name} ${g.passed ? "passed" : "failed"}`).join(", ") : "none declared",
    metric(m.metrics.log_loss), metric(m.metrics.roc_auc), metric(m.metrics.pr_auc), lineage(m.lineage),
    m.role === "champion" ? "serves" : button(`Promote ${m.model_version}`, () => promote(m), { "data-key": `promote-${m.model_version}` })]),
    "No model yet: predictions carry the default score until enough labels are in for the first training.");
  $("rollback").disabled = !state.routing?.warm.length;
}

function lineage(facts) {
  const rows = Object.entries(facts).map(([name, value]) => element("div", `${name}: ${value}`));
  return element("details", [element("summary", "show"), ...rows]);
}

export function retraining(state) {
  fill("retraining", ["asked at", "trigger", "state", "why", "outcome"], state.retraining.map(r =>
    [minute(r.requested_at_ms), `${r.trigger} by ${r.by}`, r.state, r.reason, r.outcome ?? ""]), "Nothing asked for yet.");
}

export function alarms(state) {
  fill("alarms", ["raised", "kind", "subject", "value", "limit", "detail"], state.alarms.map(a =>
    [minute(a.raised_at_ms), a.kind.replace("_", " ") + (a.resolved ? " (resolved)" : ""), a.slice ? `${a.subject} (${a.slice})` : a.subject, a.value.toFixed(3), a.threshold.toFixed(3), a.detail]),
    "No alarm was ever raised.");
}

export function deadLetters(state, replay, inspect) {
  const d = state.dead_letters;
  $("dead-letters-figures").textContent = `${number(d.total)} records set aside, ${number(d.replayed)} sent again`;
  fill("reasons", ["reason", "records", "action"], Object.entries(d.by_reason).map(([reason, count]) =>
    [reason, number(count), button(`Replay ${reason}`, () => replay(reason), { "data-key": `replay-${reason}` })]), "None: every record could be used.");
  fill("letters", ["failed at", "stage", "reason", "detail", "record"], d.newest.slice(0, 30).map(l =>
    [minute(l.failed_at_ms), l.stage, l.reason, l.detail,
      button(`${l.source.topic}[${l.source.partition}]@${l.source.offset}`, () => inspect(l), { class: "link", "data-key": `letter-${l.offset}` })]), "");
}

export function workers(state) {
  fill("workers", ["service", "instance", "state", "up", "records/s", "sessions begun anew", "heard"], state.workers.map(w =>
    [w.service, w.instance, w.state, age(1000 * w.up_s), number(w.records_per_s), number(w.session_restarts), `${age(w.age_ms)} ago`]),
    "No worker has been heard of: start them with `tailrace up`.");
}

export function audit(state) {
  fill("audit", ["when", "who", "what", "why", "evidence"], state.audit.map(a =>
    [minute(a.at_ms), a.by, a.action.replaceAll("_", " "), a.reason, Object.entries(a.evidence).map(([k, v]) => `${k} ${v}`).join(", ")]), "Nothing decided yet.");
}

export function traced(found) {
  const items = [];
  const item = (label, record, text) => items.push(element("li", [element("b", `${label}: `), text, element("details", [element("summary", "record"), element("pre", JSON.stringify(record, null, 2))])]));
  const at = p => `${p.topic}[${p.partition}]@${p.offset}`;
  if (found.event) item("Event", found.event, `${at(found.event.position)}, produced ${minute(found.event.kafka_timestamp_ms)}`);
  for (const p of found.predictions) item(`Prediction by ${p.variant}`, p,
    `score ${p.score.toFixed(4)}, ${p.decision ? "positive" : "negative"} at ${p.threshold}, version ${p.model_version}, ${p.predicted_at_ms - p.produced_at_ms} ms after the event${p.degraded.length ? `, degraded: ${p.degraded.join(", ")}` : ""}`);
  for (const o of found.outcomes) item("Outcome", o, at(o.position));
  for (const l of found.labels) item("Label", l, `${l.label ?? "open"}, ${l.status} (${l.reason}), version ${l.model_version}, known at ${minute(l.known_at_ms)}`);
  for (const d of found.dead_letters) item("Dead letter", d, `${d.reason}: ${d.detail}`);
  const searched = `${number(found.searched)} records searched${found.complete ? "" : "; patience ran out, the answer may lack something"}.`;
  $("traced").replaceChildren(items.length ? element("ol", items) : element("p", `No topic knows ${found.event_id}. Is it the value of the prediction id field?`), element("p", searched, { class: "quiet" }));
}
