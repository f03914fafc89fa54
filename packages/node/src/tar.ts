// Headers of a tar in POSIX' pax format.

const BLOCK = 512;
const MAX_OCTAL = 8 ** 11;

export interface TarEntry {
  name: string;
  type: "file" | "directory" | "symlink" | "link";
  mode: number;
  /** Whole seconds since the epoch. */
  mtime: number;
  /** Bytes; 0 unless it is a file. */
  size: number;
  linkname?: string;
}

const TYPES = { file: "0", link: "1", symlink: "2", directory: "5" };

/** The header's blocks. */
export function header(entry: TarEntry): Buffer {
  const name = entry.type === "directory" ? `${entry.name}/` : entry.name;
  const linkname = entry.linkname ?? "";
  const records: string[] = [];
  if (!fits(name)) records.push(record("path", name));
  if (!fits(linkname)) records.push(record("linkpath", linkname));
  if (entry.size >= MAX_OCTAL) records.push(record("size", String(entry.size)));
  if (entry.mtime < 0) records.push(record("mtime", String(entry.mtime)));
  const own = block(name, TYPES[entry.type], entry, linkname);
  if (!records.length) return own;
  const body = Buffer.from(records.join(""));
  const extension = { mode: 0o644, mtime: 0, size: body.length };
  return Buffer.concat([block("pax", "x", extension, ""), padded(body), own]);
}

/** The bytes that fill a file of this size up to a whole block. */
export function padding(size: number): Buffer {
  return Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK);
}

/** The end of the archive. */
export const END = Buffer.alloc(2 * BLOCK);

function padded(body: Buffer): Buffer {
  return Buffer.concat([body, padding(body.length)]);
}

function fits(name: string): boolean {
  return /^[\x01-\x7f]{0,100}$/.test(name);
}

function record(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  const bytes = Buffer.byteLength(rest);
  let length = bytes + 1;
  while (bytes + String(length).length !== length) length = bytes + String(length).length;
  return `${length}${rest}`;
}

function block(name: string, type: string, entry: { mode: number; mtime: number; size: number }, linkname: string): Buffer {
  const made = Buffer.alloc(BLOCK);
  const number = (value: number, at: number, length: number) =>
    made.write(value.toString(8).padStart(length - 1, "0"), at, "latin1");
  made.write(name, 0, 100);
  number(entry.mode & 0o7777, 100, 8);
  number(0, 108, 8);
  number(0, 116, 8);
  number(entry.size < MAX_OCTAL ? entry.size : 0, 124, 12);
  number(Math.max(0, entry.mtime), 136, 12);
  made.write(" ".repeat(8), 148);
  made.write(type, 156);
  made.write(linkname, 157, 100);
  made.write("ustar\x0000", 257, "latin1");
  const sum = made.reduce((total, byte) => total + byte, 0);
  made.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return made;
}
