// The exporter's API: conditional requests, and three ways to fail.

const PATIENCE_MS = 10000;
const LONGEST = 7000; // characters of a query: servers refuse heads of 8 KB

// The exporter says that the request is wrong.
export class RequestError extends Error {}

// The exporter does not answer, or not as itself.
export class AwayError extends Error {}

// One kind of document, asked for again and again. A new request ends one that is under way.
export class Resource {
  #path;
  #query = null;
  #etag = null;
  #running = null;

  constructor(path) {
    this.#path = path;
  }

  // The document if it is another than the last time; null if not, or if a later call took over.
  async load(parameters = []) {
    const query = new URLSearchParams(parameters).toString();
    this.#running?.abort();
    if (query.length > LONGEST)
      throw new RequestError("A name is too long to ask for; the table has its numbers.");
    const running = new AbortController();
    this.#running = running;
    if (query !== this.#query) this.#etag = null;
    this.#query = query;
    try {
      return await this.#fetch(
        query,
        AbortSignal.any([running.signal, AbortSignal.timeout(PATIENCE_MS)]),
      );
    } catch (error) {
      if (running.signal.aborted) return null;
      throw error;
    }
  }

  // Forget the last answer, so that the next is one.
  forget() {
    this.#etag = null;
  }

  async #fetch(query, signal) {
    let response, document;
    try {
      response = await fetch(`api/v1/${this.#path}${query && "?"}${query}`, {
        signal,
        cache: "no-store", // the tag is ours to send, to be told that nothing is new
        headers: this.#etag ? { "If-None-Match": this.#etag } : {},
      });
      if (response.status === 304) return null;
      document = await response.json();
    } catch (error) {
      throw new AwayError(
        error.name === "TimeoutError"
          ? `no answer in ${PATIENCE_MS / 1000} s`
          : error instanceof SyntaxError
            ? `it answered ${response.status}, not with JSON`
            : "no connection",
      );
    }
    if (response.status === 400 || response.status === 404) throw new RequestError(document.error);
    if (!response.ok || document.version !== 1)
      throw new AwayError(`it answered ${response.status}`);
    this.#etag = response.headers.get("ETag");
    return document;
  }
}
