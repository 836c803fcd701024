package cache

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ai-cherry/morello/internal/postgres"
)

const (
	counterPeriod = 2 * time.Second
	// maxCountedTenants bounds the memory of counts between two flushes; when it is reached the flush comes at once.
	maxCountedTenants = 4096
	counterTimeout    = 5 * time.Second
)

// counters counts hits and misses by tenant in memory, and adds them to the table every two seconds: a read writes
// nothing. If the process is killed, the counts of at most two seconds are lost. It also samples which keys are hot.
type counters struct {
	pool    *postgres.Pool
	hot     *hotKeys
	log     *slog.Logger
	mu      sync.Mutex
	pending map[string]hitsAndMisses
	full    chan struct{}
	stop    chan struct{}
	stopped chan struct{}
}

type hitsAndMisses struct{ hits, misses int64 }

func newCounters(pool *postgres.Pool, log *slog.Logger) *counters {
	c := &counters{
		pool: pool, hot: newHotKeys(), log: log, pending: map[string]hitsAndMisses{},
		full: make(chan struct{}, 1), stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	go c.flushPeriodically()
	return c
}

func (c *counters) count(key entryKey, hit bool) {
	c.hot.sample(key)
	if hit {
		c.add(key.tenant, 1, 0)
	} else {
		c.add(key.tenant, 0, 1)
	}
}

func (c *counters) add(tenant string, hits, misses int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum := c.pending[tenant]
	c.pending[tenant] = hitsAndMisses{sum.hits + hits, sum.misses + misses}
	if len(c.pending) >= maxCountedTenants {
		select {
		case c.full <- struct{}{}:
		default:
		}
	}
}

func (c *counters) flushPeriodically() {
	defer close(c.stopped)
	tick := time.NewTicker(counterPeriod)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-tick.C:
		case <-c.full:
		case <-c.stop:
			return
		}
		c.flush(context.Background()) // detached: counts belong to no request
		if n%hotFlushes == 0 {
			c.flushHotKeys(context.Background())
		}
	}
}

func (c *counters) flushHotKeys(ctx context.Context) {
	if err := c.hot.flush(ctx, c.pool); err != nil {
		c.log.Warn("the hot keys of the cache could not be written", "error", err)
	}
}

// close writes the last counts.
func (c *counters) close(ctx context.Context) {
	close(c.stop)
	<-c.stopped
	c.flush(context.WithoutCancel(ctx))
	c.flushHotKeys(context.WithoutCancel(ctx))
}

// flush adds what was counted to the table. When that fails, and surely did not happen, the counts are kept for the next
// time.
func (c *counters) flush(ctx context.Context) {
	c.mu.Lock()
	counted := c.pending
	c.pending = make(map[string]hitsAndMisses, len(counted))
	c.mu.Unlock()
	if len(counted) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, counterTimeout)
	defer cancel()
	_, err := postgres.InStatement(ctx, c.pool, "", func(ctx context.Context, db postgres.Querier) (struct{}, error) {
		return struct{}{}, addCounts(ctx, db, counted)
	})
	if err == nil {
		return
	}
	c.log.Warn("cache hits and misses could not be written", "error", err)
	if postgres.NotApplied(err) && len(counted) < maxCountedTenants {
		for tenant, n := range counted {
			c.add(tenant, n.hits, n.misses)
		}
	}
}

func addCounts(ctx context.Context, db postgres.Querier, counted map[string]hitsAndMisses) error {
	const sql = `
		INSERT INTO morello.cache_counter AS c (tenant, hits, misses)
		SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[])
		ON CONFLICT (tenant) DO UPDATE SET hits = c.hits + excluded.hits, misses = c.misses + excluded.misses`
	tenants := slices.Sorted(maps.Keys(counted)) // in order, so that two workers cannot wait for each other
	hits, misses := make([]int64, len(tenants)), make([]int64, len(tenants))
	for i, tenant := range tenants {
		hits[i], misses[i] = counted[tenant].hits, counted[tenant].misses
	}
	_, err := db.Exec(ctx, sql, tenants, hits, misses)
	return err
}
