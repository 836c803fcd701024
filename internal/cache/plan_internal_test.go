package cache

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/messages"
)

// TestTagsReadWhatTheyReturn: 5 matches among 300 000 tagged entries cost a few pages, not those of the tenant.
func TestTagsReadWhatTheyReturn(t *testing.T) {
	t.Parallel()
	db, err := pgx.Connect(t.Context(), devtest.Database(t))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close(context.Background())) })
	for _, sql := range []string{
		`INSERT INTO morello.cache_entry (tenant, key, value, version, expires_at, sweep_after, created_at, tags)
			SELECT 'acme', 'key-' || n, '1', 1, 'infinity', 'infinity', now(),
				CASE WHEN n % 60000 = 0 THEN ARRAY['common', 'rare'] ELSE ARRAY['common'] END
			FROM generate_series(1, 300000) AS n`,
		`INSERT INTO morello.cache_tag SELECT tenant, tag, key FROM morello.cache_entry, unnest(tags) AS own (tag)`,
		`VACUUM ANALYZE morello.cache_entry, morello.cache_tag`, // as autovacuum would
	} {
		_, err := db.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	const pagesSQL = `
		SELECT sum(pg_stat_get_xact_blocks_fetched(c.oid))::bigint FROM pg_class AS c
		WHERE c.relname IN ('cache_entry', 'cache_tag', 'cache_entry_pkey', 'cache_tag_pkey')`
	for _, c := range []struct {
		match messages.Match
		pages int64
	}{
		{messages.MatchAny, 100},
		{messages.MatchAll, 200}, // it counts up to 1000 of each tag, to walk the rarest
	} {
		tx, err := db.Begin(t.Context()) // within it the counts only grow
		require.NoError(t, err)
		pages := func() (n int64) {
			require.NoError(t, tx.QueryRow(t.Context(), pagesSQL).Scan(&n))
			return n
		}
		before := pages()
		request := messages.CacheGetByTags{Tags: []string{"rare"}, Match: c.match}
		if c.match == messages.MatchAll {
			request.Tags = []string{"common", "rare"}
		}
		page, err := readTagPage(t.Context(), tx, "acme", request, "", true)
		require.NoError(t, err)
		require.Len(t, page.entries, 5)
		require.LessOrEqual(t, pages()-before, c.pages, c.match)
		require.NoError(t, tx.Commit(t.Context()))
	}
}
