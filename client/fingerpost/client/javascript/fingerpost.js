// @ts-check
/**
 * The client of Fingerpost for browsers and for Node 18 and newer: asks a proxy where a model's
 * workers are, and sends images straight to them. One file, no build step, nothing to install.
 *
 *     import { Client } from "http://proxy.example:12480/fingerpost.js";
 *     const client = new Client("http://proxy.example:12480");
 *     const { predictions } = await client.classify("flowers", file);
 *
 * Proxy and workers must allow the page's origin (`--allow-origin`). docs/javascript.md has more.
 */

const CAUSES = { ECONNREFUSED: 1, EHOSTUNREACH: 1, ENETUNREACH: 1, ENOTFOUND: 1, EAI_AGAIN: 1 };
const MAX_ANSWER_BYTES = 64 << 20;
const FIRST_PAUSE_MS = 1000; // for which a worker that failed is left out; doubles each time
const LONGEST_PAUSE_MS = 30_000;
const OVERLOAD_MS = 50;

/**
 * Whatever went wrong: `code` is one of the codes of docs/errors, such as `no_worker` or
 * `bad_image`; or `timeout`, `aborted`.
 */
export class FingerpostError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {{retryable?: boolean, status?: number, retryAfterS?: number, cause?: unknown}} [more]
   */
  constructor(code, message, more = {}) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause });
    this.name = "FingerpostError";
    /** Which error it is. */
    this.code = code;
    /** Whether another worker, or a later time, may succeed. */
    this.retryable = more.retryable ?? false;
    /** The HTTP status, 0 where no answer came. */
    this.status = more.status ?? 0;
    /** Seconds after which it may succeed, where that is known. */
    this.retryAfterS = more.retryAfterS;
  }
}

/**
 * A worker as this client sees it. `inFlight` counts this client's own requests; `reported` is what
 * the worker said of itself last, less what was this client's own.
 *
 * @typedef {object} Worker
 * @property {string} id
 * @property {string} url
 * @property {number} bootId
 * @property {number} weight
 * @property {number} inFlight
 * @property {number} reported
 * @property {number} slots
 * @property {number} failures
 * @property {number} outUntil  time in ms until which it is left out
 */

/**
 * What a proxy answered, and when it was asked, in ms.
 *
 * @typedef {{workers: Worker[], lease: string, freshUntil: number, askedAt: number}} Snapshot
 */

/** A client of the models of one cluster. */
export class Client {
  /**
   * @param {string | string[]} proxies  URLs of proxies; the next one is asked where one fails
   * @param {{key?: string, timeoutMs?: number, attempts?: number, fetch?: typeof fetch}} [options]
   */
  constructor(proxies, options = {}) {
    const urls = typeof proxies === "string" ? [proxies] : [...proxies];
    if (urls.length === 0) throw new TypeError("give the URL of at least one proxy");
    this._proxies = urls.map((each) => {
      const url = new URL(each);
      if (url.protocol !== "http:" && url.protocol !== "https:") {
        throw new TypeError(`${each} is not the URL of a proxy: it begins with http:// or https://`);
      }
      return url.href.replace(/\/+$/, "");
    });
    this._key = options.key;
    this._timeoutMs = positive("timeoutMs", options.timeoutMs ?? 30_000);
    this._attempts = positive("attempts", options.attempts ?? 4);
    this._fetch = options.fetch ?? globalThis.fetch.bind(globalThis);
    /** @type {Map<string, Snapshot>} */
    this._snapshots = new Map();
    /** @type {Map<string, Promise<Snapshot>>} */
    this._asking = new Map();
    /** @type {Map<string, Worker>} */
    this._workers = new Map();
    this._proxy = 0;
    this._budget = 10; // of retries: each image adds a fifth, ten at most
  }

  /**
   * The workers of a model now. Raises `no_worker` and `unknown_service` as the proxy does.
   *
   * @param {string} model  `flowers`, `flowers@3` or `flowers@stable`
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<{id: string, url: string, inFlight: number}[]>}
   */
  async resolve(model, options = {}) {
    const until = new Deadline(this._timeoutMs, options.signal);
    try {
      const { workers } = await until.race(this._snapshot(model, 0));
      return workers.map(({ id, url, inFlight }) => ({ id, url, inFlight }));
    } finally {
      until.end();
    }
  }

  /**
   * Classify one image.
   *
   * @param {string} model  `flowers`, `flowers@3` or `flowers@stable`
   * @param {Blob | ArrayBuffer | ArrayBufferView} image  an encoded image, such as a File
   * @param {{top?: number, timeoutMs?: number, signal?: AbortSignal}} [options]
   */
  async classify(model, image, options = {}) {
    const answer = await this._send("classify", model, image, options);
    const { predictions } = answer;
    if (!Array.isArray(predictions)) {
      throw new FingerpostError("bad_answer", `${answer.worker} answered without predictions`);
    }
    const named = predictions.map(([label, score]) => ({ label, score }));
    return { ...answer, predictions: named };
  }

  /**
   * Ask a model of any task for one image: the answer has the members of its task, as in JSON.
   *
   * @param {string} model
   * @param {Blob | ArrayBuffer | ArrayBufferView} image
   * @param {{top?: number, timeoutMs?: number, signal?: AbortSignal}} [options]
   */
  async infer(model, image, options = {}) {
    return await this._send("infer", model, image, options);
  }

  /**
   * Classify many images, `concurrency` at once; an image that fails does not end the others.
   * Gives `{index, key, result}` or `{index, key, error}` as they are done, or in order.
   *
   * @param {string} model
   * @param {Iterable<any> | AsyncIterable<any>} images  files, or pairs of a key and an image
   * @param {{concurrency?: number, ordered?: boolean, top?: number, timeoutMs?: number,
   *          signal?: AbortSignal}} [options]
   */
  async *stream(model, images, options = {}) {
    const { concurrency = 8, ordered = false, ...each } = options;
    positive("concurrency", concurrency);
    const source = Symbol.asyncIterator in images
      ? images[Symbol.asyncIterator]() : images[Symbol.iterator]();
    const stopped = new Stop();
    const signal = /** @type {any} */ (stopped);
    const stop = () => stopped.abort();
    if (each.signal?.aborted) stop();
    each.signal?.addEventListener("abort", stop);
    /** @type {Map<number, Promise<any>>} */
    const running = new Map();
    let index = 0;
    let more = true;
    try {
      while (true) {
        while (more && running.size < concurrency && !stopped.aborted) {
          const { done, value } = await source.next();
          if (done) {
            more = false;
            break;
          }
          const number = index++;
          const pair = Array.isArray(value);
          const key = pair ? value[0] : value?.name;
          const image = pair ? value[1] : value;
          running.set(number, this.classify(model, image, { ...each, signal }).then(
            (result) => ({ index: number, key, result }),
            (error) => ({ index: number, key, error }),
          ));
        }
        if (running.size === 0) break;
        const first = Math.min(...running.keys());
        const answer = await (ordered ? running.get(first) : Promise.race(running.values()));
        running.delete(answer.index);
        if (stopped.aborted) break;
        yield answer;
      }
      if (stopped.aborted) throw aborted(each.signal?.reason);
    } finally {
      // A loop that is left early leaves nothing behind.
      each.signal?.removeEventListener("abort", stop);
      stopped.abort();
      await Promise.allSettled(running.values());
      if (more) await source.return?.();
    }
  }

  /**
   * @param {"classify" | "infer"} kind
   * @param {string} model
   * @param {any} image
   * @param {{top?: number, timeoutMs?: number, signal?: AbortSignal}} options
   * @returns {Promise<any>}
   */
  async _send(kind, model, image, options) {
    checkImage(image);
    const timeoutMs = positive("timeoutMs", options.timeoutMs ?? this._timeoutMs);
    const until = new Deadline(timeoutMs, options.signal);
    this._budget = Math.min(10, this._budget + 0.2);
    const query = options.top === undefined ? "" : `?top=${encodeURIComponent(options.top)}`;
    const path = `/v1/${kind}/${encodeURIComponent(model).replaceAll("%40", "@")}${query}`;
    const tried = new Set();
    let silences = 0;
    let attempts = 0;
    let stale = 0; // the time before which an answer of the proxy is not used again
    try {
      while (true) {
        const snapshot = await until.race(this._snapshot(model, stale));
        const worker = pick(snapshot.workers, tried);
        attempts += 1;
        tried.add(worker.id);
        try {
          const answer = await this._ask(worker, snapshot.lease, path, image, until, silences > 0);
          worker.failures = 0;
          return { ...answer, attempts };
        } catch (error) {
          until.check(error);
          const failed = asError(error, worker);
          if (!failed.retryable) throw failed;
          const overloaded = failed.status === 429;
          if (failed.code === "unreachable" && !refused(error)) silences += 1;
          // An image on which two workers fell silent may be why they did.
          if (silences >= 2) throw failed;
          if (!overloaded) {
            if (failed.status !== 401) leaveOut(worker);
            stale = Date.now();
            if (attempts >= this._attempts || this._budget < 1) throw failed;
            this._budget -= 1;
          } else if (tried.size >= snapshot.workers.length) {
            // All are busy: wait, for as long as there is time.
            tried.clear();
            const pause = (failed.retryAfterS ?? 0) * 1000 || OVERLOAD_MS * attempts;
            await until.race(sleep(Math.min(pause, 1000) * (0.5 + Math.random())));
          }
        }
      }
    } finally {
      until.end();
    }
  }

  /**
   * @param {Worker} worker
   * @param {string} lease
   * @param {string} path
   * @param {any} image
   * @param {Deadline} until
   * @param {boolean} suspect
   */
  async _ask(worker, lease, path, image, until, suspect) {
    /** @type {Record<string, string>} */
    const headers = {
      Accept: "application/json",
      "Content-Type": "application/octet-stream",
      "Fingerpost-Deadline-Ms": String(until.leftMs()),
    };
    if (lease) headers.Authorization = `Bearer ${lease}`;
    if (worker.bootId) headers["Fingerpost-Boot-Id"] = String(worker.bootId);
    if (suspect) headers["Fingerpost-Suspect"] = "1";
    worker.inFlight += 1;
    let reported = null;
    try {
      const response = await this._fetch(worker.url + path, {
        method: "POST", body: image, headers, signal: until.signal, ...QUIET,
      });
      reported = response.headers.get("endpoint-load-metrics");
      const body = await json(response, worker.url);
      const result = body?.results?.[0];
      if (typeof result !== "object" || result === null) {
        throw new FingerpostError("bad_answer", `${worker.url} answered without a result`, {
          retryable: true, status: response.status,
        });
      }
      if (result.error) throw errorOf(result.error, response);
      const { name: _name, ...rest } = result;
      return { model: body.model, version: body.version, ...rest, worker: worker.url };
    } finally {
      worker.inFlight -= 1;
      if (reported) readLoad(worker, reported);
    }
  }

  /**
   * @param {string} model
   * @param {number} after  an answer from before this time is not enough
   * @returns {Promise<Snapshot>}
   */
  async _snapshot(model, after) {
    const known = this._snapshots.get(model);
    if (known && known.freshUntil > Date.now() && known.askedAt > after) return known;
    let asking = this._asking.get(model);
    if (asking === undefined) {
      asking = this._resolve(model).finally(() => this._asking.delete(model));
      this._asking.set(model, asking);
    }
    try {
      return await asking;
    } catch (error) {
      // While no proxy answers, what is known is used on.
      if (known && error instanceof FingerpostError && error.code === "unreachable") return known;
      throw error;
    }
  }

  /** @param {string} model */
  async _resolve(model) {
    const path = `/v1/resolve/${encodeURIComponent(model).replaceAll("%40", "@")}`;
    /** @type {Record<string, string>} */
    const headers = { Accept: "application/json" };
    if (this._key) headers.Authorization = `Bearer ${this._key}`;
    /** @type {FingerpostError | undefined} */
    let last;
    for (let turn = 0; turn < this._proxies.length; turn += 1) {
      const proxy = this._proxies[(this._proxy + turn) % this._proxies.length];
      const askedAt = Date.now();
      try {
        const signal = AbortSignal.timeout(Math.min(this._timeoutMs, 10_000));
        const response = await this._fetch(proxy + path, { headers, signal, ...QUIET });
        const body = await json(response, proxy);
        this._proxy = (this._proxy + turn) % this._proxies.length;
        return this._keep(model, body, askedAt, proxy);
      } catch (error) {
        last = error instanceof FingerpostError ? error : new FingerpostError(
          "unreachable", `the proxy ${proxy} cannot be reached, or does not allow this page `
            + `(--allow-origin): ${text(error)}`, { retryable: true, cause: error },
        );
        // Another proxy knows no more of a name than this one.
        if (last.status && last.status < 500) throw last;
      }
    }
    throw /** @type {FingerpostError} */ (last);
  }

  /**
   * @param {string} model
   * @param {any} body
   * @param {number} askedAt
   * @param {string} proxy
   */
  _keep(model, body, askedAt, proxy) {
    if (!Array.isArray(body?.instances)) {
      throw new FingerpostError("bad_answer", `${proxy} answered without instances`);
    }
    const ours = body.instances.filter(
      (each) => typeof each?.id === "string" && typeof each.address === "string"
        && (each.meta?.protocol ?? "fingerpost") === "fingerpost",
    );
    if (ours.length === 0) {
      throw new FingerpostError(
        "no_worker", `${model} has no worker that speaks Fingerpost's protocol`,
        { retryable: true, status: 503 },
      );
    }
    const workers = ours.map((each) => {
      const url = `${each.meta?.scheme === "https" ? "https" : "http"}://${each.address}`;
      const known = this._workers.get(each.id);
      const worker = known?.url === url ? known : {
        id: each.id, url, bootId: 0, weight: 1, inFlight: 0, reported: 0, slots: 1, failures: 0,
        outUntil: 0,
      };
      worker.bootId = each.boot_id || 0;
      worker.weight = Math.max(1, each.weight || 1);
      if (each.load) {
        worker.reported = Math.max(0, (each.load.rif || 0) - worker.inFlight);
        worker.slots = Math.max(1, each.load.slots || 1);
      }
      this._workers.set(each.id, worker);
      return worker;
    });
    const leaseMs = Math.max(0, Number(body.lease_s) || 0) * 1000;
    const snapshot = {
      workers, lease: body.lease ?? "", freshUntil: Date.now() + leaseMs, askedAt,
    };
    this._snapshots.set(model, snapshot);
    this._forget();
    return snapshot;
  }

  /** Forget workers that no model has any more, and models that were not asked for lately. */
  _forget() {
    const old = Date.now() - 600_000;
    for (const [model, { freshUntil }] of this._snapshots) {
      if (freshUntil < old) this._snapshots.delete(model);
    }
    const listed = new Set();
    for (const { workers } of this._snapshots.values()) workers.forEach(({ id }) => listed.add(id));
    for (const id of this._workers.keys()) if (!listed.has(id)) this._workers.delete(id);
  }
}

// A worker cannot send a request elsewhere, and gets no cookie.
/** @type {RequestInit} */
const QUIET = { redirect: "error", credentials: "omit", cache: "no-store" };

/**
 * What a `Deadline` needs of an AbortSignal, for any number of them: Node writes a warning when
 * over ten listen to one signal.
 */
class Stop {
  constructor() {
    this.aborted = false;
    this.reason = undefined;
    /** @type {Set<() => void>} */
    this._listeners = new Set();
  }

  /** @param {string} _ @param {() => void} listener */
  addEventListener(_, listener) {
    this._listeners.add(listener);
  }

  /** @param {string} _ @param {() => void} listener */
  removeEventListener(_, listener) {
    this._listeners.delete(listener);
  }

  abort() {
    if (this.aborted) return;
    this.aborted = true;
    for (const listener of [...this._listeners]) listener();
  }
}

/** The time that one image has, and the caller's wish to end it before. */
class Deadline {
  /** @param {number} ms @param {AbortSignal} [signal] */
  constructor(ms, signal) {
    this._ms = ms;
    this._at = Date.now() + ms;
    this._outer = signal;
    this._controller = new AbortController();
    this.signal = this._controller.signal;
    this._stop = () => this._controller.abort();
    this._timer = setTimeout(this._stop, ms);
    if (signal?.aborted) this._stop();
    signal?.addEventListener("abort", this._stop);
    /** @type {Promise<never>} */
    this._over = new Promise((_, reject) => {
      const fail = () => reject(this._error());
      if (this.signal.aborted) fail();
      else this.signal.addEventListener("abort", fail);
    });
    this._over.catch(() => undefined);
  }

  leftMs() {
    return Math.max(1, this._at - Date.now());
  }

  /** @template T @param {Promise<T>} promise @returns {Promise<T>} */
  race(promise) {
    return Promise.race([promise, this._over]);
  }

  /** Raise what ended it, if it is over. @param {unknown} error */
  check(error) {
    if (this.signal.aborted) throw this._error(error);
  }

  /** @param {unknown} [cause] */
  _error(cause) {
    if (this._outer?.aborted) return aborted(this._outer.reason);
    return new FingerpostError("timeout", `no answer within ${this._ms} ms`, { cause });
  }

  end() {
    clearTimeout(this._timer);
    this._outer?.removeEventListener("abort", this._stop);
  }
}

/**
 * The less loaded of two workers chosen at random, of those not tried and not left out
 * (https://www.eecs.harvard.edu/~michaelm/postscripts/handbook2001.pdf).
 *
 * @param {Worker[]} workers
 * @param {Set<string>} tried
 */
function pick(workers, tried) {
  const now = Date.now();
  const fresh = workers.filter((each) => !tried.has(each.id));
  const among = fresh.length ? fresh : workers;
  const well = among.filter((each) => each.outUntil <= now);
  // Where all have failed, that which failed longest ago may be well again.
  if (!well.length) return among.reduce((a, b) => (a.outUntil <= b.outUntil ? a : b));
  const first = Math.floor(Math.random() * well.length);
  const second = (first + 1 + Math.floor(Math.random() * (well.length - 1))) % well.length;
  return load(well[first]) <= load(well[second]) ? well[first] : well[second];
}

/** @param {Worker} worker */
function load(worker) {
  return (worker.inFlight + worker.reported) / (worker.slots * worker.weight);
}

/** @param {Worker} worker @param {string} header  in ORCA's text form */
function readLoad(worker, header) {
  const rif = /named_metrics\.rif=(\d+)/.exec(header);
  const slots = /named_metrics\.slots=(\d+)/.exec(header);
  if (rif) worker.reported = Math.max(0, Number(rif[1]) - worker.inFlight);
  if (slots) worker.slots = Math.max(1, Number(slots[1]));
}

/** @param {Worker} worker */
function leaveOut(worker) {
  const pause = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** worker.failures);
  worker.failures += 1;
  worker.outUntil = Date.now() + pause;
}

/** @param {Response} response @param {string} peer */
async function json(response, peer) {
  const length = Number(response.headers.get("content-length") ?? 0);
  if (length > MAX_ANSWER_BYTES) {
    throw new FingerpostError("bad_answer", `${peer} answered with ${length} bytes`, {
      retryable: true, status: response.status,
    });
  }
  let body;
  try {
    body = await response.json();
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    throw new FingerpostError("bad_answer", `${peer} answered ${response.status} without JSON`, {
      retryable: true, status: response.status, cause,
    });
  }
  if (response.ok) return body;
  throw errorOf(body?.error ?? {}, response);
}

/** @param {any} error @param {Response} response */
function errorOf(error, response) {
  const seconds = Number(error.retry_after_s ?? response.headers.get("retry-after"));
  return new FingerpostError(
    String(error.code ?? "bad_answer"), String(error.message ?? `status ${response.status}`), {
      // Another process has the address, or the lease is over: a fresh answer of the proxy helps.
      retryable: Boolean(error.retryable) || response.status === 421 || response.status === 401,
      status: response.status,
      // More than an hour is a mistake more often than a wish.
      retryAfterS: seconds > 0 && seconds <= 3600 ? seconds : undefined,
    },
  );
}

/** @param {unknown} error @param {Worker} worker */
function asError(error, worker) {
  if (error instanceof FingerpostError) return error;
  return new FingerpostError(
    "unreachable", `${worker.url} did not answer, or does not allow this page (--allow-origin): `
      + text(error), { retryable: true, cause: error },
  );
}

/** Whether nothing was sent: Node says so, browsers do not. @param {any} error */
function refused(error) {
  return (error?.cause?.code ?? error?.code) in CAUSES;
}

/** @param {any} error */
function text(error) {
  return error?.cause?.message || error?.message || String(error);
}

/** @param {unknown} [cause] */
function aborted(cause) {
  return new FingerpostError("aborted", "the caller ended it", { cause });
}

/** @param {number} ms @returns {Promise<void>} */
function sleep(ms) {
  return new Promise((done) => {
    setTimeout(done, ms);
  });
}

/** @param {string} name @param {number} value */
function positive(name, value) {
  if (!(value > 0)) throw new TypeError(`${name} is ${value}: give a number above 0`);
  return value;
}

/** @param {any} image */
function checkImage(image) {
  if (!(image instanceof Blob || image instanceof ArrayBuffer || ArrayBuffer.isView(image))) {
    throw new TypeError(
      `${typeof image} is not an image: give a File, a Blob, an ArrayBuffer or a typed array with `
        + "an encoded image",
    );
  }
  if ((image instanceof Blob ? image.size : image.byteLength) === 0) {
    throw new FingerpostError("bad_image", "the image has no bytes");
  }
}
