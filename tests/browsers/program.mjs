// node program.mjs PAGE PROXY MODULE: the scenarios in Node; the module from a file.
import { run } from "./scenarios.js";

process.on("warning", (warning) => { throw warning; });
const [page, proxy, path] = process.argv.slice(2);
const { Client, FingerpostError } = await import(path);
const images = {};
for (const colour of ["red", "green", "blue"]) {
  images[colour] = await (await fetch(`${page}/${colour}.png`)).blob();
}
const call = (name) => fetch(`${page}/call/${name}`, { method: "POST" });
const told = await run({ Client, FingerpostError, proxy, images, call });
await fetch(`${page}/told`, { method: "POST", body: JSON.stringify(told) });
