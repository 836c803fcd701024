package snapshot

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// holderWindows are how many snapshots of an agent are looked at, the newest first: most texts are in the head. The last repeats.
var holderWindows = []int{1, 64, 1024, 4096}

// held is a chunk of an agent whose snapshot is looked for.
type held struct {
	agentID string
	hash    Hash
}

// walk goes back through the snapshots of an agent.
type walk struct {
	at   pgtype.Timestamptz
	left []held
}

// candidate is a snapshot that may hold a chunk.
type candidate struct {
	id, agentID string
	root        Hash
	at          pgtype.Timestamptz
}

// holders finds, for each hit, the newest snapshot of its agent that holds the chunk. A hit that no snapshot holds any more, because
// the sweep has not come by yet, is left out; a string that an agent has in several chunks comes once, with the newest that holds one.
func holders(ctx context.Context, db postgres.Querier, tenant, userID string, hits []hit) ([]messages.SnapshotHit, error) {
	walks := map[string]*walk{}
	for _, h := range hits {
		if walks[h.AgentID] == nil {
			walks[h.AgentID] = &walk{at: pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}}
		}
		walks[h.AgentID].left = append(walks[h.AgentID].left, held{h.AgentID, Hash(h.Hash)})
	}
	found := map[held]string{}
	for round := 0; len(walks) > 0; round++ {
		window := holderWindows[min(round, len(holderWindows)-1)]
		candidates, inner, err := readCandidates(ctx, db, tenant, userID, walks, window)
		if err != nil {
			return nil, err
		}
		advance(walks, candidates, inner, window, found)
	}
	return withSnapshots(ctx, db, tenant, hits, found)
}

// advance looks for what is left in the candidates, which come newest first, and ends the walks that have found all or are over.
func advance(walks map[string]*walk, candidates []candidate, inner map[Hash][]Hash, window int, found map[held]string) {
	seen := map[string]int{}
	search := containment{inner: inner, known: map[[2]Hash]bool{}}
	for _, c := range candidates {
		w := walks[c.agentID]
		seen[c.agentID]++
		w.at = c.at
		w.left = slices.DeleteFunc(w.left, func(h held) bool {
			holds := search.holds(c.root, h.hash)
			if holds {
				found[h] = c.id
			}
			return holds
		})
	}
	for agentID, w := range walks {
		if len(w.left) == 0 || seen[agentID] < window {
			delete(walks, agentID)
		}
	}
}

// containment tells whether a tree has a chunk.
type containment struct {
	inner map[Hash][]Hash // children by parent
	known map[[2]Hash]bool
}

func (c containment) holds(root, hash Hash) bool {
	if root == hash {
		return true
	}
	key := [2]Hash{root, hash}
	if holds, known := c.known[key]; known {
		return holds
	}
	holds := slices.ContainsFunc(c.inner[root], func(child Hash) bool { return c.holds(child, hash) })
	c.known[key] = holds
	return holds
}

// readCandidates reads the next snapshots of each agent, and the chunks of their trees that have children, without their text.
func readCandidates(
	ctx context.Context, db postgres.Querier, tenant, userID string, walks map[string]*walk, window int,
) (candidates []candidate, inner map[Hash][]Hash, err error) {
	const next = `
		FROM unnest($2::text[], $3::timestamptz[]) AS agent (agent_id, at), LATERAL (
			SELECT s.snapshot_id, s.agent_id, s.content_hash, s.created_at FROM morello.snapshot AS s
			WHERE s.tenant = $1 AND s.agent_id = agent.agent_id AND s.created_at < agent.at
				AND ($4 = '' OR s.user_id = $4)
			ORDER BY s.created_at DESC LIMIT $5
		) AS s`
	var agents []string
	var ats []pgtype.Timestamptz
	for agentID, w := range walks {
		agents, ats = append(agents, agentID), append(ats, w.at)
	}
	args := []any{tenant, agents, ats, userID, window}
	inner = map[Hash][]Hash{}
	batch := &pgx.Batch{}
	batch.Queue(`SELECT s.snapshot_id::text, s.agent_id, s.content_hash, s.created_at`+next+` ORDER BY s.created_at DESC`, args...).
		Query(func(rows pgx.Rows) (err error) {
			candidates, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (c candidate, err error) {
				var root []byte
				if err = row.Scan(&c.id, &c.agentID, &root, &c.at); err == nil {
					c.root = Hash(root)
				}
				return c, err
			})
			return err
		})
	batch.Queue(nodesSQL(`SELECT s.content_hash`+next, childColumns)+` SELECT * FROM node`, args...).Query(func(rows pgx.Rows) error {
		var hash, nodes, leaves []byte
		_, err := pgx.ForEachRow(rows, []any{&hash, &nodes, &leaves}, func() (err error) {
			inner[Hash(hash)], err = splitHashes(slices.Concat(nodes, leaves))
			return err
		})
		return err
	})
	err = db.SendBatch(ctx, batch).Close()
	return candidates, inner, err
}

// withSnapshots reads the snapshots that were found and puts the hits together.
func withSnapshots(ctx context.Context, db postgres.Querier, tenant string, hits []hit, found map[held]string) ([]messages.SnapshotHit, error) {
	const sql = `SELECT ` + columns + ` FROM morello.snapshot WHERE tenant = $1 AND snapshot_id = ANY ($2::uuid[])`
	ids := []string{}
	for _, id := range found {
		ids = append(ids, id)
	}
	rows, err := db.Query(ctx, sql, tenant, ids)
	if err != nil {
		return nil, err
	}
	snapshots, err := collectSnapshots(rows)
	if err != nil {
		return nil, err
	}
	byID := map[string]messages.Snapshot{}
	for _, s := range snapshots {
		byID[s.SnapshotID] = s
	}
	type said struct{ agentID, headline string }
	newest := map[said]messages.Snapshot{}
	for _, h := range hits {
		text := said{h.AgentID, h.headline}
		if s, there := byID[found[held{h.AgentID, Hash(h.Hash)}]]; there && !s.CreatedAt.Before(newest[text].CreatedAt) {
			newest[text] = s
		}
	}
	list := []messages.SnapshotHit{}
	for _, h := range hits {
		text := said{h.AgentID, h.headline}
		if s, left := newest[text]; left {
			list = append(list, messages.SnapshotHit{Snapshot: s, Rank: float64(h.Rank), Highlights: h.highlights()})
			delete(newest, text)
		}
	}
	return list, nil
}
