package snapshot

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/postgres"
)

var givenNodesSQL = nodesSQL(given, chunkColumns) + ` SELECT * FROM node`

// assemble reads a document of so many bytes without holding its chunks, which would be the document once more: the nodes of its
// tree say where each leaf belongs, and the leaves are put there as they come.
func assemble(ctx context.Context, db postgres.Querier, tenant string, root Hash, size int64) ([]byte, error) {
	nodes, err := queryChunks(ctx, db, givenNodesSQL, tenant, []Hash{root})
	if err != nil {
		return nil, err
	}
	a := assembly{document: make([]byte, min(size, maxDocument)), nodes: nodes, places: map[Hash][]extent{}}
	if err := a.put(root, extent{0, len(a.document)}); err != nil {
		return nil, err
	}
	a.nodes = nil
	if err := a.readLeaves(ctx, db, tenant); err != nil {
		return nil, err
	}
	for hash := range a.places {
		return nil, &fault{hash, errMissing}
	}
	return a.document, nil
}

// assembly is a document that is being put together.
type assembly struct {
	document []byte
	nodes    chunks
	places   map[Hash][]extent // where the leaves belong that are still to come
}

// extent is a range of the document.
type extent struct{ start, end int }

// put writes what stands in a node and in those under it, and notes the places of leaves.
func (a *assembly) put(hash Hash, p extent) error {
	c := a.nodes[hash]
	if c == nil {
		return &fault{hash, errMissing}
	}
	parts, err := c.segments()
	if err != nil {
		return &fault{hash, err}
	}
	for _, part := range parts {
		own := extent{p.start, p.start + int(part.size)}
		if own.end > p.end {
			return &fault{hash, errMalformed}
		}
		p.start = own.end
		switch {
		case part.kind == literal:
			copy(a.document[own.start:own.end], part.bytes)
		case part.node:
			if err := a.put(part.hash, own); err != nil {
				return err
			}
		default:
			a.places[part.hash] = append(a.places[part.hash], own)
		}
	}
	if p.start != p.end {
		return &fault{hash, errMalformed}
	}
	return nil
}

// readLeaves puts each leaf in its places.
func (a *assembly) readLeaves(ctx context.Context, db postgres.Querier, tenant string) error {
	leaves := make([]Hash, 0, len(a.places))
	for hash := range a.places {
		leaves = append(leaves, hash)
	}
	rows, err := db.Query(ctx, chunksOfSQL, tenant, asBytes(leaves))
	if err != nil {
		return err
	}
	var r row
	_, err = pgx.ForEachRow(rows, r.columns(), func() error {
		hash, c, err := r.decode()
		if err != nil {
			return err
		}
		for _, p := range a.places[hash] {
			if !c.isLeaf() || len(c.body) != p.end-p.start {
				return &fault{hash, errMalformed}
			}
			copy(a.document[p.start:p.end], c.body)
		}
		delete(a.places, hash)
		return nil
	})
	return err
}
