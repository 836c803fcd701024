// All that a program needs to call Morello, with nothing but the NATS client.
import { connect, headers } from "@nats-io/transport-node";

const tenant = process.env.MORELLO_TENANT ?? "demo";
const timeout = 2000; // milliseconds

export class MorelloError extends Error {
  constructor({ code, message, retryable, details }) {
    super(message);
    Object.assign(this, { code, retryable, details });
  }
}

// open returns the connection, and call, which sends a request and returns its reply. A failure of the operation is a
// MorelloError; one of NATS (nobody listens, no reply in time) is an error of the NATS client.
export async function open() {
  const nc = await connect({
    servers: process.env.MORELLO_NATS_URL ?? "nats://127.0.0.1:4222",
    inboxPrefix: `_INBOX.${tenant}`, // where the grants of a tenant let it receive replies
  });
  async function call(operation, request) {
    const header = headers();
    header.set("Morello-Timeout-Ms", String(timeout)); // so that the worker drops what nobody waits for
    const subject = `morello.v1.${tenant}.${operation}`;
    const reply = await nc.request(subject, JSON.stringify(request), { timeout, headers: header });
    const body = reply.json();
    if (reply.headers?.get("Nats-Service-Error-Code")) throw new MorelloError(body.error);
    return body;
  }
  return { nc, call };
}
