// Submit a build that outlives this program, and follow it: node submit.mjs DIR IMAGE
// To follow a build that was submitted before: node submit.mjs ID
import { createHmac, randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

import { pack } from "./pack.mjs";

const given = process.env.OPENFAAS_REMOTE_BUILDER ?? "http://127.0.0.1:8080";
const url = given.replace(/\/$/, "").replace(/\/build$/, "");
const secretFile = process.env.OPENFAAS_PAYLOAD_SECRET ?? ".run/payload-secret";
const secret = (await readFile(secretFile, "utf8")).trim();
const callback = process.env.CALLBACK_URL; // see callback.mjs
const ATTEMPTS = 60;

class Refused extends Error {}

const mac = (data) => "sha256=" + createHmac("sha256", secret).update(data).digest("hex");

// The headers that prove a request: `signed` is its body, or its method and target.
function proof(signed) {
  const signature = mac(signed);
  const now = (Date.now() / 1000).toFixed(3);
  return {
    "X-Build-Signature": signature,
    "X-Build-Timestamp": `${now} ${mac(`${now} ${signature}`)}`,
  };
}

// An answer, or undefined if the request is to be sent again.
async function ask(target, options) {
  let reply;
  try {
    reply = await fetch(url + target, options);
    if (reply.ok) return reply;
    const text = await reply.text();
    if (![429, 502, 503, 504].includes(reply.status)) {
      throw new Refused(`refused: ${reply.status}: ${text}`);
    }
  } catch (error) {
    if (error instanceof Refused) throw error;
  }
  const seconds = Number(reply?.headers.get("retry-after") ?? 1);
  console.error(`the builder is away or busy: trying again in ${seconds} s`);
  await sleep(seconds * 1000);
}

// All attempts have one key, so that a lost answer does not make a second build.
async function submit(body) {
  const key = randomUUID();
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const reply = await ask("/build", {
      method: "POST",
      body,
      headers: {
        ...proof(body),
        "Content-Type": "application/octet-stream",
        Prefer: "respond-async",
        "Idempotency-Key": `"${key}"`,
        ...(callback ? { "X-Callback-Url": callback } : {}),
      },
    });
    const build = await reply?.json().catch(() => undefined);
    if (build?.buildId) return build;
  }
  throw new Refused("the builder stayed away");
}

// Print the log, and return its last object, which has the result.
async function follow(id) {
  let after = 0;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const target = `/builds/${id}/log?after=${after}`;
    const reply = await ask(target, { headers: proof(`GET ${target}`) });
    let rest = "";
    try {
      for await (const text of reply?.body.pipeThrough(new TextDecoderStream()) ?? []) {
        const lines = (rest + text).split("\n");
        rest = lines.pop();
        for (const line of lines) {
          const event = JSON.parse(line);
          if (event.status !== "in_progress") return event;
          for (const logged of event.log ?? []) console.log(logged);
          after = event.after ?? after;
          attempt = 0;
        }
      }
    } catch {
      // The connection was lost, and the build goes on.
    }
  }
  throw new Refused("the builder stayed away");
}

try {
  const [directoryOrId, image] = process.argv.slice(2);
  let id = directoryOrId;
  if (image) {
    id = (await submit(await pack(directoryOrId, image))).buildId;
    console.error(`build ${id} is queued`);
  }
  const result = await follow(id);
  if (result.status !== "success") throw new Error(`build failed: ${result.error}`);
  console.log([result.image, result.digest].filter(Boolean).join("@"));
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
