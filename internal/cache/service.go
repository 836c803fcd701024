package cache

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/semaphore"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// defaultLargeBytes bounds the large values that are in memory at once when the configuration does not.
const defaultLargeBytes = 128 << 20

// Config sets up a Service.
type Config struct {
	// Invalidated is told which entries were deleted, cleared or overwritten, once for each batch and tenant, after the
	// change is durable. It must not wait. Defaults to nothing.
	Invalidated func(tenant string, event messages.CacheInvalidated)
	// LargeBytes bounds the bytes of values over 64 KiB, and of replies of get_many, that are read at once.
	// Defaults to 128 MiB.
	LargeBytes int64
	// Log defaults to slog.Default.
	Log *slog.Logger
}

// Service answers the operations of the cache. All methods are safe for concurrent use. Close it at the end.
type Service struct {
	pool     *postgres.Pool
	gets     *postgres.Batcher[lookup, entry]
	sets     *postgres.Batcher[newEntry, messages.CacheSetReply]
	touches  *postgres.Batcher[touch, messages.CacheTouchReply]
	counters *counters
	large    *semaphore.Weighted
	maxLarge int64

	invalidated func(tenant string, event messages.CacheInvalidated)
}

// isLarge reports whether the value must be read by itself.
func (e entry) isLarge() bool { return e.found && e.Value == nil }

// New returns a service. Its counters are written to the database every two seconds until Close.
func New(pool *postgres.Pool, cfg Config) *Service {
	if cfg.LargeBytes <= 0 {
		cfg.LargeBytes = defaultLargeBytes
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	s := &Service{pool: pool, maxLarge: cfg.LargeBytes, large: semaphore.NewWeighted(cfg.LargeBytes), invalidated: cfg.Invalidated}
	if s.invalidated == nil {
		s.invalidated = func(string, messages.CacheInvalidated) {}
	}
	s.gets = newGetBatcher(pool)
	s.sets = s.newSetBatcher()
	s.touches = newTouchBatcher(pool)
	s.counters = newCounters(pool, cfg.Log)
	return s
}

// Close ends the work at hand and writes the last counts. Call it when no request can come any more.
func (s *Service) Close(ctx context.Context) {
	s.gets.Close()
	s.sets.Close()
	s.touches.Close()
	s.counters.close(ctx)
}

// entryKey is a key with its tenant.
type entryKey struct{ tenant, key string }

// lookup is what Get asks for.
type lookup struct {
	entryKey
	lease bool
	stale float64 // seconds
}

// entry is an entry as a statement reads it, live or stale; without value when that is too large to come with others.
type entry struct {
	messages.CacheEntry
	found     bool
	stale     bool
	sizeBytes int64
	lease     string // the token, for who is to compute the value
	wait      bool   // another computes it
}

// Get returns the live entry of a key. A miss, an expired entry included, is found:false; with a lease token for one of
// those who ask for it, and with a value that has expired for those who accept it.
func (s *Service) Get(ctx context.Context, tenant string, m messages.CacheGet) (messages.CacheGetReply, error) {
	found, err := s.gets.Do(ctx, newLookup(tenant, m))
	if err == nil && found.isLarge() {
		found, err = s.getLarge(ctx, tenant, m, found)
	}
	return s.getReply(tenant, found, err)
}

// beginGet is Get without waiting.
func (s *Service) beginGet(d bus.Deferred[messages.CacheGetReply], tenant string, m messages.CacheGet) {
	s.gets.Submit(d.Deadline(), newLookup(tenant, m), func(found entry, err error) {
		if err == nil && found.isLarge() {
			d.Go(func(ctx context.Context) (messages.CacheGetReply, error) {
				found, err := s.getLarge(ctx, tenant, m, found)
				return s.getReply(tenant, found, err)
			})
			return
		}
		d.Reply(s.getReply(tenant, found, err))
	})
}

func newLookup(tenant string, m messages.CacheGet) lookup {
	return lookup{entryKey{tenant, m.Key}, m.Lease, m.StaleSeconds}
}

// leaseWaitMS is the hint to who must wait for another's value: long enough to spare the database, short enough to be
// soon after a usual computation.
const leaseWaitMS = 100

// getReply counts a hit or a miss; a stale value is a miss.
func (s *Service) getReply(tenant string, found entry, err error) (messages.CacheGetReply, error) {
	if err != nil {
		return messages.CacheGetReply{}, err
	}
	s.counters.count(tenant, found.found && !found.stale)
	reply := messages.CacheGetReply{Found: found.found, CacheEntry: found.CacheEntry, Stale: found.stale, Lease: found.lease}
	if found.wait {
		reply.LeaseWaitMS = leaseWaitMS
	}
	return reply, nil
}

// getLarge reads one entry by itself, when the memory for its value is free. It may have changed since its size was
// read, so that the size is a reservation and not a promise. Lease and wait stay as they were decided.
func (s *Service) getLarge(ctx context.Context, tenant string, m messages.CacheGet, decided entry) (entry, error) {
	release, err := s.reserve(ctx, decided.sizeBytes)
	if err != nil {
		return entry{}, err
	}
	defer release()
	const sql = `
		SELECT value, version, expires_at, now(), expires_at <= now()
		FROM morello.cache_entry
		WHERE tenant = $1 AND key = $2 AND expires_at > now() - make_interval(secs => $3)`
	return postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) (entry, error) {
		rows, err := db.Query(ctx, sql, tenant, m.Key, m.StaleSeconds)
		if err != nil {
			return entry{}, err
		}
		found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (entry, error) {
			e := entry{found: true}
			var life lifetime
			err := row.Scan((*[]byte)(&e.Value), &e.Version, &life.expiresAt, &life.now, &e.stale)
			life.apply(&e.CacheEntry)
			return e, err
		})
		large := only(found)
		large.lease, large.wait = decided.lease, decided.wait
		return large, err
	})
}

// reserve takes memory for values that are about to be read; release gives it back.
func (s *Service) reserve(ctx context.Context, size int64) (release func(), err error) {
	size = min(size, s.maxLarge)
	if err := s.large.Acquire(ctx, size); err != nil {
		return nil, err
	}
	return func() { s.large.Release(size) }, nil
}

// Set stores a value, with a condition if one is given. Repeating an unconditional set is harmless.
func (s *Service) Set(ctx context.Context, tenant string, m messages.CacheSet) (messages.CacheSetReply, error) {
	e, err := entryToSet(tenant, m)
	switch {
	case err != nil:
		return messages.CacheSetReply{}, err
	case m.IfAbsent:
		return s.setIfVersion(ctx, e, 0)
	case m.IfVersion != nil:
		return s.setIfVersion(ctx, e, *m.IfVersion)
	case m.Lease != "":
		return s.setWithLease(ctx, e, m.Lease)
	case messages.Keyed(ctx):
		return postgres.InTx(ctx, s.pool, tenant, func(ctx context.Context, db postgres.Querier) (messages.CacheSetReply, error) {
			stored, err := upsert(ctx, db, []newEntry{e}, 1)
			return stored[e.entryKey].CacheSetReply, err
		})
	default:
		return s.sets.Do(ctx, e)
	}
}

// beginSet is Set without waiting. Conditional sets are not batched.
func (s *Service) beginSet(d bus.Deferred[messages.CacheSetReply], tenant string, m messages.CacheSet) {
	if m.Conditional() {
		d.Go(func(ctx context.Context) (messages.CacheSetReply, error) { return s.Set(ctx, tenant, m) })
		return
	}
	e, err := entryToSet(tenant, m)
	if err != nil {
		d.Reply(messages.CacheSetReply{}, err)
		return
	}
	s.sets.Submit(d.Deadline(), e, d.Reply)
}

func entryToSet(tenant string, m messages.CacheSet) (newEntry, error) {
	value, err := messages.Compact(m.Value)
	e := newEntry{entryKey: entryKey{tenant, m.Key}, value: value, tags: m.Tags}
	if !m.NoExpiry {
		e.ttl = seconds(messages.TTL(m.TTLSeconds, messages.DefaultTTL))
	}
	return e, err
}

// setAttempts bounds how often a set that must be the first loses against one that began later and is gone again.
const setAttempts = 10

// setIfVersion stores the entry if the live one has this version; 0 means that there must be none.
func (s *Service) setIfVersion(ctx context.Context, e newEntry, version int64) (messages.CacheSetReply, error) {
	reply, err := postgres.InStatement(ctx, s.pool, e.tenant, func(ctx context.Context, db postgres.Querier) (messages.CacheSetReply, error) {
		for range setAttempts {
			reply, decided, err := compareAndSet(ctx, db, e, version)
			if decided || err != nil {
				return reply, err
			}
		}
		return messages.CacheSetReply{}, &messages.Error{
			Code: messages.CodeUnavailable, Message: "the key is written too often at this moment",
			Details: messages.ErrorDetails{Outcome: messages.OutcomeNotApplied},
		}
	})
	if err == nil && reply.Stored && version > 0 {
		s.invalidated(e.tenant, messages.CacheInvalidated{Keys: []messages.CacheKeyVersion{{Key: e.key, Version: reply.Version}}})
	}
	return reply, err
}

// announceOverwritten tells of the entries that were there before, one message for each tenant.
func (s *Service) announceOverwritten(stored map[entryKey]storedEntry) {
	overwritten := map[string][]messages.CacheKeyVersion{}
	for key, e := range stored {
		if e.overwrote {
			overwritten[key.tenant] = append(overwritten[key.tenant], messages.CacheKeyVersion{Key: key.key, Version: e.Version})
		}
	}
	for tenant, keys := range overwritten {
		s.invalidated(tenant, messages.CacheInvalidated{Keys: keys})
	}
}

// compareAndSet locks the live entry, compares, and writes. It is undecided when no entry was to be seen, and yet another
// one came first.
func compareAndSet(ctx context.Context, db postgres.Querier, e newEntry, version int64) (reply messages.CacheSetReply, decided bool, err error) {
	const sql = `
		WITH live AS MATERIALIZED (
			SELECT version FROM morello.cache_entry
			WHERE tenant = $1 AND key = $2 AND expires_at > now()
			FOR UPDATE
		), upserted AS (
			INSERT INTO morello.cache_entry AS e (tenant, key, value, version, ttl, expires_at, sweep_after, created_at, tags)
			SELECT $1, $2, $3, ` + clockVersion + `, make_interval(secs => $4),
				coalesce(now() + make_interval(secs => $4), 'infinity'),
				coalesce(now() + make_interval(secs => $4 + ` + staleSeconds + `), 'infinity'), now(), $5::text[]
			WHERE coalesce((SELECT version FROM live), 0) = $6
			ON CONFLICT (tenant, key) DO UPDATE SET ` + replaceEntry + `, version = greatest(e.version + 1, excluded.version)
			WHERE CASE WHEN e.expires_at > now() THEN e.version ELSE 0 END = $6
			RETURNING tenant, key, version, expires_at, tags, replaced_tags
		), ` + keepTags + `
		SELECT true, version, expires_at FROM upserted
		UNION ALL
		SELECT false, version, NULL FROM live WHERE NOT EXISTS (SELECT FROM upserted)`
	rows, err := db.Query(ctx, sql, e.tenant, e.key, []byte(e.value), e.ttl, e.uniqueTags(), version)
	if err != nil {
		return reply, false, err
	}
	replies, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (messages.CacheSetReply, error) {
		var life lifetime
		var reply messages.CacheSetReply
		err := row.Scan(&reply.Stored, &reply.Version, &life.expiresAt)
		reply.ExpiresAt = life.time()
		return reply, err
	})
	if err != nil || len(replies) == 1 {
		return only(replies), true, err
	}
	return reply, version != 0, nil
}

// only returns the first element, or nothing's zero.
func only[T any](list []T) (first T) {
	if len(list) > 0 {
		first = list[0]
	}
	return first
}

// GetMany returns the live entries of the keys, nil for each that is not there. Values of more than 7 MiB together are
// too_large, and none of them is read.
func (s *Service) GetMany(ctx context.Context, tenant string, m messages.CacheGetMany) (messages.CacheGetManyReply, error) {
	reply := messages.CacheGetManyReply{Entries: make(map[string]*messages.CacheEntry, len(m.Keys))}
	for _, key := range m.Keys {
		reply.Entries[key] = nil
	}
	release, err := s.reserve(ctx, messages.MaxReplyBytes)
	if err != nil {
		return reply, err
	}
	defer release()
	hits, err := postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) (int, error) {
		return getMany(ctx, db, tenant, m.Keys, reply.Entries)
	})
	s.counters.add(tenant, int64(hits), int64(len(reply.Entries)-hits))
	return reply, err
}

// getMany fills in the entries that are live, and returns how many. PostgreSQL knows the size of a value without
// reading it, so that values which together are too large never leave the disk.
func getMany(ctx context.Context, db postgres.Querier, tenant string, keys []string, entries map[string]*messages.CacheEntry) (int, error) {
	const sql = `
		SELECT key, version, expires_at, now(), total, CASE WHEN total <= $3 THEN value END
		FROM (
			SELECT key, version, expires_at, value, sum(octet_length(value)) OVER () AS total
			FROM morello.cache_entry
			WHERE tenant = $1 AND key = ANY ($2) AND expires_at > now()
		) AS found`
	rows, err := db.Query(ctx, sql, tenant, keys, messages.MaxReplyBytes)
	if err != nil {
		return 0, err
	}
	var key string
	var e messages.CacheEntry
	var life lifetime
	var total int64
	hits := 0
	_, err = pgx.ForEachRow(rows, []any{&key, &e.Version, &life.expiresAt, &life.now, &total, (*[]byte)(&e.Value)}, func() error {
		if total > messages.MaxReplyBytes {
			return messages.TooLarge("keys", messages.MaxReplyBytes, fmt.Sprintf("the values have %d bytes together", total))
		}
		found := e
		life.apply(&found)
		entries[key] = &found
		hits++
		e.Value = nil
		return nil
	})
	return hits, err
}

// SetMany stores entries in one statement, all or none. Of a repeated key the last entry wins.
func (s *Service) SetMany(ctx context.Context, tenant string, m messages.CacheSetMany) (messages.CacheSetManyReply, error) {
	entries, err := newEntries(tenant, m)
	if err != nil {
		return messages.CacheSetManyReply{}, err
	}
	var stored map[entryKey]storedEntry
	reply, err := postgres.InStatement(ctx, s.pool, tenant, func(ctx context.Context, db postgres.Querier) (messages.CacheSetManyReply, error) {
		stored, err = upsert(ctx, db, entries, 1)
		return messages.CacheSetManyReply{Stored: len(stored)}, err
	})
	if err == nil {
		s.announceOverwritten(stored)
	}
	return reply, err
}

// newEntries applies the common TTL and tags, and keeps the last entry of each key, sorted by key.
func newEntries(tenant string, m messages.CacheSetMany) ([]newEntry, error) {
	last := make(map[string]newEntry, len(m.Entries))
	common := messages.TTL(m.TTLSeconds, messages.DefaultTTL)
	for _, given := range m.Entries {
		value, err := messages.Compact(given.Value)
		if err != nil {
			return nil, err
		}
		e := newEntry{entryKey: entryKey{tenant, given.Key}, value: value, tags: given.Tags}
		e.ttl = seconds(messages.TTL(given.TTLSeconds, common))
		if given.Tags == nil {
			e.tags = m.Tags
		}
		last[given.Key] = e
	}
	entries := make([]newEntry, 0, len(last))
	for _, e := range last {
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b newEntry) int { return a.compare(b.entryKey) })
	return entries, nil
}

// Delete deletes the entry of a key, at a given version if one is named. Deleting what is not there is deleted:false.
func (s *Service) Delete(ctx context.Context, tenant string, m messages.CacheDelete) (messages.CacheDeleteReply, error) {
	many, err := s.deleteKeys(ctx, tenant, []string{m.Key}, condition{version: m.IfVersion})
	return messages.CacheDeleteReply{Deleted: many.Deleted == 1}, err
}

// DeleteMany deletes the entries of the keys in one statement and counts those that were live.
func (s *Service) DeleteMany(ctx context.Context, tenant string, m messages.CacheDeleteMany) (messages.CacheDeleteManyReply, error) {
	return s.deleteKeys(ctx, tenant, m.Keys, condition{})
}

func (s *Service) deleteKeys(ctx context.Context, tenant string, keys []string, only condition) (messages.CacheDeleteManyReply, error) {
	var removed []messages.CacheKeyVersion
	reply, err := postgres.InStatement(ctx, s.pool, tenant, func(ctx context.Context, db postgres.Querier) (reply messages.CacheDeleteManyReply, err error) {
		removed, err = deleteEntries(ctx, db, tenant, keys, only)
		return messages.CacheDeleteManyReply{Deleted: len(removed)}, err
	})
	if err == nil && len(removed) > 0 {
		s.invalidated(tenant, messages.CacheInvalidated{Keys: removed})
	}
	return reply, err
}

// condition narrows what is deleted; its zero value does not.
type condition struct {
	version *int64
	tags    []string
	match   messages.Match
}

// deleteEntries removes entries, with their tags and leases, and returns those that were live. What is left is a tombstone
// that the cleaner removes after five minutes: it keeps the version, without which a set that was waiting for the delete
// would go on with a version from before it (ADR 5). It locks in the order of the keys, so that two deletes of the same
// keys cannot wait for each other.
func deleteEntries(ctx context.Context, db postgres.Querier, tenant string, keys []string, only condition) ([]messages.CacheKeyVersion, error) {
	const sql = `
		WITH doomed AS MATERIALIZED (
			SELECT key, expires_at > now() AS live FROM morello.cache_entry
			WHERE expires_at > '-infinity' AND tenant = $1 AND key = ANY ($2) AND ($3::bigint IS NULL OR version = $3)
				AND ($4::text[] IS NULL OR CASE WHEN $5 THEN tags @> $4 ELSE tags && $4 END)
			ORDER BY key
			FOR UPDATE
		), removed AS (
			UPDATE morello.cache_entry AS e
			SET value = '', tags = NULL, replaced_tags = e.tags, expires_at = '-infinity',
				sweep_after = least(e.sweep_after, now() + make_interval(secs => ` + staleSeconds + `))
			FROM doomed
			WHERE e.tenant = $1 AND e.key = doomed.key
			RETURNING e.tenant, e.key, e.version, e.replaced_tags AS tags, doomed.live
		), ` + dropTags + `
		SELECT key, version FROM removed WHERE live`
	batch := &pgx.Batch{}
	batch.Queue(endLeasesSQL, tenant, keys)
	var removed []messages.CacheKeyVersion
	batch.Queue(sql, tenant, keys, only.version, only.tags, only.match == messages.MatchAll).Query(func(rows pgx.Rows) (err error) {
		removed, err = pgx.CollectRows(rows, pgx.RowToStructByPos[messages.CacheKeyVersion])
		return err
	})
	return removed, db.SendBatch(ctx, batch).Close()
}

// endLeasesSQL ends the leases of keys that are deleted. It is a statement of its own, before the delete and in one round
// trip with it: a set with a lease, which locks the lease first too, has either not begun, and will find no lease, or is
// waited for, and the delete, which sees what is there when it begins, finds the value.
const endLeasesSQL = `DELETE FROM morello.cache_lease WHERE tenant = $1 AND key = ANY ($2)`

// Touch renews the time to live of a live entry, by its own original TTL or the given one.
func (s *Service) Touch(ctx context.Context, tenant string, m messages.CacheTouch) (messages.CacheTouchReply, error) {
	t := newTouch(tenant, m)
	if messages.Keyed(ctx) {
		return postgres.InTx(ctx, s.pool, tenant, func(ctx context.Context, db postgres.Querier) (messages.CacheTouchReply, error) {
			touched, err := touchEntries(ctx, db, []touch{t})
			return touched[t.entryKey], err
		})
	}
	return s.touches.Do(ctx, t)
}

// beginTouch is Touch without waiting.
func (s *Service) beginTouch(d bus.Deferred[messages.CacheTouchReply], tenant string, m messages.CacheTouch) {
	s.touches.Submit(d.Deadline(), newTouch(tenant, m), d.Reply)
}

// Increment adds to the whole number under a key.
func (s *Service) Increment(ctx context.Context, tenant string, m messages.CacheIncrement) (messages.CacheIncrementReply, error) {
	overwrote := false
	reply, err := postgres.InStatement(ctx, s.pool, tenant, func(ctx context.Context, db postgres.Querier) (reply messages.CacheIncrementReply, err error) {
		reply, overwrote, err = increment(ctx, db, tenant, m)
		return reply, err
	})
	if overwrote {
		s.invalidated(tenant, messages.CacheInvalidated{Keys: []messages.CacheKeyVersion{{Key: m.Key, Version: reply.Version}}})
	}
	return reply, err
}

func increment(ctx context.Context, db postgres.Querier, tenant string, m messages.CacheIncrement) (reply messages.CacheIncrementReply, overwrote bool, err error) {
	const sql = `
		WITH upserted AS (
			INSERT INTO morello.cache_entry AS e (tenant, key, value, version, ttl, expires_at, sweep_after, created_at)
			SELECT $1, $2, ($3::bigint + $4::bigint)::text, ` + clockVersion + `, make_interval(secs => $5),
				now() + make_interval(secs => $5), now() + make_interval(secs => $5 + ` + staleSeconds + `), now()
			ON CONFLICT (tenant, key) DO UPDATE SET
				value = CASE WHEN e.expires_at > now() THEN (e.value::bigint + $4)::text ELSE excluded.value END,
				version = greatest(e.version + 1, excluded.version),
				ttl = CASE WHEN e.expires_at > now() AND NOT $6 THEN e.ttl ELSE excluded.ttl END,
				expires_at = CASE WHEN e.expires_at > now() AND NOT $6 THEN e.expires_at ELSE excluded.expires_at END,
				sweep_after = least(e.sweep_after, excluded.sweep_after),
				created_at = CASE WHEN e.expires_at > now() THEN e.created_at ELSE excluded.created_at END,
				tags = CASE WHEN e.expires_at > now() THEN e.tags END,
				replaced_tags = CASE WHEN e.expires_at > now() THEN NULL ELSE e.tags END
			RETURNING tenant, key, value, version, tags, replaced_tags, e.xmax <> 0 AS overwrote
		), ` + keepTags + `
		SELECT value::bigint, version, overwrote FROM upserted`
	delta := int64(1)
	if m.Delta != nil {
		delta = *m.Delta
	}
	ttl := messages.TTL(m.TTLSeconds, messages.DefaultTTL).Seconds()
	err = db.QueryRow(ctx, sql, tenant, m.Key, m.Initial, delta, ttl, m.TTLSeconds != nil).Scan(&reply.Value, &reply.Version, &overwrote)
	switch postgres.SQLState(err) {
	case "22P02": // invalid_text_representation
		err = &messages.Error{Code: messages.CodeConflict, Message: "the value under the key is no whole number"}
	case "22003": // numeric_value_out_of_range
		err = &messages.Error{Code: messages.CodeConflict, Message: "the sum does not fit into 64 bits"}
	}
	return reply, overwrote, err
}

// seconds writes a duration as PostgreSQL's make_interval wants it.
func seconds(d time.Duration) *float64 {
	s := d.Seconds()
	return &s
}
