// Builds: one that is waited for, and one that outlives its connection.
import { randomUUID } from "node:crypto";

import { pack, type Files, type Packed } from "./context.js";
import { BuildFailed, BuilderError, Refused, Unreachable, type BuildResult } from "./errors.js";
import { Listing, MANIFEST_HEADER, named } from "./manifest.js";
import { abortReason, isResult, lines, NOT_A_BUILDER, object, read, Transport, type Answer, type Connection } from "./transport.js";

/** What to build. Names and meanings are those of the API's configuration. */
export interface BuildConfig {
  /** The reference to push. */
  image?: string;
  buildArgs?: Record<string, string>;
  /** As `os/arch`; default: the builder's own. */
  platforms?: string[];
  /** Build without a push. */
  skipPush?: boolean;
  /** The stage to build; default: the last one. */
  target?: string;
  /** Its path in the context; default: `Dockerfile`. */
  dockerfile?: string;
  /** More references to push. */
  tags?: string[];
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  /** Run every step again, or these stages. */
  noCache?: boolean | string[];
  /** Look for newer base images. */
  pull?: boolean;
  ociMediaTypes?: boolean;
  compression?: "gzip" | "zstd" | "estargz" | "uncompressed";
  compressionLevel?: number;
  rewriteTimestamp?: boolean;
  addHosts?: string[];
  shmSize?: number | string;
  ulimits?: string[];
  cacheFrom?: string[];
  cacheTo?: string[];
  contexts?: Record<string, string>;
  attest?: { provenance?: boolean | "min" | "max"; sbom?: boolean };
  /** Seconds to wait for a slot. */
  queueTimeout?: number;
}

interface Sending extends Connection, BuildConfig {
  /** Build secrets that are sealed for the builder's key. */
  sealedSecrets?: Uint8Array;
}

/** Called for each line of the log; `step` is the step that wrote it, if that is known. */
export type OnLog = (line: string, step: string) => void;

export interface BuildOptions extends Sending {
  onLog?: OnLog;
  /** Send only what changed, where the builder understands that. Default: true. */
  manifest?: boolean;
}

export interface SubmitOptions extends Sending {
  /** Requests with one key make one build. Default: a random key. */
  idempotencyKey?: string;
  /** Where the builder sends the end of the build. */
  callbackUrl?: string;
  callbackEvents?: ("build.queued" | "build.started" | "build.finished")[];
}

export interface FollowOptions extends Connection {
  onLog?: OnLog;
  /** How many lines of the log to skip. */
  after?: number;
}

/** A build that does not need this process. */
export interface BuildInfo {
  buildId: string;
  /** Accept words that you do not know. */
  status: "queued" | "running" | "success" | "failed" | "cancelled" | (string & {});
  /** Opens this build alone; only the answer to `submit` has it. */
  token?: string;
  image?: string;
  digest?: string;
  error?: string;
  created?: string;
  started?: string;
  ended?: string;
  /** Its place in the queue, from 1. */
  position?: number;
}

const CONFIG_KEYS = [
  ...["image", "buildArgs", "platforms", "skipPush", "target", "dockerfile", "tags", "labels", "annotations"],
  ...["noCache", "pull", "ociMediaTypes", "compression", "compressionLevel", "rewriteTimestamp"],
  ...["addHosts", "shmSize", "ulimits", "cacheFrom", "cacheTo", "contexts", "attest", "queueTimeout"],
] as const;
const NEWLINE = 10;
const STREAM = "application/x-ndjson";
const ACCEPTED = { Accept: STREAM };

/**
 * Build a directory or files, and wait for the end. Closing the connection cancels the build.
 *
 * @throws ContextError, Unreachable, Refused: nothing was built. BuildFailed: see its `result`.
 */
export async function build(source: string | Files, options: BuildOptions): Promise<BuildResult> {
  const transport = new Transport(options);
  const request = requested(options, transport);
  const partial = typeof source === "string" && options.image && options.manifest !== false;
  const answer = partial ? await postChanges(source, request, transport) : undefined;
  let end = answer && (await interrupted(options.signal, () => reachEnd(answer, options.onLog)));
  // BuildKit may lose what was not sent when the answer has begun.
  if (!answer || end?.missing) {
    await using body = await pack(source, request);
    const whole = await transport.post(body, ACCEPTED, [200, 500]);
    end = await interrupted(options.signal, () => reachEnd(whole, options.onLog));
  }
  if (!end) throw new Unreachable("the connection was lost before the build ended");
  return succeeded(end);
}

/** Send a request with only what the builder lacks; undefined if all has to be sent. */
async function postChanges(directory: string, request: Packed, transport: Transport): Promise<Answer | undefined> {
  if (!(await transport.understandsManifests())) return undefined;
  const listing = await Listing.of(directory, request);
  if (listing.isSmall) return undefined;
  const send = listing.always(request.dockerfile);
  for (let attempt = 0; attempt < 2; attempt++) {
    await using body = await listing.pack(request, send);
    const answer = await transport.post(body, ACCEPTED, [200, 400, 409, 500]);
    if (answer.status === 200) return answer;
    const understood = MANIFEST_HEADER in answer.message.headers;
    if (understood && answer.status === 500) return answer;
    const said = object(await read(answer.message));
    const missing = understood && answer.status === 409 ? named(said?.["missing"], listing.rows.length) : [];
    // A request that is wrong is refused again, with all that it has.
    if (!missing.length) return undefined;
    missing.forEach((number) => send.add(number));
  }
  return undefined;
}

/**
 * Queue a build, and return when the builder has stored it. Needs a builder with a queue.
 *
 * @throws ContextError, Unreachable, Refused: nothing was queued.
 */
export async function submit(source: string | Files, options: SubmitOptions): Promise<BuildInfo> {
  const transport = new Transport(options);
  await using body = await pack(source, requested(options, transport));
  const key = (options.idempotencyKey ?? randomUUID()).replace(/[\\"]/g, "\\$&");
  const headers: Record<string, string> = { Prefer: "respond-async", "Idempotency-Key": `"${key}"` };
  if (options.callbackUrl) headers["X-Callback-Url"] = options.callbackUrl;
  if (options.callbackEvents?.length) headers["X-Callback-Events"] = options.callbackEvents.join(",");
  for (let attempt = 0; ; attempt++) {
    try {
      const answer = await transport.post(body, headers, [200, 202]);
      const document = await transport.document(answer);
      if (answer.status === 202 && typeof document["buildId"] === "string") return document as unknown as BuildInfo;
      throw new Refused(answer.status, "it answered without queueing the build: the builder has no queue");
    } catch (error) {
      // At first an address that does not answer is more likely to be wrong than away.
      if (!(error instanceof Unreachable) || (!attempt && isNotConnected(error))) throw error;
      await transport.pause(error, Math.min(2 ** attempt / 2, 30));
    }
  }
}

/**
 * Follow a submitted build to its end, over lost connections. Leaving it does not stop the build.
 *
 * @throws Unreachable, Refused: the builder does not have the build. BuildFailed: see its `result`.
 */
export async function follow(buildId: string, options: FollowOptions): Promise<BuildResult> {
  const transport = new Transport(options);
  let after = options.after ?? 0;
  for (let attempt = 0; ; attempt++) {
    let problem: Error = new Unreachable("the connection was lost; the build still runs");
    try {
      const answer = await transport.ask("GET", `${path(buildId)}/log${after ? `?after=${after}` : ""}`, { Accept: STREAM });
      const end = await interrupted(options.signal, () =>
        reachEnd(answer, options.onLog, (reached) => {
          after = reached;
          attempt = 0;
        }),
      );
      if (end) return succeeded(end);
    } catch (error) {
      const mayReturn = error instanceof Unreachable ? attempt || !isNotConnected(error) : isAway(error);
      if (!mayReturn) throw error;
      problem = error as Error;
    }
    await transport.pause(problem, Math.min(2 ** attempt / 2, 30));
  }
}

/**
 * Ask how a submitted build stands.
 *
 * @throws Unreachable, Refused.
 */
export async function status(buildId: string, options: Connection): Promise<BuildInfo> {
  const transport = new Transport(options);
  return (await transport.document(await transport.ask("GET", path(buildId)))) as unknown as BuildInfo;
}

/**
 * Stop a submitted build, queued or running.
 *
 * @throws Unreachable, Refused: 409, it has ended before.
 */
export async function cancel(buildId: string, options: Connection): Promise<BuildInfo> {
  const transport = new Transport(options);
  return (await transport.document(await transport.ask("DELETE", path(buildId)))) as unknown as BuildInfo;
}

function requested(options: Sending, transport: Transport): Packed {
  if (!options.image && !options.skipPush) throw new BuilderError("image is missing: name the image to push");
  const given = CONFIG_KEYS.filter((key) => options[key] !== undefined);
  const config = Object.fromEntries(given.map((key) => [key, options[key]]));
  return {
    config: { buildArgs: {}, ...config },
    dockerfile: options.dockerfile || "Dockerfile",
    sealedSecrets: options.sealedSecrets,
    payloadSecret: transport.secret,
    signal: options.signal,
  };
}

/** Read an answer to its last object; undefined if the connection is lost before. */
async function reachEnd(answer: Answer, onLog?: OnLog, onRead?: (after: number) => void): Promise<BuildResult | undefined> {
  const isStream = (answer.message.headers["content-type"] ?? "").startsWith(STREAM);
  const pieces = isStream ? lines(answer.message) : [await read(answer.message)];
  try {
    for await (const piece of pieces) {
      const event = object(piece);
      if (!event) {
        if (isStream && piece.at(-1) !== NEWLINE) return undefined;
        throw new Refused(answer.status, NOT_A_BUILDER);
      }
      if (isResult(event)) {
        const doubt = answer.doubt(piece);
        // A failure needs no proof: an attacker who can forge one can also cut the connection.
        if (doubt && event.status === "success") throw new Unreachable(doubt);
        if (!isStream) report(event as unknown as Record<string, unknown>, onLog);
        return event;
      }
      answer.update(piece);
      report(event, onLog);
      if (typeof event["after"] === "number") onRead?.(event["after"]);
    }
  } catch (error) {
    if (error instanceof BuilderError) throw error;
    if (error instanceof Error && "code" in error) return undefined;
    throw error;
  } finally {
    answer.message.destroy();
  }
  return undefined;
}

function report(event: Record<string, unknown>, onLog?: OnLog): void {
  const log = Array.isArray(event["log"]) ? event["log"] : [];
  const steps = Array.isArray(event["steps"]) ? event["steps"] : [];
  log.forEach((line, index) => onLog?.(String(line), String(steps[index] ?? "")));
}

function succeeded(end: BuildResult): BuildResult {
  if (end.status !== "success") throw new BuildFailed(end);
  return end;
}

async function interrupted<T>(signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
  const result = await work();
  if (result === undefined && signal?.aborted) throw abortReason(signal);
  return result;
}

function path(buildId: string): string {
  return `/builds/${encodeURIComponent(buildId)}`;
}

function isNotConnected(error: Error): boolean {
  const code = (error.cause as { code?: string } | undefined)?.code ?? "";
  return ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH"].includes(code);
}

function isAway(error: unknown): boolean {
  return error instanceof Refused && [429, 502, 503, 504].includes(error.status);
}
