// Wires the page: sign-in, the stream of snapshots, actions.
import { ask, post, Refused, signIn, watch } from "./api.js";
import * as panels from "./panels.js";
import { age, element } from "./format.js";

const $ = id => document.getElementById(id);
const STALE_MS = 3000;
const HISTORY_EVERY_MS = 4000;
let state = null;
let heardAt = 0;
let points = null;

function show(snapshot) {
  state = snapshot;
  heardAt = Date.now();
  $("main").hidden = false;
  panels.status(state);
  panels.flow(state);
  panels.latency(state);
  panels.quality(state);
  panels.drift(state);
  panels.models(state, model => act(`Promote version ${model.model_version}`,
    `Version ${model.model_version} takes all traffic; version ${champion()} stays loaded for a rollback.`,
    reason => post(`models/${encodeURIComponent(model.model_version)}/promote`, { reason, epoch: state.routing?.epoch ?? 0 })));
  panels.retraining(state);
  panels.alarms(state);
  panels.deadLetters(state, replay, inspect);
  panels.workers(state);
  panels.audit(state);
}

const champion = () => state.routing?.variants[0].model_version ?? "none";

// Says how old everything is, and greys out what is old: all of it without snapshots, lags without an answer of the broker.
function ages() {
  if (!state) return;
  const silent = Date.now() - heardAt;
  $("as-of").textContent = `As of ${age(silent)} ago.`;
  for (const panel of document.querySelectorAll("[data-panel]")) {
    const asked = panel.dataset.panel === "flow" ? state.at_ms - state.flow.at_ms + silent : silent;
    panel.classList.toggle("stale", asked > STALE_MS * (panel.dataset.panel === "flow" ? 2 : 1));
  }
  if (silent > STALE_MS) {
    $("status").dataset.level = "down";
    $("status").textContent = "No answer from the ops service: the figures below are stale. Is it running? `tailrace status`";
  }
}

async function refreshHistory() {
  try {
    points = await ask("history");
    panels.history(points);
  } catch { /* the stream says so already */ }
}

async function act(title, effect, send) {
  const dialog = $("ask"), form = dialog.querySelector("form"), alert = dialog.querySelector("[role=alert]");
  $("ask-title").textContent = title;
  $("ask-effect").textContent = effect;
  $("ask-yes").textContent = title;
  alert.textContent = "";
  form.reset();
  form.onsubmit = async event => {
    if (event.submitter?.value !== "yes") return;
    event.preventDefault();
    try {
      await send(form.elements.reason.value);
      dialog.close();
    } catch (error) {
      alert.textContent = error.message;
    }
  };
  dialog.showModal();
}

function replay(code) {
  act(`Replay ${code}`, `Every dead letter with the reason ${code} that was not sent again yet goes back to the topic it came from. Mend the cause first, or it will return.`,
    reason => post("dead-letters/replay", { reason, code }));
}

async function inspect(letter) {
  const dialog = $("letter");
  const shown = await ask(`dead-letters/${letter.partition}/${letter.offset}`).catch(error => ({ detail: error.message }));
  const facts = Object.entries(shown).filter(([name]) => !["value", "value_base64", "source"].includes(name));
  dialog.querySelector("dl").replaceChildren(...facts.flatMap(([name, text]) => [element("dt", name), element("dd", String(text))]));
  dialog.querySelector("pre").textContent = shown.value ?? (shown.value_base64 ? `base64: ${shown.value_base64}` : "no value");
  dialog.showModal();
}

async function begin() {
  show(await ask("state"));
  $("login").hidden = true;
  await refreshHistory();
  watch(show);
  setInterval(refreshHistory, HISTORY_EVERY_MS);
  setInterval(ages, 500);
}

async function signInWith(token) {
  await signIn(token);
  await begin();
}

$("login").addEventListener("submit", event => {
  event.preventDefault();
  signInWith(event.target.elements.token.value.trim()).catch(error => {
    event.target.querySelector("[role=alert]").textContent = error.message;
  });
});
$("rollback").addEventListener("click", () => {
  const former = state.routing.warm[0].model_version;
  act("Roll back", `Version ${former}, which is still loaded, takes all traffic from version ${champion()}.`,
    reason => post("rollback", { reason, epoch: state.routing.epoch }));
});
$("retrain").addEventListener("click", () => act("Retrain now",
  "A new model is trained on what is known at the present stream time; it has to pass the gates like any other.",
  reason => post("retrain", { reason })));
$("trace").addEventListener("submit", async event => {
  event.preventDefault();
  const id = event.target.elements.id.value.trim();
  $("traced").textContent = "Searching the topics";
  try {
    panels.traced(await ask(`trace/${encodeURIComponent(id)}`));
  } catch (error) {
    $("traced").textContent = error.message;
  }
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => points && panels.history(points));
addEventListener("resize", () => { if (points) panels.history(points); if (state) { panels.quality(state); panels.drift(state); } });

const token = new URLSearchParams(location.hash.slice(1)).get("token");
if (token) history.replaceState(null, "", location.pathname);
(token ? signInWith(token) : begin()).catch(error => {
  $("login").hidden = false;
  $("status").textContent = error instanceof Refused && error.status === 401 ? "Not signed in" : error.message;
});
