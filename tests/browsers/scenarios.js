// What a program and a page do with the client; each of these is run in Node and in Chromium.
// Each gets the module, the proxy's URL, images by colour and `call(name)`, which asks the test.

function check(condition, text) {
  if (!condition) throw new Error(text);
}

async function failure(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("did not fail");
}

export const scenarios = {
  async "an image gets its labels"({ Client, proxy, images }) {
    const client = new Client(proxy);
    const answer = await client.classify("colours", images.red, { top: 2 });
    check(answer.predictions[0].label === "red", JSON.stringify(answer));
    check(answer.predictions.length === 2 && answer.predictions[0].score > 0.5, "two labels");
    check(answer.model === "colours" && answer.attempts === 1, JSON.stringify(answer));
    check(answer.worker.startsWith("http://127.0.0.1:"), answer.worker);
    const bytes = new Uint8Array(await images.blue.arrayBuffer());
    const task = await client.infer("colours", bytes);
    check(task.predictions[0][0] === "blue", JSON.stringify(task));
  },

  async "what is wrong has a code"({ Client, FingerpostError, proxy, images }) {
    const client = new Client(proxy);
    const broken = await failure(client.classify("colours", new Blob(["no image at all"])));
    check(broken instanceof FingerpostError && broken.status >= 400, String(broken));
    check(["bad_image", "unsupported_image"].includes(broken.code), broken.code);
    check(!broken.retryable, "no worker can read it");
    const unknown = await failure(client.classify("dogs", images.red));
    check(unknown.code === "unknown_service", unknown.code);
    const version = await failure(client.classify("colours@99", images.red));
    check(version.status === 404 || version.status === 503, `${version.code} ${version.status}`);
    const nothing = await failure(client.classify("colours", new Blob([])));
    check(nothing.code === "bad_image", nothing.code);
    check((await failure(client.classify("colours", "red.png"))) instanceof TypeError, "text");
    const away = new Client("http://127.0.0.1:1");
    const unreachable = await failure(away.classify("colours", images.red));
    check(unreachable.code === "unreachable", unreachable.code);
    check(unreachable.message.includes("--allow-origin"), unreachable.message);
    for (const wrong of ["", "proxy:12480", "ftp://proxy", []]) {
      let said;
      try {
        new Client(wrong);
      } catch (error) {
        said = error;
      }
      check(said instanceof TypeError, `${wrong} was taken`);
    }
  },

  async "time and the caller end an image"({ Client, proxy, images }) {
    const client = new Client(proxy);
    const late = await failure(client.classify("slow", images.red, { timeoutMs: 200 }));
    check(["timeout", "deadline_exceeded"].includes(late.code), late.code);
    const stop = new AbortController();
    setTimeout(() => stop.abort(), 100);
    const begun = Date.now();
    const stopped = await failure(client.classify("slow", images.red, { signal: stop.signal }));
    check(stopped.code === "aborted", stopped.code);
    check(Date.now() - begun < 900, "it waited for the answer");
    const before = new AbortController();
    before.abort();
    const never = await failure(client.classify("colours", images.red, { signal: before.signal }));
    check(never.code === "aborted", never.code);
  },

  async "a stream loses nothing when a worker is killed"({ Client, proxy, images, call }) {
    const client = new Client(proxy);
    const names = Object.keys(images);
    async function* many() {
      for (let n = 0; n < 300; n += 1) yield [n, images[names[n % names.length]]];
    }
    const shares = new Map();
    const seen = new Set();
    for await (const { index, key, result, error } of client.stream("colours", many())) {
      check(!error, `image ${index}: ${error}`);
      check(result.predictions[0].label === names[key % names.length], `image ${key}`);
      check(!seen.has(key), `${key} came twice`);
      seen.add(key);
      shares.set(result.worker, (shares.get(result.worker) ?? 0) + 1);
      if (seen.size === 100) await call("kill");
    }
    check(seen.size === 300, `${seen.size} of 300`);
    check(shares.size === 3, `workers: ${JSON.stringify([...shares])}`);
    check(Math.min(...shares.values()) > 10, `shares: ${JSON.stringify([...shares])}`);
  },

  async "a stream in order, with an image that fails, left early"({ Client, proxy, images }) {
    const client = new Client(proxy);
    let closed = false;
    async function* mixed() {
      try {
        for (let n = 0; ; n += 1) yield n === 3 ? new Blob(["broken"]) : images.green;
      } finally {
        closed = true;
      }
    }
    const got = [];
    for await (const answer of client.stream("colours", mixed(), { ordered: true, concurrency: 16 })) {
      got.push(answer);
      if (got.length === 12) break;
    }
    check(closed, "the source was left open");
    check(got.every((each, n) => each.index === n), "order");
    check(got.every((each) => (each.index === 3) === Boolean(each.error)), "one failed");
    const stop = new AbortController();
    const running = (async () => {
      for await (const _ of client.stream("colours", mixed(), { signal: stop.signal })) stop.abort();
    })();
    check((await failure(running)).code === "aborted", "the signal ends a stream");
  },

  async "the second proxy is asked when the first is away"({ Client, proxy, images }) {
    const client = new Client(["http://127.0.0.1:1", proxy]);
    const answer = await client.classify("colours", images.green);
    check(answer.predictions[0].label === "green", JSON.stringify(answer));
    const workers = await client.resolve("colours");
    check(workers.length >= 2 && workers.every((each) => each.inFlight === 0), "resolve");
  },
};

export async function run(world) {
  const told = {};
  for (const [name, scenario] of Object.entries(scenarios)) {
    try {
      await scenario(world);
      told[name] = "passed";
    } catch (error) {
      told[name] = String(error?.stack ?? error);
    }
  }
  return told;
}
