// Reads AsyncAPI documents, one for each argument, with the parser of the AsyncAPI initiative. Prints a JSON array with, for
// each document, the messages of its diagnostics of severity error and, if there are none, its operations.
import { readFile } from "node:fs/promises";
import parserPackage from "@asyncapi/parser";

const { Parser } = parserPackage;
const errorSeverity = 0; // of Spectral: error 0, warning 1, information 2, hint 3

async function check(file) {
  const { document, diagnostics } = await new Parser().parse(await readFile(file, "utf8"));
  const errors = diagnostics
    .filter((d) => d.severity === errorSeverity)
    .map((d) => `${d.path.join("/")}: ${d.message} (${d.code})`);
  const operations = errors.length || !document ? [] : document.operations().all().map(describe);
  return { errors, operations };
}

function describe(operation) {
  const reply = operation.reply();
  return {
    name: operation.id(),
    action: operation.action(),
    addresses: operation.channels().all().map((channel) => channel.address()),
    stream: operation.channels().all()[0].json("x-stream") ?? "",
    tenant: operation.channels().all()[0].parameters().all()[0]?.json("x-pattern") ?? "",
    headers: operation.messages().all().flatMap((message) => Object.keys(message.headers()?.properties() ?? {})),
    replies: reply ? reply.messages().all().map((message) => message.name()) : [],
    reply_location: reply?.address()?.location() ?? "",
  };
}

console.log(JSON.stringify(await Promise.all(process.argv.slice(2).map(check))));
