// Receive callbacks of builds: node callback.mjs [HOST:PORT]
import { createHmac, timingSafeEqual } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";

import { Webhook } from "standardwebhooks";

const MAX_BODY_BYTES = 20_000;

const hints = {
  "Missing required headers": "this is not a callback, or a proxy removed webhook-* headers",
  "Message timestamp too old": "compare the clocks; an old callback may have been sent again",
  "Message timestamp too new": "compare the clocks",
  "No matching signature found": "compare the webhook secrets; verify the bytes as received",
};

// The event in a callback's body; throws an Error that says in one line what is wrong. Give it the
// body's bytes as they were received: parsed and written again, they may differ.
export function verify(body, headers, webhookSecret, payloadSecret) {
  let event;
  try {
    event = new Webhook(webhookSecret).verify(body, headers);
  } catch (error) {
    throw new Error(`${error.message}: ${hints[error.message] ?? "is this a callback?"}`);
  }
  // The same body under the payload secret, as a request to build is signed.
  const mac = "sha256=" + createHmac("sha256", payloadSecret).update(body).digest("hex");
  const sent = Buffer.from(headers["x-build-signature"] ?? "");
  if (sent.length !== mac.length || !timingSafeEqual(sent, Buffer.from(mac))) {
    throw new Error("X-Build-Signature does not match: compare the payload secrets");
  }
  return event;
}

export async function readBody(request) {
  const pieces = [];
  let size = 0;
  for await (const piece of request) {
    size += piece.length;
    if (size > MAX_BODY_BYTES) throw new Error("too large for a callback");
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

async function secret(variable, otherwise) {
  try {
    return (await readFile(process.env[variable] ?? otherwise, "utf8")).trim();
  } catch (error) {
    throw new Error(`set ${variable} to the file with the secret: ${error.message}`);
  }
}

async function main() {
  const { hostname, port } = new URL(`http://${process.argv[2] ?? "127.0.0.1:9000"}`);
  const webhookSecret = await secret("WEBHOOK_SECRET_FILE", ".run/webhook-secret");
  const payloadSecret = await secret("OPENFAAS_PAYLOAD_SECRET", ".run/payload-secret");
  const seen = new Set(); // keep it in a database: a callback may come twice, with one id
  const server = createServer(async (request, response) => {
    try {
      const event = verify(await readBody(request), request.headers, webhookSecret, payloadSecret);
      const id = request.headers["webhook-id"];
      if (!seen.has(id)) console.log(event.type, event.data.buildId, event.data.status);
      seen.add(id);
      response.writeHead(204).end();
    } catch (error) {
      console.error(`refused: ${error.message}`);
      response.writeHead(401).end(error.message);
    }
  });
  server.listen(Number(port), hostname, () => {
    console.log(`receiving on http://${hostname}:${server.address().port}/`);
  });
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await main().catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
}
