// A document that is too large for one message: sent in parts, read back, deleted, with nothing but the NATS client.
// docs/transfer.md says which requests take such a document, and which replies offer one.
import { createHash, randomBytes, randomUUID } from "node:crypto";
import { connect, headers } from "@nats-io/transport-node";

const tenant = process.env.MORELLO_TENANT ?? "demo";
const timeout = 5000; // milliseconds
const partBytes = 512 * 1024;

const nc = await connect({
  servers: process.env.MORELLO_NATS_URL ?? "nats://127.0.0.1:4222",
  inboxPrefix: `_INBOX.${tenant}`, // where the grants of a tenant let it receive replies
});

// request returns the reply of an operation as it came: bytes and headers.
async function request(operation, body, fields = {}) {
  const header = headers();
  header.set("Morello-Timeout-Ms", String(timeout));
  for (const [name, value] of Object.entries(fields)) header.set(name, String(value));
  const reply = await nc.request(`morello.v1.${tenant}.${operation}`, body, { timeout, headers: header });
  if (reply.headers?.get("Nats-Service-Error-Code")) {
    const { code, message } = reply.json().error;
    throw new Error(`${code}: ${message}`);
  }
  return reply;
}

// upload sends a document, four parts at a time, and returns the id to name in a request, as data_transfer_id.
async function upload(document) {
  const id = randomUUID();
  const parts = Math.ceil(document.length / partBytes);
  for (let first = 0; first < parts; first += 4) {
    const some = Array.from({ length: Math.min(4, parts - first) }, (_, i) => first + i);
    await Promise.all(some.map((part) => {
      const data = document.subarray(part * partBytes, (part + 1) * partBytes);
      return request("transfer.put", data, { "Morello-Transfer": id, "Morello-Part": part });
    }));
  }
  return id;
}

// download returns the document of a transfer, which a reply offers as data_transfer {transfer_id, parts, size_bytes, sha256}.
async function download(transferID) {
  const data = [];
  for (let part = 0, parts = 1; part < parts; part++) {
    const reply = await request("transfer.get", JSON.stringify({ transfer_id: transferID, part }));
    parts = Number(reply.headers.get("Morello-Parts"));
    data.push(reply.data);
  }
  return Buffer.concat(data);
}

const sha256 = (data) => createHash("sha256").update(data).digest("hex");

try {
  const document = randomBytes(3_000_000);
  const id = await upload(document);
  const back = await download(id);
  console.log("bytes:", back.length, "same:", sha256(back) === sha256(document));

  const deleted = await request("transfer.delete", JSON.stringify({ transfer_id: id }));
  console.log("deleted:", deleted.json().deleted);
  await download(id);
} catch (error) {
  console.log("error:", error.message);
} finally {
  await nc.drain();
}
