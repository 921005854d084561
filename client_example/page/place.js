// Our place in a session: taken anew, taken again, or beside an assistant; what was asked of it.

/** `prompt` is what is wanted; `sessionId` and `voice` are as the server answered. */
export class Place {
  sessionId = null;
  voice = "both"; // who is spoken by the face
  prompt = "";
  wishes = { portraitId: "default", sessionId: null, voice: undefined };
  #server;
  #asked = ""; // the prompt that the session has
  #token = null; // takes our place in the session again

  constructor(server) {
    this.#server = server;
  }

  /** Whether the session was made by somebody else. */
  get joined() {
    return this.wishes.sessionId !== null;
  }

  /** The prompt that the session was asked for. */
  get asked() {
    return this.#asked;
  }

  /** Leave; a session of our own ends. */
  async leave() {
    const { sessionId } = this;
    this.forget();
    if (sessionId && !this.joined) await this.#server.end(sessionId);
  }

  /** The session is over. */
  forget() {
    this.sessionId = this.#token = null;
  }

  /**
   * Send an offer: resolves to the answer, or to null if `wanted()` does not hold any more. A session that is over is
   * joined or made anew.
   */
  async take(description, wanted) {
    if (this.#token) {
      try {
        const answer = await this.#server.offer(description, { resume: this.#token });
        return wanted() ? this.#taken(answer) : null;
      } catch (error) {
        if (error.code !== "unknown_session") throw error;
        if (!wanted()) return null;
        this.forget();
      }
    }
    const { portraitId, voice } = this.wishes;
    this.#asked = this.joined ? "" : this.prompt;
    const made = { portrait_id: portraitId, prompt: this.#asked, voice };
    const answer = await this.#server.offer(description, this.joined ? { session_id: this.wishes.sessionId } : made);
    if (wanted()) return this.#taken(answer);
    if (!this.joined) await this.#server.end(answer.session_id);
    return null;
  }

  #taken(answer) {
    this.sessionId = answer.session_id;
    this.#token = answer.resume;
    this.voice = answer.voice;
    return answer;
  }

  addCandidates(candidates) {
    return this.#server.addCandidates(this.sessionId, candidates);
  }

  show(portraitId) {
    this.wishes.portraitId = portraitId;
    return this.#server.change(this.sessionId, { portrait_id: portraitId });
  }

  /** Send the wanted words to the session, if there is one and it has others; refused, those it has are wanted again. */
  async express() {
    const { sessionId, prompt } = this;
    if (!sessionId || prompt === this.#asked) return;
    try {
      await this.#server.change(sessionId, { prompt });
      this.#asked = prompt;
    } catch (error) {
      if (sessionId !== this.sessionId) return; // the session is over: the next offer carries them
      if (this.prompt === prompt) this.prompt = this.#asked;
      throw error;
    }
  }
}
