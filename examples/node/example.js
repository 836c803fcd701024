// A value in the cache of a tenant, a miss, and a failure, with nothing but the NATS client.
import { connect, headers } from "@nats-io/transport-node";

const tenant = process.env.MORELLO_TENANT ?? "demo";
const timeout = 2000; // milliseconds

const nc = await connect({
  servers: process.env.MORELLO_NATS_URL ?? "nats://127.0.0.1:4222",
  inboxPrefix: `_INBOX.${tenant}`, // where the grants of a tenant let it receive replies
});

class MorelloError extends Error {
  constructor({ code, message, retryable, details }) {
    super(message);
    Object.assign(this, { code, retryable, details });
  }
}

// call sends a request and returns its reply. A failure of the operation is a MorelloError; one of NATS (nobody listens,
// no reply in time) is an error of the NATS client.
async function call(operation, request) {
  const header = headers();
  header.set("Morello-Timeout-Ms", String(timeout)); // so that the worker drops what nobody waits for
  const subject = `morello.v1.${tenant}.${operation}`;
  const reply = await nc.request(subject, JSON.stringify(request), { timeout, headers: header });
  const body = reply.json();
  if (reply.headers?.get("Nats-Service-Error-Code")) throw new MorelloError(body.error);
  return body;
}

try {
  const value = { steps: ["read", "think"] };
  const set = await call("cache.set", { key: "plan:42", value, ttl_seconds: 600, tags: ["agent:7"] });
  console.log("set: stored", set.stored);

  const hit = await call("cache.get", { key: "plan:42" });
  console.log("get: found", hit.found, JSON.stringify(hit.value));

  const miss = await call("cache.get", { key: "plan:43" });
  console.log("get: found", miss.found);

  await call("cache.set", { key: "plan:42", value, ttl_seconds: 0 });
} catch (error) {
  if (!(error instanceof MorelloError)) throw error;
  console.log(`error: ${error.code}: ${error.details.field} ${error.message}`);
} finally {
  await nc.drain();
}
