// The HTTP side of the server: one function a route. Paths are relative, so a proxy may add a prefix.

/** A refusal by the server: `code` is stable, `retryAfter` is seconds or null. */
export class ServerError extends Error {
  constructor(status, code, message, retryAfter) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

async function check(response) {
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const seconds = Number.parseFloat(response.headers.get("Retry-After"));
  throw new ServerError(
    response.status,
    body.error?.code ?? "unknown",
    body.error?.message ?? `HTTP ${response.status}`,
    Number.isFinite(seconds) ? seconds : null,
  );
}

async function get(path) {
  return (await check(await fetch(path, { signal: AbortSignal.timeout(10_000) }))).json();
}

function json(method, path, body) {
  const headers = { "Content-Type": "application/json" };
  return fetch(path, { method, headers, body: JSON.stringify(body), signal: AbortSignal.timeout(15_000) });
}

export const getConfig = () => get("api/config");
export const getPortraits = async () => (await get("api/portraits")).portraits;
export const portraitImage = (id) => `api/portraits/${encodeURIComponent(id)}/image`;

/** Register a picture (a Blob); resolves to {id, width, height}. */
export async function postPortrait(picture) {
  const type = picture.type.startsWith("image/") ? picture.type : "application/octet-stream"; // all that the server takes
  const headers = { "Content-Type": type };
  const signal = AbortSignal.timeout(60_000);
  return (await check(await fetch("api/portraits", { method: "POST", headers, body: picture, signal }))).json();
}

/** Send an offer; resolves to {sdp, type, session_id}. */
export async function postOffer(description, portraitId, prompt) {
  const body = { sdp: description.sdp, type: description.type, portrait_id: portraitId, prompt };
  return (await check(await json("POST", "api/offer", body))).json();
}

/** Send ICE candidates found after the offer left. */
export async function patchCandidates(sessionId, candidates) {
  await check(await json("PATCH", "api/offer", { session_id: sessionId, candidates }));
}

/** Change what a session's portrait expresses; resolves to the prompt as the server understood it. */
export async function patchPrompt(sessionId, prompt) {
  const path = `api/sessions/${encodeURIComponent(sessionId)}`;
  return (await (await check(await json("PATCH", path, { prompt }))).json()).prompt;
}

/** Free a session. `keepalive` lets the request outlive the page. */
export async function deleteSession(sessionId) {
  const path = `api/sessions/${encodeURIComponent(sessionId)}`;
  const signal = AbortSignal.timeout(3_000);
  await fetch(path, { method: "DELETE", keepalive: true, signal }).catch(() => {}); // else its watchdog frees it
}
