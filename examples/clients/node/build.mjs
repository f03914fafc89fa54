// Build a directory with axios and tar, and push it: node build.mjs DIR IMAGE
import { createHmac } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

import axios from "axios";

import { pack } from "./pack.mjs";

const given = process.env.OPENFAAS_REMOTE_BUILDER ?? "http://127.0.0.1:8080";
const url = given.replace(/\/$/, "").replace(/\/build$/, ""); // old versions of faas-cli want it with /build
const secretFile = process.env.OPENFAAS_PAYLOAD_SECRET ?? ".run/payload-secret";

async function post(body) {
  const secret = (await readFile(secretFile, "utf8")).trim();
  const headers = {
    "X-Build-Signature": "sha256=" + createHmac("sha256", secret).update(body).digest("hex"),
    "Content-Type": "application/octet-stream",
    Accept: "application/x-ndjson",
  };
  for (let attempt = 1; ; attempt++) {
    const reply = await axios.post(url + "/build", body, {
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

const [directory, image] = process.argv.slice(2);
const reply = await post(await pack(directory, image));
let last = { error: "the builder was lost before the build's end" };
for await (const line of createInterface({ input: reply.data })) {
  if (reply.status !== 200) {
    console.error(`refused: ${reply.status}: ${line}`);
    continue;
  }
  last = { ...last, ...JSON.parse(line) };
  for (const text of JSON.parse(line).log ?? []) console.log(text);
}
if (reply.status !== 200) process.exit(1);
if (last.status !== "success") {
  console.error(`build failed: ${last.error}`);
  process.exit(1);
}
