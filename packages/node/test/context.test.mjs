// A context that is written while its call ends.
import assert from "node:assert/strict";
import { test } from "node:test";

import { pack } from "../dist/context.js";

test("an aborted call is not an error of the context", async () => {
  for (const [signal, name] of [
    [AbortSignal.abort(), "AbortError"],
    [AbortSignal.abort(new DOMException("too late", "TimeoutError")), "TimeoutError"],
  ]) {
    const packed = pack({ Dockerfile: "FROM scratch" }, { config: {}, dockerfile: "Dockerfile", signal });
    await assert.rejects(packed, { name });
  }
});
