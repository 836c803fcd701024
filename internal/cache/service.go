package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

// Config sets up a Service.
type Config struct {
	// Invalidated is told which entries were deleted, cleared or overwritten, once for each batch and tenant, after the
	// change is durable. It must not wait. Defaults to nothing.
	Invalidated func(tenant string, event messages.CacheInvalidated)
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

	invalidated func(tenant string, event messages.CacheInvalidated)
}

// isLarge reports whether the value must be read by itself.
func (e entry) isLarge() bool { return e.found && e.Value == nil }

// New returns a service. Its counters are written to the database every two seconds until Close.
func New(pool *postgres.Pool, cfg Config) *Service {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	s := &Service{pool: pool, invalidated: cfg.Invalidated}
	if s.invalidated == nil {
		s.invalidated = func(string, messages.CacheInvalidated) {}
	}
	s.gets = newGetBatcher(pool)
	s.sets = s.newSetBatcher()
	s.touches = s.newTouchBatcher()
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
	return s.getReply(entryKey{tenant, m.Key}, found, err)
}

// beginGet is Get without waiting.
func (s *Service) beginGet(d bus.Deferred[messages.CacheGetReply], tenant string, m messages.CacheGet) {
	l := newLookup(tenant, m)
	s.gets.Submit(d.Deadline(), l, func(found entry, err error) {
		if err == nil && found.isLarge() {
			d.Go(func(ctx context.Context) (messages.CacheGetReply, error) {
				found, err := s.getLarge(ctx, tenant, m, found)
				return s.getReply(l.entryKey, found, err)
			})
			return
		}
		d.Reply(s.getReply(l.entryKey, found, err))
	})
}

func newLookup(tenant string, m messages.CacheGet) lookup {
	return lookup{entryKey{tenant, m.Key}, m.Lease, m.StaleSeconds}
}

// leaseWaitMS is the hint to who must wait for another's value: long enough to spare the database, short enough to be
// soon after a usual computation.
const leaseWaitMS = 100

// getReply counts a hit or a miss; a stale value is a miss.
func (s *Service) getReply(key entryKey, found entry, err error) (messages.CacheGetReply, error) {
	if err != nil {
		return messages.CacheGetReply{}, err
	}
	s.counters.count(key, found.found && !found.stale)
	reply := messages.CacheGetReply{Found: found.found, CacheEntry: found.CacheEntry, Stale: found.stale, Lease: found.lease}
	if found.wait {
		reply.LeaseWaitMS = leaseWaitMS
	}
	return reply, nil
}

// getLarge reads one entry by itself, when the memory for its value is free. It may have changed since its size was
// read, so that the size is a reservation and not a promise. Lease and wait stay as they were decided; a lease that its holder will
// not hear of is given back.
func (s *Service) getLarge(ctx context.Context, tenant string, m messages.CacheGet, decided entry) (large entry, err error) {
	defer func() {
		if err != nil && decided.lease != "" {
			err = errors.Join(err, s.giveBackLease(ctx, entryKey{tenant, m.Key}, decided.lease))
		}
	}()
	if err := bus.Reserve(ctx, decided.sizeBytes); err != nil {
		return entry{}, err
	}
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
		large := postgres.Only(found)
		large.lease, large.wait = decided.lease, decided.wait
		return large, err
	})
}

// GetMany returns the live entries of the keys, nil for each that is not there. Values of more than 7 MiB together are
// too_large, and none of them is read.
func (s *Service) GetMany(ctx context.Context, tenant string, m messages.CacheGetMany) (messages.CacheGetManyReply, error) {
	reply := messages.CacheGetManyReply{Entries: make(map[string]*messages.CacheEntry, len(m.Keys))}
	for _, key := range m.Keys {
		reply.Entries[key] = nil
	}
	if err := bus.Reserve(ctx, messages.MaxReplyBytes); err != nil {
		return reply, err
	}
	hits, err := postgres.Read(ctx, s.pool, func(ctx context.Context, db postgres.Querier) (int, error) {
		return getMany(ctx, db, tenant, m.Keys, reply.Entries)
	})
	s.counters.add(tenant, int64(hits), int64(len(reply.Entries)-hits))
	for key := range reply.Entries {
		s.counters.hot.sample(entryKey{tenant, key})
	}
	return reply, err
}

// getMany fills in the entries that are live, and returns how many. While no value is larger than its share of a reply, all fit
// into one; where one is, they are summed before any is read.
func getMany(ctx context.Context, db postgres.Querier, tenant string, keys []string, entries map[string]*messages.CacheEntry) (int, error) {
	const inShares = `
		SELECT key, version, expires_at, now(), 0::bigint, CASE WHEN octet_length(value) <= $3 THEN value END
		FROM morello.cache_entry WHERE tenant = $1 AND key = ANY ($2) AND expires_at > now()`
	hits, err := collectMany(ctx, db, inShares, tenant, keys, messages.MaxReplyBytes/len(keys), entries)
	if !errors.Is(err, errOverShare) {
		return hits, err
	}
	const summed = `
		SELECT key, version, expires_at, now(), total, CASE WHEN total <= $3 THEN value END
		FROM (
			SELECT key, version, expires_at, value, sum(octet_length(value)) OVER () AS total
			FROM morello.cache_entry
			WHERE tenant = $1 AND key = ANY ($2) AND expires_at > now()
		) AS found`
	for key := range entries {
		entries[key] = nil
	}
	return collectMany(ctx, db, summed, tenant, keys, messages.MaxReplyBytes, entries)
}

// errOverShare says that a value was left out because it has more than its share.
var errOverShare = errors.New("a value has more than its share of the reply")

func collectMany(
	ctx context.Context, db postgres.Querier, sql, tenant string, keys []string, limit int, entries map[string]*messages.CacheEntry,
) (hits int, err error) {
	var key string
	var e messages.CacheEntry
	var life lifetime
	var total int64
	batch := &pgx.Batch{}
	postgres.PinPlans(batch)
	batch.Queue(sql, tenant, keys, limit).Query(func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, []any{&key, &e.Version, &life.expiresAt, &life.now, &total, (*[]byte)(&e.Value)}, func() error {
			switch {
			case total > messages.MaxReplyBytes:
				return messages.TooLarge("keys", messages.MaxReplyBytes, fmt.Sprintf("the values have %d bytes together", total))
			case e.Value == nil:
				return errOverShare
			}
			found := e
			life.apply(&found)
			entries[key] = &found
			hits++
			e.Value = nil
			return nil
		})
		return err
	})
	err = db.SendBatch(ctx, batch).Close()
	return hits, err
}

// Touch renews the time to live of a live entry, by its own original TTL or the given one; or a lease.
func (s *Service) Touch(ctx context.Context, tenant string, m messages.CacheTouch) (messages.CacheTouchReply, error) {
	if m.Lease != "" {
		return s.renewLease(ctx, tenant, m)
	}
	t := newTouch(tenant, m)
	if messages.Keyed(ctx) {
		return postgres.InTx(ctx, s.pool, tenant, func(ctx context.Context, db postgres.Querier) (messages.CacheTouchReply, error) {
			touched, err := touchEntries(ctx, db, []touch{t})
			s.counters.hot.sample(t.entryKey)
			return touched[t.entryKey], err
		})
	}
	return s.touches.Do(ctx, t)
}

// beginTouch is Touch without waiting.
func (s *Service) beginTouch(d bus.Deferred[messages.CacheTouchReply], tenant string, m messages.CacheTouch) {
	if m.Lease != "" {
		d.Go(func(ctx context.Context) (messages.CacheTouchReply, error) { return s.Touch(ctx, tenant, m) })
		return
	}
	s.touches.Submit(d.Deadline(), newTouch(tenant, m), d.Reply)
}

// seconds writes a duration as PostgreSQL's make_interval wants it.
func seconds(d time.Duration) *float64 {
	s := d.Seconds()
	return &s
}
