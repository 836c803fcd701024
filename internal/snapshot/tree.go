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

// nodesSQL begins a statement about the chunks with children, and the roots, of trees of the tenant $1, with some columns of each in the
// common table expression node. It looks each up once on a level; what is on several levels, or under several roots, comes once all
// the same.
func nodesSQL(roots, columns string) string {
	return `
	WITH RECURSIVE root (hash) AS (` + roots + `), node AS (
		SELECT ` + columns + ` FROM (SELECT DISTINCT hash FROM root) AS root, ` + chunkOf(`root`) + `
		UNION
		SELECT ` + columns + ` FROM ` + childrenOf(`nodes`) + `, ` + chunkOf(`child`) + `
	)`
}

const (
	chunkColumns = `c.hash, c.encoding, c.nodes, c.leaves, c.body, c.text`
	childColumns = `c.hash, c.nodes, c.leaves`
)

// childrenOf are the hashes in a column of the nodes, each once.
func childrenOf(column string) string {
	return `(SELECT DISTINCT below.hash FROM node, LATERAL morello.snapshot_hashes(node.` + column + `) AS below (hash)) AS child`
}

// treeSQL begins a statement about the chunks of trees of the tenant $1, each once, in the common table expression reached. Only
// chunks with children are visited on the way.
func treeSQL(roots string) string {
	return nodesSQL(roots, childColumns) + `, reached AS (
		SELECT hash FROM node
		UNION
		SELECT hash FROM ` + childrenOf(`leaves`) + `
	)`
}

// chunksSQL reads the chunks of trees, for collectChunks.
func chunksSQL(roots string) string {
	return nodesSQL(roots, chunkColumns) + `
		SELECT * FROM node
		UNION ALL
		SELECT ` + chunkColumns + ` FROM ` + childrenOf(`leaves`) + `, ` + chunkOf(`child`)
}

// chunkOf joins the chunk c of each row's hash. Nobody knows how many chunks a tree has, so that the planner might scan the table
// for them: OFFSET 0 keeps it from more than looking each up.
func chunkOf(source string) string {
	return `LATERAL (SELECT * FROM morello.snapshot_chunk AS c WHERE c.tenant = $1 AND c.hash = ` + source + `.hash OFFSET 0) AS c`
}

// given are roots that stand in the argument $2.
const given = `SELECT unnest($2::bytea[])`

// chunkBytes is what the row of the chunk c holds, without what its text is filled with (filledBit).
const chunkBytes = `octet_length(c.hash) + coalesce(octet_length(c.nodes), 0) + coalesce(octet_length(c.leaves), 0)
	+ coalesce(octet_length(c.body), 0)
	+ coalesce(octet_length(CASE WHEN c.encoding & 32 = 0 THEN c.text ELSE rtrim(c.text, E'\x1f ') END), 0)`

var givenTreesSQL = chunksSQL(given)

// readTree reads whole trees.
func readTree(ctx context.Context, db postgres.Querier, tenant string, roots ...Hash) (chunks, error) {
	return queryChunks(ctx, db, givenTreesSQL, tenant, roots)
}

// readChunks reads some chunks, without what lies under them.
func readChunks(ctx context.Context, db postgres.Querier, tenant string, hashes []Hash) (chunks, error) {
	return queryChunks(ctx, db, chunksOfSQL, tenant, hashes)
}

const chunksOfSQL = `SELECT ` + chunkColumns + ` FROM morello.snapshot_chunk AS c WHERE c.tenant = $1 AND c.hash = ANY ($2::bytea[])`

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
	_, err := pgx.ForEachRow(rows, r.columns(), func() error {
		hash, c, err := r.decode()
		found[hash] = c
		return err
	})
	return found, err
}

func scanHash(row pgx.CollectableRow) (hash Hash, err error) {
	var joined []byte
	if err = row.Scan(&joined); err == nil {
		copy(hash[:], joined)
	}
	return hash, err
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
