package snapshot

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

const (
	// maxRanked matches are ranked: the newest.
	maxRanked = 1000
	// maxMatches is how many matches are sorted by age. Of a word with more the newest stretches of chunks are looked at first.
	maxMatches = 20_000
	// firstStretches are looked at together, then twice as many, and so on, up to maxStretches.
	firstStretches = 4
	maxStretches   = 64
	stretchBits    = 12 // as in the function morello.snapshot_words
	// stretchesLooked bounds what is looked at for a filter that few matches pass: 2 million chunks.
	stretchesLooked = 512
)

// query is a search as PostgreSQL understands it.
type query struct {
	whole  string // a tsquery
	wanted string // the words that must be there, for the index: a chunk may hold an unwanted one in another of its strings
	newest int64  // the newest stretch of chunks
}

// rank is the place of a hit in the order of hits.
type rank struct {
	Rank    float32 `json:"rank"`
	Hash    []byte  `json:"hash"`
	AgentID string  `json:"agent_id"`
}

// hit is a string that matches, for one agent.
type hit struct {
	rank
	headline string
}

// Search finds chunks whose strings have the words, ranks the newest of them, and looks for the newest snapshot of each agent that
// holds them.
func (s *Service) Search(ctx context.Context, tenant string, m messages.SnapshotSearch) (messages.SnapshotSearchReply, error) {
	if err := bus.Reserve(ctx, messages.MaxPageBytes); err != nil {
		return messages.SnapshotSearchReply{}, err
	}
	filters := m
	filters.Page = messages.Page{}
	var capped bool
	hits, next, err := postgres.ReadPage(ctx, s.pool, postgres.Listing{Operation: messages.SnapshotSearchEndpoint.Name, Tenant: tenant, Filters: filters}, m.Cursor,
		func(ctx context.Context, db postgres.Querier, from rank) (page []hit, more bool, err error) {
			q, err := parseQuery(ctx, db, m.Query)
			if err != nil {
				return nil, false, err
			}
			var matches [][]byte
			if matches, capped, err = newestMatches(ctx, db, tenant, q, m.AgentID); err != nil {
				return nil, false, err
			}
			return rankMatches(ctx, db, tenant, q, matches, m, from)
		}, func(last hit) rank { return last.rank })
	if err != nil {
		return messages.SnapshotSearchReply{}, err
	}
	reply := messages.SnapshotSearchReply{NextCursor: next, Capped: capped}
	reply.Hits, err = postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) ([]messages.SnapshotHit, error) {
		return holders(ctx, db, tenant, m.UserID, hits)
	})
	return reply, err
}

func parseQuery(ctx context.Context, db postgres.Querier, text string) (q query, err error) {
	const sql = `
		SELECT q::text, querytree(q), (SELECT last_value FROM morello.snapshot_chunk_seq_seq) >> $2
		FROM websearch_to_tsquery(morello.text_config(), $1) AS q`
	if err = db.QueryRow(ctx, sql, text, stretchBits).Scan(&q.whole, &q.wanted, &q.newest); err != nil {
		return q, err
	}
	if q.wanted == "" || q.wanted == "T" {
		err = messages.Invalid("query", "must hold a word that is wanted")
	}
	return q, err
}

// newestMatches returns up to maxRanked chunks that hold the words, those of an agent if it is named, the newest first, and
// whether there are more.
func newestMatches(ctx context.Context, db postgres.Querier, tenant string, q query, agentID string) (matches [][]byte, capped bool, err error) {
	words := fmt.Sprintf("' %s' & ( %s )", tenant, q.wanted)
	matches, found, err := match(ctx, db, tenant, words, agentID)
	if err != nil || found <= maxMatches {
		return matches[:min(len(matches), maxRanked)], len(matches) > maxRanked, err
	}
	matches = nil
	looked := int64(0)
	for last, width := q.newest, int64(firstStretches); last >= 0 && len(matches) <= maxRanked && looked < stretchesLooked; width = min(2*width, maxStretches) {
		var stretches []string
		for n := last; n > max(last-width, -1); n-- {
			stretches = append(stretches, fmt.Sprintf("' #%d'", n))
		}
		some, _, err := match(ctx, db, tenant, words+" & ( "+strings.Join(stretches, " | ")+" )", agentID)
		if err != nil {
			return nil, false, err
		}
		matches = append(matches, some...)
		last -= width
		looked += width
	}
	return matches[:min(len(matches), maxRanked)], true, nil
}

// match reads up to maxRanked + 1 of the chunks with the words, the newest first, and how many there are, up to maxMatches + 1.
// Without the condition on the tenant inside, whose word is among the words, the planner has no other index to choose.
func match(ctx context.Context, db postgres.Querier, tenant, words, agentID string) (matches [][]byte, found int, err error) {
	const onlyIndexes = `SELECT set_config('enable_seqscan', 'off', true)`
	const sql = `
		WITH matched AS MATERIALIZED (
			SELECT tenant, hash, seq FROM morello.snapshot_chunk
			WHERE text IS NOT NULL AND morello.snapshot_words(tenant, seq, text) @@ $2::tsquery LIMIT $4 + 1
		)
		SELECT (SELECT count(*) FROM matched), ARRAY(
			SELECT hash FROM matched
			WHERE tenant = $1 AND ($3 = '' OR EXISTS (
				SELECT FROM morello.snapshot_text AS t WHERE t.tenant = $1 AND t.hash = matched.hash AND t.agent_id = $3))
			ORDER BY seq DESC LIMIT $5 + 1)`
	batch := &pgx.Batch{}
	batch.Queue(onlyIndexes)
	batch.Queue(sql, tenant, words, agentID, maxMatches, maxRanked).QueryRow(func(row pgx.Row) error { return row.Scan(&found, &matches) })
	err = db.SendBatch(ctx, batch).Close()
	return matches, found, err
}

// rankMatches reads a page of hits: of each chunk the string that ranks highest, for each agent that has, or had, the chunk.
func rankMatches(
	ctx context.Context, db postgres.Querier, tenant string, q query, matches [][]byte, m messages.SnapshotSearch, from rank,
) (page []hit, more bool, err error) {
	sql := `
		WITH page AS MATERIALIZED (
			SELECT best.rank, c.hash, agent.agent_id, best.string
			FROM unnest($2::bytea[]) AS match (hash), ` + chunkOf(`match`) + `,
				LATERAL (
					SELECT string, ts_rank(words, $3::tsquery) AS rank
					FROM unnest(string_to_array(c.text, E'\x1f')) AS string, to_tsvector(morello.text_config(), string) AS words
					WHERE words @@ $3::tsquery ORDER BY 2 DESC, 1 LIMIT 1
				) AS best,
				LATERAL (
					SELECT t.agent_id FROM morello.snapshot_text AS t
					WHERE t.tenant = $1 AND t.hash = c.hash AND ($4 = '' OR t.agent_id = $4) AND (
						$6::bytea IS NULL OR best.rank < $5 OR best.rank = $5 AND (c.hash > $6 OR c.hash = $6 AND t.agent_id > $7))
					ORDER BY t.agent_id LIMIT $8 + 1
				) AS agent
			ORDER BY 1 DESC, 2, 3 LIMIT $8 + 1
		)
		SELECT rank, hash, agent_id, ts_headline(morello.text_config(), string, $3::tsquery,
			'StartSel=**, StopSel=**, MaxFragments=2, MinWords=8, MaxWords=25, ShortWord=0, FragmentDelimiter="` + "\x1e" + `"')
		FROM page ORDER BY 1 DESC, 2, 3`
	rows, err := db.Query(ctx, sql, tenant, matches, q.whole, m.AgentID, from.Rank, from.Hash, from.AgentID, m.Size())
	if err != nil {
		return nil, false, err
	}
	page, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (h hit, err error) {
		err = row.Scan(&h.Rank, &h.Hash, &h.AgentID, &h.headline)
		return h, err
	})
	more = len(page) > m.Size()
	return page[:min(len(page), m.Size())], more, err
}

// highlights takes the pieces of a headline apart.
func (h hit) highlights() []string { return strings.Split(h.headline, "\x1e") }
