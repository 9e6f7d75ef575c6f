"""The page that shows `/api/state`: plain HTML, refreshed every two seconds, no script from elsewhere."""

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Tailrace</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color-scheme: light dark }
  table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .2rem .8rem .2rem 0 }
  td { border-top: 1px solid #8884; font-variant-numeric: tabular-nums } h2 { font-size: 1rem; margin-top: 2rem }
</style>
<h1>Tailrace</h1><p id="line" role="status">Loading</p>
<h2>Models in service</h2><table id="models"></table>
<h2>Quality by day of event time (UTC)</h2><table id="quality"></table>
<h2>Retraining</h2><table id="retraining"></table>
<h2>Alarms</h2><table id="alarms"></table>
<h2>Dead letters</h2><table id="dead"></table>
<script type="module">
const day = ms => ms == null ? "–" : new Date(ms).toISOString().slice(0, 16).replace("T", " ");
const num = x => x == null ? "–" : x.toFixed(4);
function fill(id, head, rows, empty) {
  const table = document.getElementById(id);
  table.replaceChildren();
  for (const cells of [head, ...(rows.length ? rows : [[empty]])]) {
    const tr = table.insertRow();
    for (const text of cells) {
      const cell = document.createElement(cells === head ? "th" : "td");
      cell.textContent = text;
      tr.append(cell);
    }
  }
}
async function refresh() {
  const line = document.getElementById("line");
  try {
    const s = await (await fetch("api/state")).json();
    line.textContent = `${s.use_case}: stream time ${day(s.watermark_ms)} UTC, as of ${new Date().toLocaleTimeString()}`;
    fill("models", ["variant", "version", "share", "since"], (s.routing?.variants ?? []).map(v =>
      [v.name, v.model_version, `${100 * v.share} %`, day(s.routing.decided_at_ms)]),
      "No model yet: predictions carry the default score until the first training.");
    fill("quality", ["day", "variant", "version", "predictions", "final labels", "log loss", "ROC AUC", "PR AUC"],
      s.quality.slice(-15).reverse().map(q => [day(q.window_start_ms).slice(0, 10), q.variant, q.model_version,
        q.predictions, `${(100 * q.maturity).toFixed(0)} %`, num(q.metrics.log_loss), num(q.metrics.roc_auc),
        num(q.metrics.pr_auc)]), "No predictions yet: produce events to the requests topic.");
    fill("retraining", ["what", "run", "why"], s.retraining.slice(-15).reverse().map(r =>
      [r.type, r.run_id ?? r.model_version ?? "", r.reason ?? ""]), "Nothing asked for yet.");
    fill("alarms", ["kind", "subject", "value", "since"], s.alarms.slice(-15).reverse().map(a =>
      [a.kind + (a.resolved ? " (resolved)" : ""), a.subject, num(a.value), day(a.since_ms)]), "No alarm.");
    fill("dead", ["reason", "records"], Object.entries(s.dead_letters.by_reason), "None.");
  } catch (error) {
    line.textContent = `No answer from the ops service (${error.message}); the figures below are stale.`;
  }
}
refresh();
setInterval(refresh, 2000);
</script></html>
"""
