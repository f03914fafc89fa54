import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { test } from "node:test";

import { CallbackRefused, verifyCallback } from "../dist/index.js";

const KEY = Buffer.alloc(32, 7);
const SECRETS = { webhookSecret: `whsec_${KEY.toString("base64")}\n`, payloadSecret: "payload\n" };
const BODY = JSON.stringify({ type: "build.finished", timestamp: "2026-11-28T18:40:00Z", data: { buildId: "1", status: "success" } });

function headers(time = Math.floor(Date.now() / 1000)) {
  const mac = createHmac("sha256", KEY).update(`msg_1.${time}.${BODY}`).digest("base64");
  return {
    "webhook-id": "msg_1",
    "webhook-timestamp": String(time),
    "webhook-signature": `v1,${"A".repeat(43)}= v1,${mac}`,
    "x-build-signature": `sha256=${createHmac("sha256", "payload").update(BODY).digest("hex")}`,
  };
}

test("a signed callback is read", () => {
  const event = verifyCallback(Buffer.from(BODY), headers(), SECRETS);
  assert.equal(event.id, "msg_1");
  assert.equal(event.data.status, "success");
  assert.equal(verifyCallback(BODY, new Headers(headers()), SECRETS).type, "build.finished");
});

test("any other is refused in one line", () => {
  const refused = (body, given, secrets, words) =>
    assert.throws(() => verifyCallback(body, given, secrets), (error) => error instanceof CallbackRefused && words.test(error.message));
  refused(BODY, {}, SECRETS, /no webhook headers/);
  refused(BODY, headers(1_000_000_000), SECRETS, /clocks/);
  refused(`${BODY} `, headers(), SECRETS, /webhook secrets/);
  refused(BODY, headers(), { ...SECRETS, webhookSecret: "whsec_AAAA" }, /webhook secrets/);
  refused(BODY, headers(), { ...SECRETS, payloadSecret: "other" }, /payload secrets/);
});
