// A second reader of docs/snapshot-format.md, written from that page alone. It reads a file of documents, a JSON array of
// {root, bytes, sha256, rows: [{hash, encoding, nodes, leaves, body, text}]} with bytes in base64, verifies every chunk, and prints a JSON
// array of the documents in base64, or of what is wrong with them.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { decompress } from 'fzstd'

const bytes = (base64) => Buffer.from(base64 ?? '', 'base64')
const sha256 = (data) => createHash('sha256').update(data).digest()

const varint = (n) => {
  const out = []
  for (; n > 127; n = Math.floor(n / 128)) out.push(n % 128 | 128)
  return Buffer.from([...out, n])
}

const escape = (text, ascii) => {
  const short = { '"': '\\"', '\\': '\\\\', '\b': '\\b', '\t': '\\t', '\n': '\\n', '\f': '\\f', '\r': '\\r' }
  const long = (unit) => '\\u' + unit.charCodeAt(0).toString(16).padStart(4, '0')
  return text.replace(ascii ? /["\\]|[^ -~]/g : /["\\\x00-\x1f]/g, (unit) => short[unit] ?? long(unit)) // of UTF-16, so pairs become two
}

const known = 8 | 16 | 32 | 7

const textOf = (row) => row.encoding & 32 ? row.text.slice(0, row.text.lastIndexOf('\u001f')) : row.text

const withStrings = (frame, strings) => {
  let next = 0
  const body = frame.replace(/"(?:[^"\\]|\\.)*"(:?)/g, (string, colon) => colon ? string : `"${strings[next++]}"`)
  if (next !== strings.length) throw new Error('the strings are not as many as their places')
  return body
}

const bodyOf = (row) => {
  const stored = () => bytes(row.body)
  const unpacked = () => Buffer.from(decompress(stored()))
  if ((row.encoding & ~known) === 0) {
    const form = row.encoding & 7
    switch (form) {
      case 0: return stored()
      case 1: return unpacked()
      case 2: case 3: return Buffer.from(escape(textOf(row), form === 3))
      case 4: case 5: {
        const frame = (row.encoding & 16 ? unpacked() : stored()).toString()
        return Buffer.from(withStrings(frame, textOf(row).split('\u001f').map((plain) => escape(plain, form === 5))))
      }
    }
  }
  throw new Error(`encoding ${row.encoding} is of a later version`)
}

const hashes = (joined) => {
  const list = []
  for (let at = 0; at < joined.length; at += 32) list.push(joined.subarray(at, at + 32))
  return list
}

const chunkOf = (row) => {
  const chunk = { nodes: hashes(bytes(row.nodes)), leaves: hashes(bytes(row.leaves)), body: bodyOf(row) }
  const preimage = Buffer.concat([
    Buffer.from([row.encoding & 8 ? 1 : 0]),
    varint(chunk.nodes.length), ...chunk.nodes, varint(chunk.leaves.length), ...chunk.leaves, chunk.body
  ])
  if (!sha256(preimage).equals(bytes(row.hash))) throw new Error(`chunk ${bytes(row.hash).toString('hex')} is damaged`)
  return chunk
}

const read = (chunks, hash) => {
  const chunk = chunks.get(hash.toString('hex'))
  if (!chunk) throw new Error(`chunk ${hash.toString('hex')} is missing`)
  const { body } = chunk
  if (chunk.nodes.length + chunk.leaves.length === 0) return body
  let at = 0
  const number = () => {
    for (let n = 0, scale = 1; ; scale *= 128) {
      const byte = body[at++]
      n += (byte & 127) * scale
      if (byte < 128) return n
    }
  }
  const parts = []
  let nodes = 0
  let leaves = 0
  while (at < body.length) {
    const tag = number()
    const kind = tag % 8
    const count = Math.floor(tag / 16)
    if (kind === 0) {
      parts.push(body.subarray(at, at + count))
      at += count
      continue
    }
    if (kind > 4) throw new Error(`kind ${kind} is of a later version`)
    const size = number()
    const part = read(chunks, tag & 8 ? chunk.nodes[nodes++] : chunk.leaves[leaves++])
    if (part.length !== size) throw new Error('a reference stands for another number of bytes')
    parts.push(part)
  }
  if (nodes !== chunk.nodes.length || leaves !== chunk.leaves.length) throw new Error('a child is not referred to')
  return Buffer.concat(parts)
}

const readDocument = ({ root, bytes: size, sha256: sum, rows }) => {
  const chunks = new Map(rows.map((row) => [bytes(row.hash).toString('hex'), chunkOf(row)]))
  const document = read(chunks, bytes(root))
  if (document.length !== size || !sha256(document).equals(bytes(sum))) throw new Error('the document is another')
  return document.toString('base64')
}

const documents = JSON.parse(readFileSync(process.argv[2], 'utf8'))
console.log(JSON.stringify(documents.map((document) => {
  try {
    return readDocument(document)
  } catch (error) {
    return error.message
  }
})))
