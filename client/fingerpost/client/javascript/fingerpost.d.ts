/** An encoded image: JPEG, PNG and the like. A `File` is a `Blob`, Node's `Buffer` a typed array. */
export type Image = Blob | ArrayBuffer | ArrayBufferView;

/** Milliseconds that an image spent in the worker. */
export interface Timings {
  decode: number;
  queue: number;
  inference: number;
}

/** What every answer has. */
export interface Answer {
  model: string;
  version: string;
  timings_ms?: Timings;
  /** URL of the worker that answered. */
  worker: string;
  /** How many workers were asked. */
  attempts: number;
}

export interface Prediction {
  label: string;
  /** From 0 to 1. */
  score: number;
}

export interface Classification extends Answer {
  /** Best first. */
  predictions: Prediction[];
}

export interface ImageOptions {
  /** How many labels, 0 for all; 5 by default. */
  top?: number;
  /** How long the image may take in all, with retries. */
  timeoutMs?: number;
  signal?: AbortSignal;
}

export interface StreamOptions extends ImageOptions {
  /** How many images at once, 8 by default. Browsers open six connections to one host. */
  concurrency?: number;
  /** Whether answers come in the order of the images. */
  ordered?: boolean;
}

export interface StreamAnswer {
  /** The image's number, from 0. */
  index: number;
  /** The image's key, or else a file's name. */
  key: unknown;
  /** Absent where the image failed. */
  result?: Classification;
  error?: FingerpostError;
}

export interface ClientOptions {
  /** The caller's key, for proxies that ask for one. Whoever can read the page can read it. */
  key?: string;
  /** 30,000 by default. */
  timeoutMs?: number;
  /** How many workers an image is sent to at most, 4 by default; overload does not count. */
  attempts?: number;
  fetch?: typeof fetch;
}

export interface WorkerView {
  id: string;
  url: string;
  /** Requests of this client. */
  inFlight: number;
}

/** Every failure. `code` is the server's, such as `bad_image`, or `timeout` or `aborted`. */
export class FingerpostError extends Error {
  constructor(
    code: string,
    message: string,
    more?: { retryable?: boolean; status?: number; retryAfterS?: number; cause?: unknown },
  );
  readonly code: string;
  readonly retryable: boolean;
  /** The HTTP status; 0 where no answer came. */
  readonly status: number;
  readonly retryAfterS: number | undefined;
}

/** A client of the models of one cluster: resolves, spreads images by load, retries. */
export class Client {
  /** @param proxies URL of a proxy, or of several: the next one is asked where one fails. */
  constructor(proxies: string | readonly string[], options?: ClientOptions);
  /** Classify an image by `flowers`, `flowers@3` or `flowers@stable`. */
  classify(model: string, image: Image, options?: ImageOptions): Promise<Classification>;
  /** Ask a model of any task; the answer has the members of its task. */
  infer(model: string, image: Image, options?: ImageOptions): Promise<Answer & Record<string, unknown>>;
  /** Classify many; an image that fails does not end the others. */
  stream(
    model: string,
    images:
      | Iterable<Image | readonly [key: unknown, image: Image]>
      | AsyncIterable<Image | readonly [key: unknown, image: Image]>,
    options?: StreamOptions,
  ): AsyncGenerator<StreamAnswer, void, undefined>;
  /** The workers of a model now. */
  resolve(model: string, options?: { signal?: AbortSignal }): Promise<WorkerView[]>;
}
