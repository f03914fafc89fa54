// The tar of a request: the configuration, and a directory as the build context.
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import * as tar from "tar";

export async function pack(directory, image) {
  const work = await mkdtemp(join(tmpdir(), "build-"));
  try {
    await cp(directory, join(work, "context"), { recursive: true, verbatimSymlinks: true });
    await writeFile(join(work, "com.openfaas.docker.config"), JSON.stringify({ image }));
    const file = join(work, "req.tar");
    await tar.create({ cwd: work, file }, ["com.openfaas.docker.config", "context"]);
    return await readFile(file);
  } finally {
    await rm(work, { recursive: true });
  }
}
