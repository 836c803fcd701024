package client_test

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/client"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/messages"
)

// soon is what must not have waited for a lease to lapse.
const soon = messages.LeaseTime / 2

// processes are two clients, which stand for two processes, and two workers on one database.
type processes struct {
	first, second *client.Client
	stop          func() // the workers
	db            *pgx.Conn
	gets          *atomic.Int64 // how many cache.get have been sent
	log           *logBuffer    // of both clients
}

func startProcesses(t *testing.T) processes {
	t.Helper()
	natsURL, databaseURL := devtest.NATS(t).URL(), devtest.Database(t)
	stops := []func(){startWorker(t, databaseURL, natsURL), startWorker(t, databaseURL, natsURL)}
	p := processes{gets: &atomic.Int64{}, log: &logBuffer{}, stop: func() { stops[0](); stops[1]() }}
	cfg := client.Config{URL: natsURL, Attempts: 1, Log: slog.New(slog.NewTextHandler(p.log, nil))}
	p.first, p.second = connect(t, cfg), connect(t, cfg)
	var err error
	p.db, err = pgx.Connect(t.Context(), databaseURL)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.db.Close(context.Background())) })
	watcher, err := nats.Connect(natsURL)
	require.NoError(t, err)
	t.Cleanup(watcher.Close)
	_, err = watcher.Subscribe("morello.v1.acme.cache.get", func(*nats.Msg) { p.gets.Add(1) })
	require.NoError(t, err)
	require.NoError(t, watcher.Flush())
	return p
}

// waitForGets waits until n look-ups have been sent in all, by processes and tests.
func (p processes) waitForGets(t *testing.T, n int64) {
	t.Helper()
	require.Eventually(t, func() bool { return p.gets.Load() >= n }, 30*time.Second, time.Millisecond)
}

// waitForLog waits until one of the clients has logged the text.
func (p processes) waitForLog(t *testing.T, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(p.log.String(), text) }, 10*time.Second, time.Millisecond)
}

// lease takes the lease of a key, as a process does that dies then.
func (p processes) lease(t *testing.T, key string) string {
	t.Helper()
	reply, err := p.first.Cache().Get(t.Context(), messages.CacheGet{Key: key, Lease: true})
	require.NoError(t, err)
	require.NotEmpty(t, reply.Lease)
	return reply.Lease
}

// lapse makes the leases of all keys lapse.
func (p processes) lapse(t *testing.T) {
	t.Helper()
	_, err := p.db.Exec(t.Context(), `UPDATE morello.cache_lease SET expires_at = now()`)
	require.NoError(t, err)
}

// setExpired sets a value that has expired so long ago.
func (p processes) setExpired(t *testing.T, key, value string, ago time.Duration) {
	t.Helper()
	_, err := p.first.Cache().Set(t.Context(), messages.CacheSet{Key: key, Value: []byte(value)})
	require.NoError(t, err)
	p.expire(t, key, ago)
}

func (p processes) expire(t *testing.T, key string, ago time.Duration) {
	t.Helper()
	const sql = `UPDATE morello.cache_entry SET expires_at = now() - make_interval(secs => $2) WHERE key = $1`
	tag, err := p.db.Exec(t.Context(), sql, key, ago.Seconds())
	require.NoError(t, err)
	require.EqualValues(t, 1, tag.RowsAffected())
}

// requireCached requires the live value of a key to be this; none if it is empty.
func (p processes) requireCached(t *testing.T, key, value string) {
	t.Helper()
	reply, err := p.second.Cache().Get(t.Context(), messages.CacheGet{Key: key})
	require.NoError(t, err)
	require.Equal(t, value, string(reply.Value))
}

// outcome is what a call of GetOrCompute returned.
type outcome struct {
	value int
	err   error
}

// call calls GetOrCompute in a goroutine.
func call(ctx context.Context, c *client.Client, options client.ComputeOptions, compute func(context.Context) (int, error)) <-chan outcome {
	result := make(chan outcome, 1)
	go func() {
		value, err := client.GetOrCompute(ctx, c, options, compute)
		result <- outcome{value, err}
	}()
	return result
}

// blocked is a computation that tells of each start, and ends with the outcome that it is sent.
type blocked struct {
	computing chan struct{}
	finish    chan outcome
	computed  atomic.Int64
}

func newBlocked() *blocked {
	return &blocked{computing: make(chan struct{}, 100), finish: make(chan outcome, 1)}
}

func (b *blocked) compute(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*messages.LeaseTime) // a test that fails does not hang
	defer cancel()
	b.computed.Add(1)
	b.computing <- struct{}{}
	select {
	case o := <-b.finish:
		return o.value, o.err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

func (b *blocked) waitForStart(t *testing.T) {
	t.Helper()
	select {
	case <-b.computing:
	case <-time.After(30 * time.Second):
		require.Fail(t, "nobody computes")
	}
}

func gives(value int) func(context.Context) (int, error) {
	return func(context.Context) (int, error) { return value, nil }
}

// TestComputeOnceAcrossProcesses: 100 callers of each of two processes compute once.
func TestComputeOnceAcrossProcesses(t *testing.T) {
	t.Parallel()
	p := startProcesses(t)
	b := newBlocked()
	var crowd sync.WaitGroup
	var callers []*announcing
	for i := range 200 {
		ctx, process := &announcing{Context: t.Context(), waits: make(chan struct{})}, p.first
		if i%2 == 1 {
			process = p.second
		}
		callers = append(callers, ctx)
		crowd.Go(func() {
			got, err := client.GetOrCompute(ctx, process, client.ComputeOptions{Key: "k"}, b.compute)
			if got != 7 || err != nil {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
	for _, ctx := range callers {
		<-ctx.waits
	}
	p.waitForGets(t, 3) // the process without the lease has looked again
	b.finish <- outcome{value: 7}
	crowd.Wait()
	require.EqualValues(t, 1, b.computed.Load())
	p.requireCached(t, "k", "7")
}

// TestTheHolderDies: when its lease lapses another process gets it, and only one.
func TestTheHolderDies(t *testing.T) {
	t.Parallel()
	p := startProcesses(t)
	dead := p.lease(t, "k")
	b := newBlocked()
	results := []<-chan outcome{
		call(t.Context(), p.first, client.ComputeOptions{Key: "k"}, b.compute),
		call(t.Context(), p.second, client.ComputeOptions{Key: "k"}, b.compute),
	}
	p.waitForGets(t, 5) // two processes, one of them twice, and one of them three times or both of them twice
	require.Zero(t, b.computed.Load())
	p.lapse(t)
	b.waitForStart(t)
	b.finish <- outcome{value: 7}
	for _, result := range results {
		require.Equal(t, outcome{value: 7}, <-result)
	}
	require.EqualValues(t, 1, b.computed.Load())
	late, err := p.first.Cache().Set(t.Context(), messages.CacheSet{Key: "k", Value: []byte("1"), Lease: dead})
	require.NoError(t, err)
	require.False(t, late.Stored)
	p.requireCached(t, "k", "7")
}

// TestComputationOutlastsItsLease: while it runs its lease is renewed, so that nobody else gets one and the value is stored. What is
// invalidated after the first ten seconds is not stored all the same.
func TestComputationOutlastsItsLease(t *testing.T) {
	t.Parallel()
	p := startProcesses(t)
	keys := map[string]string{"kept": "7", "deleted": "", "tag cleared": ""}
	computations, results := map[string]*blocked{}, map[string]<-chan outcome{}
	for key := range keys {
		computations[key] = newBlocked()
		results[key] = call(t.Context(), p.first, client.ComputeOptions{Key: key, Tags: []string{key}}, computations[key].compute)
		computations[key].waitForStart(t)
	}
	var granted time.Time
	require.NoError(t, p.db.QueryRow(t.Context(), `SELECT max(granted_at) FROM morello.cache_lease`).Scan(&granted))
	require.Eventually(t, func() bool {
		for key := range keys {
			reply, err := p.second.Cache().Get(t.Context(), messages.CacheGet{Key: key, Lease: true})
			if err != nil || reply.Lease != "" {
				t.Errorf("%s: %+v, %v", key, reply, err)
				return true
			}
		}
		var now time.Time
		require.NoError(t, p.db.QueryRow(t.Context(), `SELECT now()`).Scan(&now))
		return now.Sub(granted) > messages.LeaseTime+time.Second
	}, 3*messages.LeaseTime, 50*time.Millisecond)
	_, err := p.second.Cache().Delete(t.Context(), messages.CacheDelete{Key: "deleted"})
	require.NoError(t, err)
	_, err = p.second.Cache().Clear(t.Context(), messages.CacheClear{Tags: []string{"tag cleared"}})
	require.NoError(t, err)
	for key, cached := range keys {
		computations[key].finish <- outcome{value: 7}
		require.Equal(t, outcome{value: 7}, <-results[key])
		p.requireCached(t, key, cached)
	}
}

// TestWaitingEnds: who has waited for the lease as long as a computation may take computes without it, and stores nothing: its value may
// be older than an invalidation.
func TestWaitingEnds(t *testing.T) {
	t.Parallel()
	p := startProcesses(t)
	for key, faster := range map[string]string{"nobody": "", "somebody": "8"} {
		holder := p.lease(t, key)
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		defer cancel()
		got, err := client.GetOrCompute(ctx, p.first, client.ComputeOptions{Key: key, Timeout: 300 * time.Millisecond}, func(ctx context.Context) (int, error) {
			if faster == "" {
				return 7, nil
			}
			_, err := p.second.Cache().Set(context.WithoutCancel(ctx), messages.CacheSet{Key: key, Value: []byte(faster), Lease: holder})
			return 7, err
		})
		require.NoError(t, err)
		require.Equal(t, 7, got)
		p.requireCached(t, key, faster)
	}
}

// TestFailureGivesTheLeaseBack: the process that waits computes soon, and an expired value is still there meanwhile.
func TestFailureGivesTheLeaseBack(t *testing.T) {
	t.Parallel()
	p := startProcesses(t)
	p.setExpired(t, "k", `"old"`, time.Second)
	b, errModel := newBlocked(), errors.New("the model is busy")
	failed := call(t.Context(), p.first, client.ComputeOptions{Key: "k"}, b.compute)
	b.waitForStart(t)
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	waiting := call(ctx, p.second, client.ComputeOptions{Key: "k"}, func(context.Context) (int, error) {
		stale, err := p.second.Cache().Get(ctx, messages.CacheGet{Key: "k", StaleSeconds: 60})
		if err == nil && string(stale.Value) != `"old"` {
			err = errors.New("the expired value is gone")
		}
		return 7, err
	})
	p.waitForGets(t, 3)
	b.finish <- outcome{err: errModel}
	require.ErrorIs(t, (<-failed).err, errModel)
	require.Equal(t, outcome{value: 7}, <-waiting)
	p.requireCached(t, "k", "7")
}

// TestWhatElseGivesTheLeaseBack: whatever kept the value out of the cache, the next process computes at once.
func TestWhatElseGivesTheLeaseBack(t *testing.T) {
	t.Parallel()
	p := startProcesses(t)
	for name, compute := range map[string]func(context.Context) (any, error){
		"panic":       func(context.Context) (any, error) { panic("boom") },
		"not JSON":    func(context.Context) (any, error) { return func() {}, nil },
		"too large":   func(context.Context) (any, error) { return strings.Repeat("v", messages.MaxCacheValueBytes), nil },
		"out of time": func(ctx context.Context) (any, error) { <-ctx.Done(); return nil, ctx.Err() },
	} {
		options := client.ComputeOptions{Key: name, Timeout: time.Second}
		_, err := client.GetOrCompute(t.Context(), p.first, options, compute)
		require.Equal(t, name == "too large", err == nil, name)
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		defer cancel()
		got, err := client.GetOrCompute(ctx, p.second, client.ComputeOptions{Key: name}, gives(7))
		require.NoError(t, err, name)
		require.Equal(t, 7, got)
		p.requireCached(t, name, "7")
	}
}

// TestALeaseThatCannotBeGivenBack: the workers end during the computation, whose error stays what it is.
func TestALeaseThatCannotBeGivenBack(t *testing.T) {
	t.Parallel()
	p := startProcesses(t)
	b, errModel := newBlocked(), errors.New("the model is busy")
	failed := call(t.Context(), p.first, client.ComputeOptions{Key: "k"}, b.compute)
	b.waitForStart(t)
	p.stop()
	b.finish <- outcome{err: errModel}
	require.ErrorIs(t, (<-failed).err, errModel)
	require.Contains(t, p.log.String(), "a lease could not be given back")
}

// TestComputeEndsItsGoroutine: that is an error, and not a caller that waits for ever.
func TestComputeEndsItsGoroutine(t *testing.T) {
	t.Parallel()
	c := connect(t, client.Config{URL: startStack(t)})
	_, err := client.GetOrCompute(t.Context(), c, client.ComputeOptions{Key: "k"}, func(context.Context) (int, error) {
		runtime.Goexit()
		return 7, nil
	})
	requireCode(t, messages.CodeInternal, err)
}

// TestChangedWhileComputing: what may have been computed from what was true before is returned, and not stored. The next
// caller computes at once.
func TestChangedWhileComputing(t *testing.T) {
	t.Parallel()
	p := startProcesses(t)
	for name, change := range map[string]func(context.Context, client.Cache) error{
		"delete": func(ctx context.Context, c client.Cache) error {
			_, err := c.Delete(ctx, messages.CacheDelete{Key: "delete"})
			return err
		},
		"clear": func(ctx context.Context, c client.Cache) error {
			_, err := c.Clear(ctx, messages.CacheClear{All: true})
			return err
		},
		"set": func(ctx context.Context, c client.Cache) error {
			_, err := c.Set(ctx, messages.CacheSet{Key: "set", Value: []byte("8")})
			return err
		},
		"clear prefix": func(ctx context.Context, c client.Cache) error {
			_, err := c.Clear(ctx, messages.CacheClear{Prefix: "clear p"})
			return err
		},
		"clear tag": func(ctx context.Context, c client.Cache) error {
			_, err := c.Clear(ctx, messages.CacheClear{Tags: []string{"of clear tag"}})
			return err
		},
		"undecodable": func(ctx context.Context, c client.Cache) error { // computed in place of a live value
			_, err := c.Delete(ctx, messages.CacheDelete{Key: "undecodable"})
			return err
		},
	} {
		if name == "undecodable" {
			_, err := p.first.Cache().Set(t.Context(), messages.CacheSet{Key: name, Value: []byte(`"text"`)})
			require.NoError(t, err)
		}
		b := newBlocked()
		result := call(t.Context(), p.first, client.ComputeOptions{Key: name, Tags: []string{"of " + name}}, b.compute)
		b.waitForStart(t)
		require.NoError(t, change(t.Context(), p.second.Cache()))
		b.finish <- outcome{value: 7}
		require.Equal(t, outcome{value: 7}, <-result, name)
		if name == "set" {
			p.requireCached(t, name, "8")
			continue
		}
		p.requireCached(t, name, "")
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		defer cancel()
		require.Equal(t, outcome{value: 9}, <-call(ctx, p.second, client.ComputeOptions{Key: name}, gives(9)), name)
		p.requireCached(t, name, "9")
	}
}

// TestCloseWhileWaitingForALease: when Close gives up, so does who waits for another process.
func TestCloseWhileWaitingForALease(t *testing.T) {
	t.Parallel()
	p := startProcesses(t)
	p.lease(t, "k")
	result := call(t.Context(), p.second, client.ComputeOptions{Key: "k"}, never[int](t))
	p.waitForGets(t, 3)
	ended, end := context.WithCancel(t.Context())
	end()
	require.ErrorIs(t, p.second.Close(ended), context.Canceled)
	requireCode(t, messages.CodeUnavailable, (<-result).err)
}

// TestComputeWithoutPostgreSQL: nobody waits for a lease that cannot be had.
func TestComputeWithoutPostgreSQL(t *testing.T) {
	t.Parallel()
	server, natsURL := devtest.Server(t), devtest.NATS(t).URL()
	startWorker(t, server.URL("morello"), natsURL)
	log := &logBuffer{}
	c := connect(t, client.Config{URL: natsURL, Attempts: 1, Log: slog.New(slog.NewTextHandler(log, nil))})
	require.NoError(t, server.Kill())
	got, err := client.GetOrCompute(t.Context(), c, client.ComputeOptions{Key: "k", Stale: time.Minute}, gives(7))
	require.NoError(t, err)
	require.Equal(t, 7, got)
	require.Contains(t, log.String(), "the cache is of no help")
	require.NoError(t, server.Restart(t.Context()))
}

// TestAWorkerWithoutLeases: one that answers as if it had not been asked for a lease is one to compute without, and to store nothing.
func TestAWorkerWithoutLeases(t *testing.T) {
	t.Parallel()
	natsURL := devtest.NATS(t).URL()
	succeed := func(int, *nats.Msg) *messages.Error { return nil }
	respond(t, natsURL, "cache.get", succeed)
	sets := respond(t, natsURL, "cache.set", succeed)
	c := connect(t, client.Config{URL: natsURL})
	got, err := client.GetOrCompute(t.Context(), c, client.ComputeOptions{Key: "k"}, gives(7))
	require.NoError(t, err)
	require.Equal(t, 7, got)
	require.NoError(t, c.Close(t.Context()))
	require.Empty(t, sets)
}

// TestLeasePause: about what the worker hints, then longer, up to a second and a half.
func TestLeasePause(t *testing.T) {
	t.Parallel()
	const hint = 100 * time.Millisecond
	for n, bound := range map[int]time.Duration{0: hint, 1: 2 * hint, 3: 8 * hint, 4: time.Second, 100: time.Second} {
		for range 1000 {
			pause := client.LeasePause(n, hint)
			require.GreaterOrEqual(t, pause, bound/2)
			require.Less(t, pause, bound*3/2)
		}
	}
	require.Less(t, client.LeasePause(0, time.Hour), 2*time.Second)
}
