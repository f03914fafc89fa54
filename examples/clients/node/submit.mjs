// Submit a build that outlives this program, and follow it: node submit.mjs DIR IMAGE
// To follow a build that was submitted before: node submit.mjs ID
import { createHmac, randomUUID } from "node:crypto";
import { openAsBlob } from "node:fs";
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";

import { builderUrl, pack, sign } from "./pack.mjs";

const ATTEMPTS = 60;

class Refused extends Error {}

export class Builds {
  constructor(url, secret) {
    this.url = url;
    this.secret = secret;
  }

  // Queues a build, and returns its document. All attempts have one key, so that a lost answer does not
  // make a second build. With `callback`, the builder sends the end of the build there: callback.mjs.
  submit(directory, image, { callback, key = randomUUID() } = {}) {
    return pack(directory, image, async (file) => {
      const headers = {
        "Content-Type": "application/octet-stream",
        Prefer: "respond-async",
        "Idempotency-Key": `"${key}"`,
        ...(callback ? { "X-Callback-Url": callback } : {}),
      };
      const signature = await sign(file, this.secret);
      for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
        const body = await openAsBlob(file);
        const reply = await this.#ask("/build", signature, { method: "POST", body, headers });
        const build = await reply?.json().catch(() => undefined);
        if (build?.buildId) return build;
      }
      throw new Refused("the builder stayed away");
    });
  }

  // Gives each line of the log to `onLog`, over lost connections. Returns the last object, which has the result.
  async follow(id, onLog = console.log) {
    let after = 0;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const target = `/builds/${id}/log?after=${after}`;
      const reply = await this.#ask(target, this.#mac(`GET ${target}`));
      let rest = "";
      try {
        for await (const text of reply?.body.pipeThrough(new TextDecoderStream()) ?? []) {
          const lines = (rest + text).split("\n");
          rest = lines.pop();
          for (const line of lines) {
            const event = JSON.parse(line);
            if (event.status !== "in_progress") return event;
            for (const logged of event.log ?? []) onLog(logged);
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

  // An answer, or undefined if the request is to be sent again.
  async #ask(target, signature, { headers = {}, ...options } = {}) {
    const now = (Date.now() / 1000).toFixed(3);
    const proof = {
      "X-Build-Signature": signature,
      "X-Build-Timestamp": `${now} ${this.#mac(`${now} ${signature}`)}`,
    };
    let reply;
    try {
      reply = await fetch(this.url + target, { ...options, headers: { ...headers, ...proof } });
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

  #mac(data) {
    return "sha256=" + createHmac("sha256", this.secret).update(data).digest("hex");
  }
}

async function main([directoryOrId, image]) {
  if (!directoryOrId) throw new Error("usage: node submit.mjs DIR IMAGE, or node submit.mjs ID");
  const secretFile = process.env.OPENFAAS_PAYLOAD_SECRET ?? ".run/payload-secret";
  const builds = new Builds(builderUrl(), (await readFile(secretFile, "utf8")).trim());
  let id = directoryOrId;
  if (image) {
    const callback = process.env.CALLBACK_URL;
    id = (await builds.submit(directoryOrId, image, { callback })).buildId;
    console.error(`build ${id} is queued`);
  }
  const result = await builds.follow(id);
  if (result.status !== "success") throw new Error(`build failed: ${result.error}`);
  console.log([result.image, result.digest].filter(Boolean).join("@"));
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await main(process.argv.slice(2)).catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
}
