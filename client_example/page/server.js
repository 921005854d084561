// The HTTP side of the server: one method a route. Without a base, paths are relative, so a proxy may add a prefix.

const RESUME_LIMIT_MS = 3_000; // taking a place again is quick, or it is not to be
const LIMIT_MS = 15_000;

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

export class Server {
  #base;
  #token;

  /** `base`: the address of another server; "" is the one that the page came from. `token()`: a session token, or null. */
  constructor(base = "", token = () => null) {
    this.#base = base && new URL(base, document.baseURI).href.replace(/\/*$/, "/");
    this.#token = token;
  }

  config = () => this.#get("api/config");
  portraits = async () => (await this.#get("api/portraits")).portraits;

  /** Address for an <img>, which cannot send a header. */
  portraitImage(id) {
    const token = this.#token();
    const query = token ? `?token=${encodeURIComponent(token)}` : "";
    return `${this.#base}api/portraits/${encodeURIComponent(id)}/image${query}`;
  }

  /**
   * Register a picture (a Blob); resolves to {id, width, height, notices, faces, face}. `face` counts from the left; the
   * largest talks without it. `consent` is {who, purpose}: who is in it agrees; null where the server asks for none.
   */
  async addPortrait(picture, face, consent = null) {
    const type = picture.type.startsWith("image/") ? picture.type : "application/octet-stream"; // all that the server takes
    const headers = { ...this.#headers(type), ...(consent && { Consent: encodeURIComponent(JSON.stringify(consent)) }) };
    const signal = AbortSignal.timeout(60_000);
    const url = `${this.#base}api/portraits${face ? `?face=${face}` : ""}`;
    return (await check(await fetch(url, { method: "POST", headers, body: picture, signal }))).json();
  }

  /**
   * Send an offer; resolves to {sdp, type, session_id, resume, voice}. `wishes` are further fields: portrait_id, prompt
   * and voice of a new session, or session_id to join one, or resume to take one's place in it again.
   */
  async offer(description, wishes) {
    const body = { sdp: description.sdp, type: description.type, ...wishes };
    const limit = wishes.resume ? RESUME_LIMIT_MS : LIMIT_MS;
    return (await check(await this.#json("POST", "api/offer", body, limit))).json();
  }

  /** Send ICE candidates found after the offer left. */
  async addCandidates(sessionId, candidates) {
    await check(await this.#json("PATCH", "api/offer", { session_id: sessionId, candidates }));
  }

  /** Change the prompt or portrait_id of a session from its next frame on. */
  async change(sessionId, changes) {
    await check(await this.#json("PATCH", `api/sessions/${encodeURIComponent(sessionId)}`, changes));
  }

  /** Free a session. `keepalive` lets the request outlive the page. */
  async end(sessionId) {
    const url = `${this.#base}api/sessions/${encodeURIComponent(sessionId)}`;
    const signal = AbortSignal.timeout(3_000);
    await fetch(url, { method: "DELETE", headers: this.#headers(), keepalive: true, signal }).catch(() => {}); // else its watchdog frees it
  }

  #headers(type = null) {
    const token = this.#token();
    return { ...(type && { "Content-Type": type }), ...(token && { Authorization: `Bearer ${token}` }) };
  }

  async #get(path) {
    const signal = AbortSignal.timeout(10_000);
    return (await check(await fetch(this.#base + path, { headers: this.#headers(), signal }))).json();
  }

  #json(method, path, body, limit = LIMIT_MS) {
    const headers = this.#headers("application/json");
    const signal = AbortSignal.timeout(limit);
    return fetch(this.#base + path, { method, headers, body: JSON.stringify(body), signal });
  }
}
