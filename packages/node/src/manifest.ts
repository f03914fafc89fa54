// A request with a manifest: the table of a context's files, and the contents that have to be sent.
import { createHash } from "node:crypto";
import { deflateSync } from "node:zlib";

import { dockerfileNames, IGNORE_FILE, readWhole, readable, spooled, walk, type Body, type Packed, type Sink } from "./context.js";
import type { TarEntry } from "./tar.js";

export const MANIFEST_HEADER = "x-build-manifest";

/** The files of a smaller context are always sent, because a question would take longer. */
const SMALL_BYTES = 256 * 1024;
/** The digest of a larger content is that of its parts' digests. */
const PART_BYTES = 4 * 1024 * 1024;
const ROW_BYTES = 20;
const TYPES = { file: 0o100000, directory: 0o040000, symlink: 0o120000, link: 0 };

interface Row extends TarEntry {
  path: string;
  digest: Buffer;
}

/** The entries of a directory. */
export class Listing implements Sink {
  readonly rows: Row[] = [];
  readonly #signal: AbortSignal | undefined;

  private constructor(signal: AbortSignal | undefined) {
    this.#signal = signal;
  }

  /**
   * List a directory; this reads all files.
   *
   * @throws ContextError the context cannot be sent.
   */
  static async of(directory: string, request: Packed): Promise<Listing> {
    const listing = new Listing(request.signal);
    await walk(listing, directory, request.dockerfile).catch((error: unknown) => {
      throw readable(error);
    });
    return listing;
  }

  get isSmall(): boolean {
    return this.rows.reduce((total, row) => total + row.size, 0) < SMALL_BYTES;
  }

  /** The rows that every builder reads: the Dockerfile and the ignore files. */
  always(dockerfile: string): Set<number> {
    const names = [...dockerfileNames(dockerfile), `${dockerfile}${IGNORE_FILE}`, IGNORE_FILE];
    const wanted = new Set(names.map((name) => `context/${name}`));
    return new Set([...this.rows.keys()].filter((number) => wanted.has(this.rows[number]!.name)));
  }

  async entry(entry: TarEntry): Promise<void> {
    this.rows.push({ ...entry, path: "", digest: Buffer.alloc(32) });
  }

  async file(path: string, entry: TarEntry): Promise<void> {
    const digests: Buffer[] = [];
    let hash = createHash("sha256");
    let size = 0;
    let filled = 0;
    const add = (piece: Buffer): void => {
      this.#signal?.throwIfAborted();
      while (piece.length) {
        const part = piece.subarray(0, PART_BYTES - filled);
        hash.update(part);
        piece = piece.subarray(part.length);
        filled += part.length;
        if (filled === PART_BYTES) {
          digests.push(hash.digest());
          hash = createHash("sha256");
          filled = 0;
        }
      }
    };
    await readWhole(path, async (whole) => void (size = whole), add);
    if (filled || !digests.length) digests.push(hash.digest());
    const digest = digests.length === 1 ? digests[0]! : createHash("sha256").update(Buffer.concat(digests)).digest();
    this.rows.push({ ...entry, path, size, digest });
  }

  /** The binary table of `docs/api.md`. */
  table(): Buffer {
    const numbers = Buffer.alloc(ROW_BYTES * this.rows.length);
    this.rows.forEach((row, number) => {
      const at = ROW_BYTES * number;
      numbers.writeUInt32BE(TYPES[row.type] | (row.mode & 0o7777), at);
      numbers.writeBigUInt64BE(BigInt(row.size), at + 4);
      numbers.writeBigInt64BE(BigInt(row.mtime) * 1_000_000_000n, at + 12);
    });
    const links = this.rows.filter((row) => row.type === "symlink" || row.type === "link");
    const strings = [...this.rows.map((row) => row.name), ...links.map((row) => row.linkname ?? "")];
    const whole = Buffer.concat([numbers, Buffer.from(strings.map((text) => `${text}\0`).join(""))]);
    const head = Buffer.alloc(12);
    head.write("FBM2", 0, "latin1");
    head.writeUInt32BE(this.rows.length, 4);
    head.writeUInt32BE(whole.length, 8);
    return Buffer.concat([head, ...this.rows.map((row) => row.digest), deflateSync(whole, { level: 1 })]);
  }

  /** Write a request with the contents of some rows. */
  async pack(request: Packed, send: Iterable<number>): Promise<Body> {
    return spooled(request, async (spool) => {
      await spool.document("com.function-builder.manifest", this.table());
      const sent = new Set<string>();
      for (const number of send) {
        const row = this.rows[number];
        const name = `com.function-builder.content/${row?.digest.toString("hex")}`;
        if (row?.type !== "file" || sent.has(name)) continue;
        sent.add(name);
        await spool.file(row.path, { ...row, name, linkname: "" });
      }
    });
  }
}

/** The rows that a builder lacks; each once, because a hostile answer may name all rows many times. */
export function named(missing: unknown, rows: number): number[] {
  const found: number[] = [];
  const ranges = (Array.isArray(missing) ? missing : [])
    .map((range) => (Array.isArray(range) ? range.map(Number) : []))
    .filter(([first, count]) => Number.isSafeInteger(first) && Number.isSafeInteger(count))
    .sort(([one], [other]) => one! - other!);
  let end = 0;
  for (const [first, count] of ranges) {
    const stop = Math.min(first! + count!, rows);
    for (let number = Math.max(first!, end); number < stop; number++) found.push(number);
    end = Math.max(end, stop);
  }
  return found;
}
