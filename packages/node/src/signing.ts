// What proves a request, and an answer. Source: `contract/` of the builder: signature.py,
// timestamp.py, reads.py and answer_signature.py.
import { createHmac, timingSafeEqual, type Hmac } from "node:crypto";

export type Secret = string | Uint8Array;

const KEY = Buffer.from(',"signature":"sha256=');
const DIGEST = 64;

/** The header's value for bytes that are known whole. */
export function sign(secret: Secret, text: string | Uint8Array): string {
  return `sha256=${createHmac("sha256", secret).update(text).digest("hex")}`;
}

/** Whether two texts are equal, in constant time. */
export function isEqual(one: string, other: string): boolean {
  const [a, b] = [Buffer.from(one), Buffer.from(other)];
  return a.length === b.length && timingSafeEqual(a, b);
}

/** The headers of a request whose body, or method and target, have this signature. */
export function proof(secret: Secret, signature: string): Record<string, string> {
  const now = (Date.now() / 1000).toFixed(6);
  return {
    "X-Build-Signature": signature,
    "X-Build-Timestamp": `${now} ${sign(secret, `${now} ${signature}`)}`,
  };
}

/** The signature of one answer: the last key of its last object. It covers each byte before it. */
export class AnswerSignature {
  readonly #mac: Hmac;

  constructor(secret: Secret, proven: Record<string, string>) {
    const key = derived(derived(secret, "answer to a build"), `${proven["X-Build-Signature"]}\n${proven["X-Build-Timestamp"]}`);
    this.#mac = createHmac("sha256", key);
  }

  /** Add bytes before the last object. */
  update(data: Uint8Array): void {
    this.#mac.update(data);
  }

  /** Whether the last object's signature is right; undefined if it has none. */
  proves(last: Uint8Array): boolean | undefined {
    const text = Buffer.from(last);
    const end = text.lastIndexOf("}");
    const start = end - 1 - DIGEST - KEY.length;
    if (start < 0 || !text.subarray(start, start + KEY.length).equals(KEY)) return undefined;
    const claimed = text.subarray(start + KEY.length, end - 1).toString("latin1");
    return isEqual(claimed, this.#mac.update(text.subarray(0, start)).digest("hex"));
  }
}

function derived(parent: Secret, label: string): Buffer {
  return createHmac("sha256", parent).update(`function-builder ${label}`).digest();
}

/** A secret as a file holds it has a newline that is not a part of it. */
export function trimmed(secret: Secret): Secret {
  return typeof secret === "string" ? secret.trim() : Buffer.from(Buffer.from(secret).toString("latin1").trim(), "latin1");
}
