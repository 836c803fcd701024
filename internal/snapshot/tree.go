package snapshot

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/postgres"
)

// maxDocument is how large a document may be, in bytes without white space.
const maxDocument = 64 << 20

// chunks are those that were read, by their hashes.
type chunks map[Hash]*chunk

// treeSQL reads the chunks of the trees with the roots $2, each once. Only chunks with children are visited on the way.
const treeSQL = `
	WITH RECURSIVE node (hash) AS (
		SELECT unnest($2::bytea[])
		UNION
		SELECT child FROM node JOIN morello.snapshot_chunk AS c ON c.tenant = $1 AND c.hash = node.hash,
			LATERAL morello.snapshot_hashes(c.nodes) AS child
	), reached AS (
		SELECT hash FROM node
		UNION
		SELECT child FROM node JOIN morello.snapshot_chunk AS c ON c.tenant = $1 AND c.hash = node.hash,
			LATERAL morello.snapshot_hashes(c.leaves) AS child
	)`

// readTree reads whole trees.
func readTree(ctx context.Context, db postgres.Querier, tenant string, roots ...Hash) (chunks, error) {
	const sql = treeSQL + `
		SELECT c.hash, c.encoding, c.nodes, c.leaves, c.body, c.text
		FROM reached JOIN morello.snapshot_chunk AS c ON c.tenant = $1 AND c.hash = reached.hash`
	return queryChunks(ctx, db, sql, tenant, roots)
}

// readChunks reads some chunks, without what lies under them.
func readChunks(ctx context.Context, db postgres.Querier, tenant string, hashes []Hash) (chunks, error) {
	const sql = `
		SELECT c.hash, c.encoding, c.nodes, c.leaves, c.body, c.text
		FROM morello.snapshot_chunk AS c WHERE c.tenant = $1 AND c.hash = ANY ($2::bytea[])`
	return queryChunks(ctx, db, sql, tenant, hashes)
}

func queryChunks(ctx context.Context, db postgres.Querier, sql, tenant string, hashes []Hash) (chunks, error) {
	rows, err := db.Query(ctx, sql, tenant, asBytes(hashes))
	if err != nil {
		return nil, err
	}
	return collectChunks(rows)
}

// collectChunks reads chunks and compares each with its hash.
func collectChunks(rows pgx.Rows) (chunks, error) {
	found := chunks{}
	var r row
	_, err := pgx.ForEachRow(rows, []any{&r.Hash, &r.Encoding, &r.Nodes, &r.Leaves, &r.Body, &r.Text}, func() error {
		hash, c, err := r.decode()
		found[hash] = c
		return err
	})
	return found, err
}

// treeHashes returns the hashes of all chunks of a tree.
func treeHashes(ctx context.Context, db postgres.Querier, tenant string, root Hash) ([]Hash, error) {
	const sql = treeSQL + ` SELECT hash FROM reached`
	rows, err := db.Query(ctx, sql, tenant, asBytes([]Hash{root}))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (hash Hash, err error) {
		var joined []byte
		if err = row.Scan(&joined); err == nil {
			copy(hash[:], joined)
		}
		return hash, err
	})
}

func asBytes(hashes []Hash) [][]byte {
	list := make([][]byte, len(hashes))
	for i := range hashes {
		list[i] = hashes[i][:]
	}
	return list
}

// join puts the text of a chunk together, size bytes of it.
func (all chunks) join(root Hash, size int64) ([]byte, error) {
	document := make([]byte, 0, size)
	document, err := all.append(document, root)
	return document, err
}

func (all chunks) append(dst []byte, hash Hash) ([]byte, error) {
	c := all[hash]
	if c == nil {
		return nil, &fault{hash, errMissing}
	}
	if c.isLeaf() {
		return append(dst, c.body...), nil
	}
	parts, err := c.segments()
	if err != nil {
		return nil, &fault{hash, err}
	}
	for _, part := range parts {
		if part.kind == literal {
			dst = append(dst, part.bytes...)
			continue
		}
		if dst, err = all.append(dst, part.hash); err != nil {
			return nil, err
		}
		if len(dst) > maxDocument {
			return nil, &fault{hash, errMalformed}
		}
	}
	return dst, nil
}

