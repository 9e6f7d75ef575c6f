// Charts, drawn by uPlot. A value that is not known is a gap, never a zero.
/* global uPlot */

const HEIGHT = 180;
const charts = new Map();
const ink = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
// light-dark() stands unresolved in a custom property; a real colour property resolves it.
function colour(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found || ink(name);
}

const axis = extra => ({ stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") }, ...extra });

function draw(id, options, data) {
  const place = document.getElementById(id);
  const known = charts.get(id);
  const shape = JSON.stringify([options.series.map(s => s.label), matchMedia("(prefers-color-scheme: dark)").matches]);
  const width = Math.max(place.clientWidth, 200);
  if (known?.shape === shape) {
    if (known.chart.width !== width) known.chart.setSize({ width, height: HEIGHT });
    known.chart.setData(data);
    return;
  }
  known?.chart.destroy();
  charts.set(id, { shape, chart: new uPlot({ width, height: HEIGHT, cursor: { drag: { x: true, y: false } }, ...options }, data, place) });
}

export function clear(id) {
  charts.get(id)?.chart.destroy();
  charts.delete(id);
}

const STROKES = ["--accent", "--warn", "--good", "--bad"];
const PATTERNS = [[], [6, 3], [2, 3], [8, 3, 2, 3]];

// Lines over time: `times_ms`, then one column per name. Told apart by dashes as well as by colour.
export function lines(id, times_ms, columns, { unit = "", stream = false } = {}) {
  const series = Object.keys(columns).map((label, at) => ({
    label: unit ? `${label}, ${unit}` : label, stroke: colour(STROKES[at % 4]), dash: PATTERNS[at % 4], width: 1.5,
    points: { show: times_ms.length < 40 }, value: (_, v) => v == null ? "–" : Number(v.toPrecision(4)).toString(),
  }));
  draw(id, {
    tzDate: stream ? ts => uPlot.tzDate(new Date(ts * 1000), "UTC") : undefined,
    series: [{ label: stream ? "day, UTC" : "time" }, ...series],
    axes: [axis(), axis({ size: 60 })],
  }, [times_ms.map(ms => ms / 1000), ...Object.values(columns)]);
}

// Two distributions over the same bins, as shares.
export function bins(id, labels, reference, current) {
  const bars = (align, stroke) => ({ stroke: colour(stroke), fill: colour(stroke), width: 0, points: { show: false },
    paths: uPlot.paths.bars({ size: [0.4], align }), value: (_, v) => v == null ? "–" : `${(100 * v).toFixed(1)} %` });
  draw(id, {
    scales: { x: { time: false, range: [-1, labels.length] } },
    series: [{ label: "bin", value: (_, v) => labels[v] ?? "–" }, { label: "training data", ...bars(-1, "--quiet") }, { label: "now", ...bars(1, "--accent") }],
    axes: [axis({ values: (_, at) => at.map(v => Number.isInteger(v) ? labels[v] ?? "" : "") }), axis({ size: 60, values: (_, at) => at.map(v => `${(100 * v).toFixed(0)} %`) })],
  }, [labels.map((_, at) => at), reference, current]);
}
