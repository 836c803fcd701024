package cache

import (
	"context"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// maxBatchedValue is the size over which a value is read by itself, so that a batch of many callers stays small.
const maxBatchedValue = 64 << 10

// newGetBatcher returns the batcher of Get. Equal keys share one look-up; a lease is shared by nobody.
func newGetBatcher(pool *postgres.Pool) *postgres.Batcher[lookup, entry] {
	run := func(ctx context.Context, lookups []lookup, results []postgres.Result[entry]) error {
		return pool.WithBatchConn(ctx, func(ctx context.Context, db postgres.Querier) error {
			found, err := getEntries(ctx, db, lookups)
			if err != nil {
				return err
			}
			for i, l := range lookups {
				results[i].Value = found[l.entryKey].acceptedBy(l)
			}
			return leaseMisses(ctx, db, lookups, results)
		})
	}
	return postgres.NewBatcher(postgres.BatcherConfig[lookup]{ReadOnly: true}, run)
}

// acceptedBy returns the entry, or nothing if it is older than the look-up accepts.
func (e entry) acceptedBy(l lookup) entry {
	if e.stale && -*e.ExpiresInSeconds >= l.stale {
		return entry{}
	}
	return e
}

// getEntries reads the live entries among those looked up, which may repeat, and the stale ones that anybody accepts.
// Large values stay behind.
func getEntries(ctx context.Context, db postgres.Querier, lookups []lookup) (map[entryKey]entry, error) {
	const sql = `
		SELECT e.tenant, e.key, e.version, e.expires_at, now(), e.expires_at <= now(), octet_length(e.value),
			CASE WHEN octet_length(e.value) <= $3 THEN e.value END
		FROM unnest($1::text[], $2::text[]) AS wanted (tenant, key)
		JOIN morello.cache_entry AS e ON e.tenant = wanted.tenant AND e.key = wanted.key
		WHERE e.expires_at > now() - make_interval(secs => $4)`
	found := make(map[entryKey]entry, len(lookups))
	tenants, names := make([]string, 0, len(lookups)), make([]string, 0, len(lookups))
	stale := 0.0
	for _, l := range lookups {
		if _, seen := found[l.entryKey]; !seen {
			found[l.entryKey] = entry{}
			tenants, names = append(tenants, l.tenant), append(names, l.key)
		}
		stale = max(stale, l.stale)
	}
	rows, err := db.Query(ctx, sql, tenants, names, maxBatchedValue, stale)
	if err != nil {
		return nil, err
	}
	var key entryKey
	e := entry{found: true}
	var life lifetime
	targets := []any{&key.tenant, &key.key, &e.Version, &life.expiresAt, &life.now, &e.stale, &e.sizeBytes, (*[]byte)(&e.Value)}
	_, err = pgx.ForEachRow(rows, targets, func() error {
		hit := e
		life.apply(&hit.CacheEntry)
		found[key] = hit
		e.Value = nil
		return nil
	})
	return found, err
}

// newSetBatcher returns the batcher of unconditional sets.
func (s *Service) newSetBatcher() *postgres.Batcher[newEntry, messages.CacheSetReply] {
	run := func(ctx context.Context, entries []newEntry, results []postgres.Result[messages.CacheSetReply]) error {
		last, step := collapse(entries)
		return s.pool.WithBatchConn(ctx, func(ctx context.Context, db postgres.Querier) error {
			stored, err := upsert(ctx, db, last, step)
			if err != nil {
				return err
			}
			s.announceOverwritten(stored)
			overtaken := make(map[entryKey]int64, len(last))
			for i, e := range slices.Backward(entries) {
				results[i].Value = stored[e.entryKey].CacheSetReply
				results[i].Value.Version -= overtaken[e.entryKey]
				overtaken[e.entryKey]++
			}
			return nil
		})
	}
	return postgres.NewBatcher(postgres.BatcherConfig[newEntry]{
		Bytes: func(e newEntry) int { return len(e.value) },
	}, run)
}

// collapse keeps the last set of each key, sorted by key, and returns how many sets one key had at most. The earlier
// ones count as done and overtaken in the same moment: they get the versions just below, which no one else has because
// the version grows by at least that many.
func collapse(entries []newEntry) (last []newEntry, step int) {
	sets := make(map[entryKey]int, len(entries))
	for _, e := range slices.Backward(entries) {
		if sets[e.entryKey]++; sets[e.entryKey] == 1 {
			last = append(last, e)
		}
		step = max(step, sets[e.entryKey])
	}
	slices.SortFunc(last, func(a, b newEntry) int { return a.compare(b.entryKey) })
	return last, step
}

// touch is an entry to be renewed.
type touch struct {
	entryKey
	ttl *float64 // seconds; nil: the entry's own
}

func newTouch(tenant string, m messages.CacheTouch) touch {
	t := touch{entryKey: entryKey{tenant, m.Key}}
	if m.TTLSeconds != nil {
		t.ttl = seconds(messages.TTL(m.TTLSeconds, 0))
	}
	return t
}

// newTouchBatcher returns the batcher of Touch.
func newTouchBatcher(pool *postgres.Pool) *postgres.Batcher[touch, messages.CacheTouchReply] {
	run := func(ctx context.Context, touches []touch, results []postgres.Result[messages.CacheTouchReply]) error {
		return pool.WithBatchConn(ctx, func(ctx context.Context, db postgres.Querier) error {
			touched, err := touchEntries(ctx, db, touches)
			for i, t := range touches {
				results[i].Value = touched[t.entryKey]
			}
			return err
		})
	}
	return postgres.NewBatcher(postgres.BatcherConfig[touch]{}, run)
}

// touchEntries renews the live entries among those named. Of several touches of one key the last one decides, as if the
// others had come just before it; each of their callers learns when the entry expires now.
func touchEntries(ctx context.Context, db postgres.Querier, touches []touch) (map[entryKey]messages.CacheTouchReply, error) {
	const sql = `
		UPDATE morello.cache_entry AS e
		SET expires_at = coalesce(now() + coalesce(make_interval(secs => t.ttl), e.ttl), 'infinity'),
			sweep_after = least(e.sweep_after,
				now() + coalesce(make_interval(secs => t.ttl), e.ttl) + make_interval(secs => ` + staleSeconds + `))
		FROM unnest($1::text[], $2::text[], $3::float8[]) AS t (tenant, key, ttl)
		WHERE e.tenant = t.tenant AND e.key = t.key AND e.expires_at > now()
		RETURNING e.tenant, e.key, e.expires_at`
	last := make(map[entryKey]touch, len(touches))
	for _, t := range touches {
		last[t.entryKey] = t
	}
	tenants, keys, ttls := make([]string, 0, len(last)), make([]string, 0, len(last)), make([]*float64, 0, len(last))
	for _, t := range slices.SortedFunc(maps.Values(last), func(a, b touch) int { return a.compare(b.entryKey) }) {
		tenants, keys, ttls = append(tenants, t.tenant), append(keys, t.key), append(ttls, t.ttl)
	}
	rows, err := db.Query(ctx, sql, tenants, keys, ttls)
	if err != nil {
		return nil, err
	}
	touched := make(map[entryKey]messages.CacheTouchReply, len(last))
	var key entryKey
	var life lifetime
	_, err = pgx.ForEachRow(rows, []any{&key.tenant, &key.key, &life.expiresAt}, func() error {
		touched[key] = messages.CacheTouchReply{Touched: true, ExpiresAt: life.time()}
		return nil
	})
	return touched, err
}
