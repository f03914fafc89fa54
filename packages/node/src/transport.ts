// Requests to one builder: signed, repeated while it is busy, with a bound on silence.
import { request as requestHttp, type IncomingMessage } from "node:http";
import { request as requestHttps } from "node:https";
import type { SecureContextOptions } from "node:tls";
import { setTimeout as sleep } from "node:timers/promises";

import type { Body } from "./context.js";
import { BuilderError, Refused, Unreachable, type BuildResult } from "./errors.js";
import { MANIFEST_HEADER } from "./manifest.js";
import { AnswerSignature, proof, sign, trimmed, type Secret } from "./signing.js";

/** How to reach a builder. */
export interface Connection {
  /** Where the builder listens, such as `https://builds.example.com`; with or without `/build`. */
  url: string;
  /** Signs requests, and proves answers. Leave it out for a builder with `disable_hmac`. */
  payloadSecret?: Secret;
  /** Opens one build for `follow` and `cancel`, without the payload secret. */
  token?: string;
  /** More headers, for a proxy before the builder. */
  headers?: Record<string, string>;
  /** Authorities and a client certificate for https. */
  tls?: SecureContextOptions;
  /** Ends the call; the builder cancels a build whose connection is closed. */
  signal?: AbortSignal;
  /** Seconds to wait for a busy builder, over all attempts. Default: 300. */
  retryTimeout?: number;
  /** Seconds of silence after which a connection counts as lost. Default: 60. */
  readTimeout?: number;
  /** Refuse a success that the payload secret did not sign. Default: with a payload secret over plain http. */
  requireSignedAnswers?: boolean;
}

export const NOT_A_BUILDER = "not a Function Builder response: check the URL";
const MAX_ANSWER = 64 * 1024 * 1024;
const MAX_LINE = 1024 * 1024;

/** An answer whose status is accepted. */
export interface Answer {
  message: IncomingMessage;
  status: number;
  /** Why its last object, without or with the lines before it, is not believed; empty if it is. */
  doubt(last: Uint8Array): string;
  /** Add a line before the last object to what the signature covers. */
  update(line: Uint8Array): void;
}

export class Transport {
  readonly #base: URL;
  readonly #secret: Secret | undefined;
  readonly #isRequired: boolean;
  #left: number;

  constructor(readonly connection: Connection) {
    try {
      this.#base = new URL(connection.url.replace(/\/*(\/build)?\/*$/, ""));
    } catch {
      throw new BuilderError("url is not an address of a builder, such as http://127.0.0.1:8080");
    }
    if (!/^https?:$/.test(this.#base.protocol)) throw new BuilderError("url must begin with http:// or https://");
    this.#secret = connection.payloadSecret === undefined ? undefined : trimmed(connection.payloadSecret);
    this.#isRequired = connection.requireSignedAnswers ?? (this.#secret !== undefined && this.#base.protocol === "http:");
    this.#left = connection.retryTimeout ?? 300;
  }

  get secret(): Secret | undefined {
    return this.#secret;
  }

  /** Post a body to build, again while the builder is busy. */
  async post(body: Body, headers: Record<string, string>, accepted: number[]): Promise<Answer> {
    return this.#repeated(accepted, () => {
      const proven = this.#secret !== undefined && body.signature ? proof(this.#secret, body.signature) : {};
      return this.#send("POST", "/build", { "Content-Type": "application/octet-stream", ...headers }, proven, body);
    });
  }

  /** Send a request without a body. */
  async ask(method: string, target: string, headers: Record<string, string> = {}): Promise<Answer> {
    const { token } = this.connection;
    return this.#repeated([200], () => {
      if (this.#secret === undefined && token) headers = { ...headers, Authorization: `Bearer ${token}` };
      const proven = this.#secret === undefined ? {} : proof(this.#secret, sign(this.#secret, `${method} ${target}`));
      return this.#send(method, target, headers, proven);
    });
  }

  /** Whether the builder takes requests with manifests; a refusal means that it does not. */
  async understandsManifests(): Promise<boolean> {
    try {
      const { message } = await this.ask("GET", "/healthz");
      message.destroy();
      return MANIFEST_HEADER in message.headers;
    } catch (error) {
      if (error instanceof BuilderError) return false;
      throw error;
    }
  }

  /** An answer that is one JSON object. */
  async document(answer: Answer): Promise<Record<string, unknown>> {
    const body = await read(answer.message);
    const doubt = answer.doubt(body);
    if (doubt) throw new Unreachable(doubt);
    const document = object(body);
    if (!document) throw new Refused(answer.status, NOT_A_BUILDER);
    return document;
  }

  /** Wait before asking again; throws the error if the time for that is over. */
  async pause(error: Error, seconds: number): Promise<void> {
    const varied = seconds * (1 + Math.random() / 2);
    if (varied > this.#left) throw error;
    this.#left -= varied;
    await sleep(varied * 1000, undefined, this.connection.signal ? { signal: this.connection.signal } : {});
  }

  async #repeated(accepted: number[], send: () => Promise<Answer>): Promise<Answer> {
    for (let attempt = 0; ; attempt++) {
      const answer = await send();
      if (accepted.includes(answer.status)) return answer;
      const refused = await refusal(answer.message);
      const isBusy = refused.status === 429 || (refused.status === 503 && refused.retryAfter !== undefined);
      if (!isBusy) throw refused;
      await this.pause(refused, Math.max(1, refused.retryAfter ?? Math.min(2 ** attempt, 30)));
    }
  }

  #send(
    method: string,
    target: string,
    headers: Record<string, string>,
    proven: Record<string, string>,
    body?: Body,
  ): Promise<Answer> {
    const { signal, tls, readTimeout = 60 } = this.connection;
    const url = new URL(this.#base.href.replace(/\/$/, "") + target);
    const isSecure = url.protocol === "https:";
    const credentials = url.username ? { auth: `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}` } : {};
    const options = {
      method,
      // A kept connection may be closed just when it is used, and a build must not be sent twice.
      agent: false as const,
      headers: {
        "User-Agent": "function-builder-node",
        ...(body ? { "Content-Length": String(body.size) } : {}),
        ...this.connection.headers,
        ...headers,
        ...proven,
      },
      ...credentials,
      ...(signal ? { signal } : {}),
      ...(isSecure ? tls : {}),
    };
    return new Promise((resolve, reject) => {
      const request = (isSecure ? requestHttps : requestHttp)(url, options);
      const upload = body?.read();
      request.setTimeout(readTimeout * 1000, () => request.destroy(Object.assign(new Error("it fell silent"), { code: "ETIMEDOUT" })));
      request.once("response", (message) => {
        // The builder may refuse before it has read everything.
        if (upload && !request.writableFinished) {
          upload.unpipe(request);
          upload.destroy();
        }
        resolve(this.#answer(message, proven));
      });
      request.on("error", (error) => {
        upload?.destroy();
        reject(signal?.aborted ? abortReason(signal) : lost(this.#base, error));
      });
      upload?.once("error", (error) => request.destroy(error));
      if (upload) upload.pipe(request);
      else request.end();
    });
  }

  #answer(message: IncomingMessage, proven: Record<string, string>): Answer {
    const signature = this.#secret === undefined ? undefined : new AnswerSignature(this.#secret, proven);
    return {
      message,
      status: message.statusCode ?? 0,
      update: (line) => signature?.update(line),
      doubt: (last) => {
        const isRight = signature?.proves(last);
        if (isRight === false) return "the answer was changed on its way: its signature is wrong";
        if (isRight || !this.#isRequired) return "";
        return "the payload secret did not sign the answer: use https, or requireSignedAnswers: false";
      },
    };
  }
}

/** An answer's whole body. */
export async function read(message: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of message as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > MAX_ANSWER) throw new Error("it is too large");
      chunks.push(chunk);
    }
  } catch (error) {
    throw new Unreachable(`the answer was cut off: ${reason(error)}`, { cause: error });
  }
  return Buffer.concat(chunks);
}

/** The lines of a stream, each with its newline. */
export async function* lines(message: IncomingMessage): AsyncGenerator<Buffer> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of message as AsyncIterable<Buffer>) {
    rest = rest.length ? Buffer.concat([rest, chunk]) : chunk;
    let end: number;
    while ((end = rest.indexOf(10)) >= 0) {
      yield rest.subarray(0, end + 1);
      rest = rest.subarray(end + 1);
    }
    if (rest.length > MAX_LINE) throw new Unreachable("not a Function Builder response: a line is too long");
  }
  if (rest.length) yield rest;
}

/** A JSON object; undefined if it is none. */
export function object(data: Buffer): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(data.toString("utf8"));
    return value && typeof value === "object" && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** Why `AbortSignal` ended a call, as fetch throws it. */
export function abortReason(signal: AbortSignal): Error {
  return signal.reason instanceof Error ? signal.reason : new Error("the call was aborted", { cause: signal.reason });
}

/** What an object of an answer that may be a result says. */
export function isResult(value: object): value is BuildResult {
  return "status" in value && (value.status === "success" || value.status === "failed");
}

async function refusal(message: IncomingMessage): Promise<Refused> {
  const body = await read(message).catch(() => Buffer.alloc(0));
  message.destroy();
  const problem = object(body) ?? {};
  const isText = (message.headers["content-type"] ?? "text/plain").startsWith("text/plain");
  const said = problem["detail"] ?? problem["title"] ?? problem["error"] ?? (isText ? body.toString("utf8") : "");
  const text = String(said).replace(/\s+/g, " ").trim().slice(0, 500);
  const location = message.headers.location ? "it redirects: use the address of the builder itself" : "";
  const seconds = Number(message.headers["retry-after"]);
  return new Refused(
    message.statusCode ?? 0,
    text || location || NOT_A_BUILDER,
    message.headers["retry-after"] && Number.isFinite(seconds) ? seconds : undefined,
  );
}

function lost(base: URL, error: Error): Unreachable {
  return new Unreachable(`cannot reach ${base.origin}: ${reason(error)}`, { cause: error });
}

function reason(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length) return reason(error.errors[0]);
  return error instanceof Error ? error.message || error.name : String(error);
}
