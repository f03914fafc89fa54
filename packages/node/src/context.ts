// A request's body: the configuration and the build context as a tar in a temporary file. The
// signature covers the whole body and is sent before it, so the body is written first.
import { createHmac, type Hmac } from "node:crypto";
import { constants, type Stats } from "node:fs";
import { lstat, mkdtemp, open, readFile, readdir, readlink, rm, type FileHandle } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";

import { matcher, type Matcher, type Results } from "./dockerignore.js";
import { ContextError } from "./errors.js";
import type { Secret } from "./signing.js";
import { END, header, padding, type TarEntry } from "./tar.js";

/** A file with its mode, such as a script that a step runs: `{ content: "#!/bin/sh\n", mode: 0o755 }`. */
export interface ContextFile {
  content: string | Uint8Array;
  mode: number;
}

/**
 * A build context without a directory: contents by path, such as `{ Dockerfile: "FROM scratch" }`. A content
 * alone has mode 0644.
 */
export type Files = Record<string, string | Uint8Array | ContextFile>;

const CHUNK = 1024 * 1024;
/** Of files without a time of their own, 2 January 1980: ZIP archives can hold none before 1980. */
const NO_TIME = 315_619_200;
export const IGNORE_FILE = ".dockerignore";

/** A body to send, which may be read more than once. */
export class Body {
  readonly #file: FileHandle;

  constructor(
    file: FileHandle,
    readonly size: number,
    readonly signature: string | undefined,
  ) {
    this.#file = file;
  }

  /** A stream of the whole body. Not the file's own stream, because the end of that one closes the file. */
  read(): Readable {
    return Readable.from(this.#pieces(), { objectMode: false });
  }

  async *#pieces(): AsyncGenerator<Buffer> {
    for (let start = 0; start < this.size; ) {
      const buffer = Buffer.allocUnsafe(Math.min(CHUNK, this.size - start));
      const { bytesRead } = await this.#file.read(buffer, 0, buffer.length, start);
      if (!bytesRead) throw new Error("the body is shorter than it was");
      yield buffer.subarray(0, bytesRead);
      start += bytesRead;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }
}

/** Takes the entries of a directory, parents first. */
export interface Sink {
  entry(entry: TarEntry): Promise<void>;
  file(path: string, entry: TarEntry): Promise<void>;
}

export interface Packed {
  config: object;
  dockerfile: string;
  sealedSecrets?: Uint8Array | undefined;
  payloadSecret?: Secret | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * Write a request's body.
 *
 * @throws ContextError the context cannot be sent.
 */
export async function pack(source: string | Files, request: Packed): Promise<Body> {
  return spooled(request, async (spool) => {
    if (typeof source === "string") await walk(spool, source, request.dockerfile);
    else await writeFiles(spool, source, request.dockerfile);
  });
}

/** Write a body that begins with the configuration and the secrets. */
export async function spooled(request: Packed, write: (spool: Spool) => Promise<void>): Promise<Body> {
  const folder = await mkdtemp(join(tmpdir(), "function-builder-"));
  const file = await open(join(folder, "body"), "wx+", 0o600);
  try {
    const spool = new Spool(file, request.payloadSecret, request.signal);
    await spool.document("com.openfaas.docker.config", Buffer.from(JSON.stringify(request.config)));
    if (request.sealedSecrets) await spool.document("com.openfaas.secrets", request.sealedSecrets);
    await write(spool);
    return await spool.end();
  } catch (error) {
    await file.close();
    throw readable(error);
  } finally {
    // The open file stays readable; no crash leaves it behind.
    await rm(folder, { recursive: true, force: true });
  }
}

/** The error of a context that cannot be read, in words; another error as it is. */
export function readable(error: unknown): unknown {
  // An abort's code is a number.
  return error instanceof Error && "code" in error && typeof error.code === "string" ? unreadable(error) : error;
}

export class Spool implements Sink {
  #size = 0;
  readonly #mac: Hmac | undefined;
  readonly #file: FileHandle;
  readonly #signal: AbortSignal | undefined;

  constructor(file: FileHandle, secret: Secret | undefined, signal: AbortSignal | undefined) {
    this.#file = file;
    this.#signal = signal;
    this.#mac = secret === undefined ? undefined : createHmac("sha256", secret);
  }

  async write(data: Uint8Array): Promise<void> {
    this.#signal?.throwIfAborted();
    this.#mac?.update(data);
    this.#size += data.length;
    for (let done = 0; done < data.length; ) done += (await this.#file.write(data, done)).bytesWritten;
  }

  async document(name: string, content: Uint8Array, mode = 0o644, mtime = 0): Promise<void> {
    await this.write(header({ name, type: "file", mode, mtime, size: content.length }));
    await this.write(Buffer.concat([content, padding(content.length)]));
  }

  async entry(entry: TarEntry): Promise<void> {
    await this.write(header(entry));
  }

  async file(path: string, entry: TarEntry): Promise<void> {
    await readWhole(path, (size) => this.entry({ ...entry, size }), (piece) => this.write(piece));
    // Headers are whole blocks, so what is missing to a block is the file's.
    await this.write(padding(this.#size));
  }

  async end(): Promise<Body> {
    await this.write(END);
    return new Body(this.#file, this.#size, this.#mac && `sha256=${this.#mac.digest("hex")}`);
  }
}

async function writeFiles(spool: Spool, files: Files, dockerfile: string): Promise<void> {
  if (!dockerfileNames(dockerfile).some((name) => name in files)) {
    throw new ContextError(`the files have no ${dockerfile}`);
  }
  for (const [name, given] of Object.entries(files).sort(([a], [b]) => (a < b ? -1 : 1))) {
    const plain = typeof given === "string" || given instanceof Uint8Array;
    const { content, mode } = plain ? { content: given, mode: 0o644 } : given;
    await spool.document(`context/${name}`, Buffer.from(content), mode, NO_TIME);
  }
}

/** Give a directory's entries to a sink, without those that its ignore file excludes. */
export async function walk(sink: Sink, directory: string, dockerfile: string): Promise<void> {
  const status = await lstat(join(directory, ".")).catch(() => undefined);
  if (!status?.isDirectory()) throw new ContextError(`${directory} is not a directory`);
  await new Walk(sink, directory, await readRules(directory, dockerfile)).enter("", status, []);
}

interface Rules {
  matcher: Matcher | undefined;
  /** Paths that BuildKit reads whatever the patterns say. */
  always: string[];
}

async function readRules(directory: string, dockerfile: string): Promise<Rules> {
  const names = dockerfileNames(dockerfile);
  const present = await Promise.all(names.map((name) => exists(join(directory, name))));
  const found = names.find((_, index) => present[index]);
  if (!found) throw new ContextError(`${directory} has no ${dockerfile}`);
  for (const name of [`${dockerfile}${IGNORE_FILE}`, IGNORE_FILE]) {
    const path = join(directory, name);
    const status = await lstat(path).catch(() => undefined);
    if (!status) continue;
    const isLinked = status.isSymbolicLink() || (await lstat(join(directory, found))).isSymbolicLink();
    // What a link leads to is needed as well: then the directory is sent whole.
    const rules = status.isFile() && !isLinked ? matcher(await readFile(path, "utf8")) : undefined;
    return { matcher: rules, always: [found, name] };
  }
  return { matcher: undefined, always: [] };
}

export function dockerfileNames(dockerfile: string): string[] {
  const lower = dockerfile.replace(/(^|\/)Dockerfile$/, "$1dockerfile");
  return lower === dockerfile ? [dockerfile] : [dockerfile, lower];
}

async function exists(path: string): Promise<boolean> {
  return lstat(path).then(
    () => true,
    () => false,
  );
}

class Walk {
  readonly #firstNames = new Map<string, string>();
  /** Directories around the current one that are left out, unless something in them is not. */
  readonly #pending: { path: string; status: Stats }[] = [];

  constructor(
    readonly sink: Sink,
    readonly directory: string,
    readonly rules: Rules,
  ) {}

  /** Write what a directory holds, parents first and names sorted. */
  async enter(folder: string, status: Stats, results: Results, isIgnored = false): Promise<void> {
    this.#pending.push({ path: folder, status });
    if (!isIgnored) await this.#givePending();
    const names = await readdir(join(this.directory, folder));
    for (const name of names.sort()) {
      const path = folder ? `${folder}/${name}` : name;
      const match = this.rules.matcher?.match(path, results) ?? { ignored: false, results };
      const ignored = match.ignored && !this.rules.always.includes(path);
      const mayHoldMore =
        this.rules.matcher?.hasExceptions || this.rules.always.some((each) => each.startsWith(`${path}/`));
      if (ignored && !mayHoldMore) continue;
      const child = await lstat(join(this.directory, path));
      if (child.isDirectory()) await this.enter(path, child, match.results, ignored);
      else if (!ignored) {
        await this.#givePending();
        await this.#give(path, child);
      }
    }
    if (this.#pending.at(-1)?.path === folder) this.#pending.pop();
  }

  async #givePending(): Promise<void> {
    for (const { path, status } of this.#pending.splice(0)) await this.#give(path, status);
  }

  async #give(path: string, status: Stats): Promise<void> {
    const at = join(this.directory, path);
    const mtime = Math.floor(status.mtimeMs / 1000);
    const entry: TarEntry = {
      name: path ? `context/${path}` : "context",
      type: "directory",
      mode: status.mode,
      mtime,
      size: 0,
    };
    const key = `${status.dev}:${status.ino}`;
    const first = status.nlink > 1 && status.isFile() ? this.#firstNames.get(key) : undefined;
    if (status.isSocket()) return;
    if (status.isSymbolicLink()) {
      await this.sink.entry({ ...entry, type: "symlink", linkname: await readlink(at) });
    } else if (first !== undefined) {
      await this.sink.entry({ ...entry, type: "link", linkname: first });
    } else if (status.isFile()) {
      this.#firstNames.set(key, entry.name);
      await this.sink.file(at, { ...entry, type: "file" });
    } else if (status.isDirectory()) {
      await this.sink.entry(entry);
    } else {
      throw new ContextError(`${at} is a device or a fifo: remove it, or leave it out with ${IGNORE_FILE}`);
    }
  }
}

/** Read a file in pieces, after its size; it must not change meanwhile. */
export async function readWhole(
  path: string,
  begin: (size: number) => Promise<void>,
  add: (piece: Buffer) => Promise<void> | void,
): Promise<void> {
  // The file may have been replaced since it was listed: a link is not followed, a fifo not awaited.
  const file = await open(path, constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0));
  try {
    const before = await file.stat();
    await begin(before.size);
    const buffer = Buffer.allocUnsafe(Math.min(before.size, CHUNK));
    let left = before.size;
    while (left) {
      const { bytesRead } = await file.read(buffer, 0, Math.min(left, buffer.length));
      if (!bytesRead) break;
      await add(buffer.subarray(0, bytesRead));
      left -= bytesRead;
    }
    const after = await file.stat();
    if (left || !before.isFile() || after.size !== before.size || after.mtimeMs !== before.mtimeMs) {
      throw new ContextError(`${path} changed while it was read: build again, or leave it out with ${IGNORE_FILE}`);
    }
  } finally {
    await file.close();
  }
}

function unreadable(error: Error & { code?: unknown; path?: unknown }): ContextError {
  const hint = error.code === "EACCES" || error.code === "EPERM" ? `; ${IGNORE_FILE} can leave it out` : "";
  return new ContextError(`cannot read ${String(error.path ?? "the context")}: ${String(error.code)}${hint}`, {
    cause: error,
  });
}
