// The server, as this page knows it: requests, streams of events, and errors in words.

const SILENT = "The server does not answer. Your picture, mask and fills are safe in this page: start the server again, then retry.";

export class ApiError extends Error {
  constructor(message, status, after = 0) {
    super(message);
    Object.assign(this, { status, after });
  }
}

export class Api {
  /** `ask(refused)` lets the person give the token, where the server wants one, or another. */
  constructor(ask) {
    this.ask = ask;
    const given = new URLSearchParams(location.hash.slice(1)).get("token");
    if (given) {
      sessionStorage.setItem("token", given);
      history.replaceState(null, "", location.pathname);
    }
  }

  /** The response, if it is a good one; ApiError otherwise. */
  async request(path, options = {}) {
    const token = sessionStorage.getItem("token");
    const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
    let response;
    try {
      response = await fetch(`/api/v1${path}`, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(SILENT, 0);
    }
    if (response.ok) return response;
    if (response.status === 401) {
      const other = await this.ask(Boolean(token));
      if (!other) throw new ApiError("This server asks for its token: retry to give it.", 401);
      sessionStorage.setItem("token", other);
      return this.request(path, options);
    }
    const { detail = `The server answered ${response.status}.` } = await response.json().catch(() => ({}));
    throw new ApiError(sentence(detail), response.status, Number(response.headers.get("Retry-After")));
  }

  async json(path) {
    return (await this.request(path)).json();
  }

  async blob(path) {
    return (await this.request(path)).blob();
  }

  /** The events of a posted form, as [name, data]; one that tells of an error is thrown. */
  async *events(path, fields, signal) {
    const body = new FormData();
    for (const [name, value] of Object.entries(fields)) body.append(name, value);
    const response = await this.request(path, { method: "POST", body, signal, headers: { Accept: "text/event-stream" } });
    for await (const block of blocks(response.body)) {
      const [, name] = /^event: (.*)$/m.exec(block);
      const data = JSON.parse(/^data: (.*)$/m.exec(block)[1]);
      if (name === "error") throw new ApiError(sentence(data.detail), 422);
      yield [name, data];
      if (name === "done") return;
    }
    throw new ApiError(SILENT, 0); // it broke off
  }
}

/** The stream's text, cut at empty lines. */
async function* blocks(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let parts = [];
  for (;;) {
    let read;
    try {
      read = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(SILENT, 0);
    }
    if (read.done) return;
    // A block of a large picture comes in many parts: they are put together once.
    let rest = read.value;
    for (let end = boundary(parts, rest); end !== null; end = boundary(parts, rest)) {
      const whole = parts.join("") + rest;
      const at = whole.indexOf("\n\n");
      yield whole.slice(0, at);
      [parts, rest] = [[], whole.slice(at + 2)];
    }
    if (rest) parts.push(rest);
  }
}

function boundary(parts, rest) {
  return rest.includes("\n\n") || (rest.startsWith("\n") && parts.at(-1)?.endsWith("\n")) ? true : null;
}

function sentence(text) {
  const whole = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

/** Bytes of a base64 text, as a PNG file. */
export function png(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type: "image/png" });
}
