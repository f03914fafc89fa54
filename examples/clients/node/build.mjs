// Build a directory with axios and tar, and push it: node build.mjs DIR IMAGE
import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";

import axios from "axios";

import { builderUrl, pack, sign } from "./pack.mjs";

// Builds a directory with a Dockerfile, and pushes the image. Returns the last object of the log, with
// `image` and `digest`; throws an Error that says in one line why there is no image.
export async function build(directory, image, { url, secret, onLog = console.log }) {
  const reply = await pack(directory, image, (file) => post(file, url, secret));
  let last = { error: "the builder was lost before the build's end" };
  for await (const line of createInterface({ input: reply.data })) {
    if (reply.status !== 200) throw new Error(`refused: ${reply.status}: ${line}`);
    const event = JSON.parse(line);
    for (const text of event.log ?? []) onLog(text);
    last = { ...last, ...event };
  }
  if (reply.status !== 200) throw new Error(`refused: ${reply.status}`);
  if (last.status !== "success") throw new Error(`build failed: ${last.error}`);
  return last;
}

// Signs a request, and sends it until the builder is not busy (429).
async function post(file, url, secret) {
  const headers = {
    "X-Build-Signature": await sign(file, secret),
    "Content-Type": "application/octet-stream",
    "Content-Length": (await stat(file)).size,
    Accept: "application/x-ndjson",
  };
  for (let attempt = 1; ; attempt++) {
    const reply = await axios.post(url + "/build", createReadStream(file), {
      headers,
      maxRedirects: 0, // or a copy of the body is kept for redirects
      responseType: "stream",
      validateStatus: () => true,
    });
    if (reply.status !== 429 || attempt === 60) return reply;
    reply.data.resume();
    const seconds = Number(reply.headers["retry-after"] ?? 5);
    console.error(`the builder is busy: trying again in ${seconds} s`);
    await sleep(seconds * 1000);
  }
}

async function main([directory, image]) {
  if (!image) throw new Error("usage: node build.mjs DIR IMAGE");
  const secretFile = process.env.OPENFAAS_PAYLOAD_SECRET ?? ".run/payload-secret";
  const secret = (await readFile(secretFile, "utf8")).trim();
  const result = await build(directory, image, { url: builderUrl(), secret });
  console.log(`${result.image}@${result.digest}`);
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await main(process.argv.slice(2)).catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
}
