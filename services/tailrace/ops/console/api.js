// The admin API as the page uses it.

export class Refused extends Error {
  constructor(status, detail) {
    super(typeof detail === "string" ? detail : JSON.stringify(detail));
    this.status = status;
  }
}

export async function ask(path, options = {}) {
  const response = await fetch(`api/v1/${path}`, options);
  const body = response.status === 204 ? null : await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, body?.detail ?? response.statusText);
  return body;
}

export const post = (path, body) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

export const signIn = token => ask("session", { method: "POST", headers: { Authorization: `Bearer ${token}` } });

// Calls `take` with every snapshot. The browser reconnects by itself while the service is away.
export function watch(take) {
  const source = new EventSource("api/v1/state/stream");
  source.addEventListener("state", event => take(JSON.parse(event.data)));
  return source;
}
