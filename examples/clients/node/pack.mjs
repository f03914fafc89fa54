// The tar of a request and its signature, for build.mjs and submit.mjs.
import { createHmac } from "node:crypto";
import { createReadStream } from "node:fs";
import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import * as tar from "tar";

// Packs the configuration, and a directory as the build context. Returns what `send` makes of the tar's path.
export async function pack(directory, image, send) {
  const work = await mkdtemp(join(tmpdir(), "build-"));
  try {
    await cp(directory, join(work, "context"), { recursive: true, verbatimSymlinks: true });
    await writeFile(join(work, "com.openfaas.docker.config"), JSON.stringify({ image }));
    const file = join(work, "req.tar");
    await tar.create({ cwd: work, file }, ["com.openfaas.docker.config", "context"]);
    return await send(file);
  } finally {
    await rm(work, { recursive: true });
  }
}

export async function sign(file, secret) {
  const mac = createHmac("sha256", secret);
  for await (const piece of createReadStream(file)) mac.update(piece);
  return "sha256=" + mac.digest("hex");
}

// Old versions of faas-cli want the URL with /build.
export function builderUrl() {
  const given = process.env.OPENFAAS_REMOTE_BUILDER ?? "http://127.0.0.1:8080";
  return given.replace(/\/$/, "").replace(/\/build$/, "");
}
