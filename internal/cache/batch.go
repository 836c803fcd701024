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
				results[i].Value = found[i].acceptedBy(l)
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

// getEntries reads, for each look-up, the live entry, or the stale one that anybody accepts. Equal keys are looked up once.
// Large values stay behind.
func getEntries(ctx context.Context, db postgres.Querier, lookups []lookup) ([]entry, error) {
	const (
		found = `e.version, e.expires_at, now(), e.expires_at <= now(), octet_length(e.value), CASE WHEN octet_length(e.value) <= $3 THEN e.value END`
		many  = `
			SELECT wanted.place, ` + found + `
			FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS wanted (tenant, key, place)
			JOIN morello.cache_entry AS e ON e.tenant = wanted.tenant AND e.key = wanted.key
			WHERE e.expires_at > (SELECT now() - make_interval(secs => $4))`
		// one is what a lone caller asks for, and takes PostgreSQL a tenth less than many.
		one = `
			SELECT 1, ` + found + `
			FROM morello.cache_entry AS e WHERE e.tenant = $1 AND e.key = $2 AND e.expires_at > now() - make_interval(secs => $4)`
	)
	keys := distinctKeys(lookups)
	sql, args := many, []any{keys.tenants, keys.names, maxBatchedValue, keys.stale}
	if len(keys.names) == 1 {
		sql, args = one, []any{keys.tenants[0], keys.names[0], maxBatchedValue, keys.stale}
	}
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	distinct := make([]entry, len(keys.names))
	var place int // counted from 1
	e := entry{found: true}
	var life lifetime
	targets := []any{&place, &e.Version, &life.expiresAt, &life.now, &e.stale, &e.sizeBytes, (*[]byte)(&e.Value)}
	_, err = pgx.ForEachRow(rows, targets, func() error {
		hit := &distinct[place-1]
		*hit = e
		life.apply(&hit.CacheEntry)
		e.Value = nil
		return nil
	})
	entries := make([]entry, len(lookups))
	for i, place := range keys.places {
		entries[i] = distinct[place]
	}
	return entries, err
}

// distinct are the keys of some look-ups, each once.
type distinct struct {
	tenants, names []string
	places         []int   // of each look-up among them
	stale          float64 // the most that anybody accepts
}

func distinctKeys(lookups []lookup) distinct {
	d := distinct{
		tenants: make([]string, 0, len(lookups)), names: make([]string, 0, len(lookups)), places: make([]int, len(lookups)),
	}
	seen := make(map[entryKey]int, len(lookups))
	for i, l := range lookups {
		place, known := seen[l.entryKey]
		if !known {
			place = len(d.names)
			seen[l.entryKey] = place
			d.tenants, d.names = append(d.tenants, l.tenant), append(d.names, l.key)
		}
		d.places[i] = place
		d.stale = max(d.stale, l.stale)
	}
	return d
}

// newSetBatcher returns the batcher of unconditional sets.
func (s *Service) newSetBatcher() *postgres.Batcher[newEntry, messages.CacheSetReply] {
	run := func(ctx context.Context, entries []newEntry, results []postgres.Result[messages.CacheSetReply]) error {
		last, step := collapse(entries)
		return s.pool.WithBatchConn(ctx, func(ctx context.Context, db postgres.Querier) error {
			stored, err := upsert(ctx, db, last, step, false)
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
func (s *Service) newTouchBatcher() *postgres.Batcher[touch, messages.CacheTouchReply] {
	run := func(ctx context.Context, touches []touch, results []postgres.Result[messages.CacheTouchReply]) error {
		return s.pool.WithBatchConn(ctx, func(ctx context.Context, db postgres.Querier) error {
			touched, err := touchEntries(ctx, db, touches)
			for i, t := range touches {
				results[i].Value = touched[t.entryKey]
			}
			for key := range touched {
				s.counters.hot.sample(key)
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
