// Package snapshot keeps the states of agents' memory: JSON documents as Merkle trees of content-addressed chunks, so that a
// state that differs a little from an earlier one costs a little.
//
// A document is cut by build.go, its lists by sequence.go and its long strings by cut.go, into chunks (chunk.go), of which store.go
// stores those that the tenant does not have; small creations of different agents in one transaction (together.go), by the same
// statements as one alone. tree.go reads a tree back and compares every chunk with its hash; join puts the document together,
// pointer.go reads a part of it and diff.go compares two. docs/snapshot-format.md describes the format, encoding.go writes the rows.
//
// Who may delete a chunk, and when: a snapshot keeps all chunks of its tree. The statement that creates one relies on chunks that
// it does not write: on those of another snapshot of the agent, whose head it holds as everybody must who deletes one of them, so that
// it stays until the commit; and on those that were touched less than half of the grace ago. All others it writes again, which
// touches them. The sweep (sweep.go) takes the roots of all snapshots in one statement, marks what they reach, and deletes the chunks
// that are neither marked nor were touched within the grace before it began. It may stall for as long as it likes: what a create came to rely on since then was marked, because
// the snapshot that kept it was there when the sweep began, or has been touched. The grace is an hour; a create takes less than
// half of it, because PostgreSQL ends statements that take 5 minutes and transactions that stand still for as long. sweep_test.go
// runs creates, deletions, sweeps and stalls in any order against these rules.
package snapshot
