// Callbacks in the form of Standard Webhooks, which the builder sends at the end of a build.
import { createHmac } from "node:crypto";

import type { BuildInfo } from "./builds.js";
import { BuilderError } from "./errors.js";
import { isEqual, sign, trimmed, type Secret } from "./signing.js";

const TOLERANCE = 300;

/** A callback is not the builder's: answer 401, and do nothing. */
export class CallbackRefused extends BuilderError {
  override name = "CallbackRefused";
}

export interface CallbackSecrets {
  /** `whsec_…`. */
  webhookSecret: string;
  /** Checks `X-Build-Signature` too. */
  payloadSecret?: Secret;
}

export interface CallbackEvent {
  /** Equal in each attempt: ignore an event that you have handled before. */
  id: string;
  type: "build.queued" | "build.started" | "build.finished";
  timestamp: string;
  data: BuildInfo;
}

/**
 * The event in a callback's body.
 *
 * @param body its bytes as they were received: JSON that is written again may differ.
 * @param headers as `IncomingMessage.headers` or `Headers` has them.
 * @throws CallbackRefused the body is not signed with these secrets, or is old.
 */
export function verifyCallback(
  body: Uint8Array | string,
  headers: Headers | Record<string, string | string[] | undefined>,
  secrets: CallbackSecrets,
): CallbackEvent {
  const get = (name: string) => String((headers instanceof Headers ? headers.get(name) : headers[name]) ?? "");
  const [id, time, signatures] = [get("webhook-id"), get("webhook-timestamp"), get("webhook-signature")];
  if (!id || !time || !signatures) {
    throw new CallbackRefused("it has no webhook headers: it is not a callback, or a proxy removed them");
  }
  if (!/^\d+$/.test(time) || Math.abs(Date.now() / 1000 - Number(time)) > TOLERANCE) {
    throw new CallbackRefused("its timestamp is more than 5 minutes away: compare the clocks");
  }
  const key = Buffer.from(secrets.webhookSecret.trim().replace(/^whsec_/, ""), "base64");
  const mac = createHmac("sha256", key).update(`${id}.${time}.`).update(body).digest("base64");
  // During a rotation there are two.
  if (!signatures.split(" ").some((each) => isEqual(each, `v1,${mac}`))) {
    throw new CallbackRefused("webhook-signature does not match: compare the webhook secrets");
  }
  if (secrets.payloadSecret !== undefined && !isEqual(get("x-build-signature"), sign(trimmed(secrets.payloadSecret), body))) {
    throw new CallbackRefused("X-Build-Signature does not match: compare the payload secrets");
  }
  const text = typeof body === "string" ? body : Buffer.from(body).toString("utf8");
  return { ...(JSON.parse(text) as Omit<CallbackEvent, "id">), id };
}
