package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ai-cherry/morello/messages"
)

const (
	waitFor = 10 * time.Second
	tick    = time.Millisecond
)

// TestBatcherModel runs random crowds of callers through a batcher: some go away, some items panic, some are refused as
// PostgreSQL refuses data, some batches fail as a whole, and the batcher is closed in the middle. Each caller must get
// the answer of its own item, or an error that is its own; no item may run after its caller was told that it did not.
func TestBatcherModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		cfg := BatcherConfig[item]{
			MaxItems: rapid.IntRange(1, 8).Draw(t, "items"), MaxBytes: rapid.IntRange(1, 40).Draw(t, "bytes"),
			Slots: rapid.IntRange(1, 3).Draw(t, "slots"), Crowd: rapid.IntRange(1, 4).Draw(t, "others"), Bytes: func(i item) int { return i.bytes },
			Linger: time.Duration(rapid.IntRange(0, 2).Draw(t, "linger")) * 100 * time.Microsecond,
		}
		if keys := rapid.IntRange(0, 5).Draw(t, "keys"); keys > 0 {
			cfg.Key = func(i item) any { return i.n % keys }
		}
		crowd := rapid.SliceOfN(rapid.Custom(drawItem), 1, 40).Draw(t, "crowd")
		closeAfter := rapid.IntRange(0, 2*len(crowd)).Draw(t, "close after")
		run := &recordingRun{cfg: cfg}
		b := NewBatcher(cfg, run.run)
		var callers sync.WaitGroup
		var started atomic.Int64
		for n, in := range crowd {
			in.n = n
			callers.Go(func() {
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				if in.kind == cancelled {
					cancel()
				}
				if int(started.Add(1)) == closeAfter {
					b.Close()
				}
				out, err := b.Do(ctx, in)
				check(t, in, out, err, run)
			})
		}
		callers.Wait()
		b.Close()
		if problem := run.problem.Load(); problem != nil {
			t.Fatal(*problem)
		}
		if _, err := b.Do(context.Background(), item{}); AsCode(err) != messages.CodeUnavailable {
			t.Fatalf("a closed batcher answered %v", err)
		}
	})
}

type kind int

const (
	good kind = iota
	cancelled
	panics
	refused
	failsAlone
	breaks // the connection, and with it the whole batch
)

type item struct {
	n, bytes int
	kind     kind
}

func drawItem(t *rapid.T) item {
	kinds := []kind{good, good, good, good, cancelled, panics, refused, failsAlone, breaks}
	return item{bytes: rapid.IntRange(0, 50).Draw(t, "size"), kind: rapid.SampledFrom(kinds).Draw(t, "kind")}
}

var errAlone, errBroken = errors.New("this item fails alone"), errors.New("connection lost")

// recordingRun answers good items with their number, and notes what must not be.
type recordingRun struct {
	cfg     BatcherConfig[item]
	ran     sync.Map
	keys    sync.Map // at work
	running atomic.Int64
	problem atomic.Pointer[string]
}

func (r *recordingRun) run(_ context.Context, items []item, results []Result[int]) error {
	defer r.running.Add(-1)
	if n := r.running.Add(1); n > int64(r.cfg.Slots) {
		r.note("%d batches at once", n)
	}
	bytes := 0
	for _, i := range items {
		bytes += i.bytes
	}
	if len(items) > r.cfg.MaxItems || len(items) > 1 && bytes > r.cfg.MaxBytes {
		r.note("a batch of %d items and %d bytes", len(items), bytes)
	}
	if r.cfg.Key != nil {
		keys := map[any]bool{} // of a batch that is divided the other half runs later
		for _, i := range items {
			key := r.cfg.Key(i)
			if _, atWork := r.keys.LoadOrStore(key, true); atWork || keys[key] {
				r.note("two items of one key at a time")
			}
			keys[key] = true
		}
		defer func() {
			for key := range keys {
				r.keys.Delete(key)
			}
		}()
	}
	for _, i := range items { // as a statement does: nothing is applied when one item is at fault
		switch i.kind {
		case panics:
			panic("this item panics")
		case refused:
			return fmt.Errorf("statement: %w", &pgconn.PgError{Code: "22P02"})
		case breaks:
			return errBroken
		}
	}
	for n, i := range items {
		if _, twice := r.ran.LoadOrStore(i.n, true); twice {
			r.note("item %d ran twice", i.n)
		}
		results[n].Value = i.n
		if i.kind == failsAlone {
			results[n].Err = errAlone
		}
	}
	return nil
}

func (r *recordingRun) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.problem.Store(&text)
}

func check(t *rapid.T, in item, out int, err error, run *recordingRun) {
	closed := AsCode(err) == messages.CodeUnavailable
	_, ran := run.ran.Load(in.n)
	var server *pgconn.PgError
	switch {
	case closed:
		if ran {
			t.Errorf("item %d ran although it was refused", in.n)
		}
	case errors.Is(err, errBroken): // a companion broke the connection
	case in.kind == good:
		if err != nil || out != in.n || !ran {
			t.Errorf("item %d got %d, %v", in.n, out, err)
		}
	case in.kind == cancelled:
		if err == nil && out != in.n || err != nil && AsCode(err) != messages.CodeDeadlineExceeded {
			t.Errorf("cancelled item %d got %d, %v", in.n, out, err)
		}
	case in.kind == panics:
		if !errors.As(err, new(panicError)) {
			t.Errorf("panicking item %d got %v", in.n, err)
		}
	case in.kind == refused:
		if !errors.As(err, &server) {
			t.Errorf("refused item %d got %v", in.n, err)
		}
	case in.kind == failsAlone:
		if !errors.Is(err, errAlone) {
			t.Errorf("failing item %d got %v", in.n, err)
		}
	case in.kind == breaks:
		t.Errorf("item %d, which breaks the connection, got %v", in.n, err)
	}
}

// AsCode returns the code of an error of the contract; empty for none.
func AsCode(err error) messages.Code {
	var known *messages.Error
	if errors.As(err, &known) {
		return known.Code
	}
	return ""
}

// heldBatcher runs batches that tell their sizes and last until they are released.
type heldBatcher struct {
	*Batcher[int, int]
	t       *testing.T
	callers sync.WaitGroup
	sizes   chan int
	release chan struct{}
}

func newHeldBatcher(t *testing.T, cfg BatcherConfig[int]) *heldBatcher {
	b := &heldBatcher{t: t, sizes: make(chan int, 10), release: make(chan struct{})}
	b.Batcher = NewBatcher(cfg, func(_ context.Context, items []int, _ []Result[int]) error {
		b.sizes <- len(items)
		<-b.release
		return nil
	})
	return b
}

// come has n callers come, and returns when so many wait.
func (b *heldBatcher) come(n, waiting int) {
	b.t.Helper()
	for range n {
		b.callers.Go(func() { _, _ = b.Do(context.Background(), 0) })
	}
	b.eventually(func() bool { return len(b.waiting) == waiting })
}

func (b *heldBatcher) eventually(condition func() bool) {
	b.t.Helper()
	require.Eventually(b.t, func() bool { b.mu.Lock(); defer b.mu.Unlock(); return condition() }, waitFor, tick)
}

// leave releases the batch that runs, and returns when all have their answers.
func (b *heldBatcher) leave() {
	b.release <- struct{}{}
	b.callers.Wait()
}

func TestBatcherGathersWhileBusy(t *testing.T) {
	t.Parallel()
	b := newHeldBatcher(t, BatcherConfig[int]{Slots: 1})
	b.come(1, 0)
	require.Equal(t, 1, <-b.sizes) // a lone caller waits for nobody
	b.come(50, 50)
	b.release <- struct{}{}
	require.Equal(t, 50, <-b.sizes) // all that gathered
	b.leave()
	b.Close()
}

// TestBatcherLingers: a batch waits for as many as the one before had, but for a lone caller, and not for ever.
func TestBatcherLingers(t *testing.T) {
	t.Parallel()
	b := newHeldBatcher(t, BatcherConfig[int]{Slots: 1, Linger: waitFor})
	for range 2 { // who was alone does not wait
		b.come(1, 0)
		require.Equal(t, 1, <-b.sizes)
		b.leave()
	}
	b.come(1, 0)
	require.Equal(t, 1, <-b.sizes)
	b.come(3, 3)
	b.release <- struct{}{}
	require.Equal(t, 3, <-b.sizes)
	b.leave()
	b.come(1, 1)
	b.come(1, 2)
	b.come(1, 0)
	require.Equal(t, 3, <-b.sizes, "those of before are there again")
	b.leave()

	b.cfg.Linger = time.Second
	b.come(1, 1)
	b.come(1, 2)
	require.Equal(t, 2, <-b.sizes, "the third has not come")
	b.leave()
	b.cfg.Linger = waitFor
	b.come(1, 1)
	b.come(1, 0)
	require.Equal(t, 2, <-b.sizes, "and is not waited for again")
	b.leave()
	b.Close()
}

// TestBatcherServesACrowd: beside a batch that takes long another runs once there is a crowd, not before, and no third.
func TestBatcherServesACrowd(t *testing.T) {
	t.Parallel()
	b := newHeldBatcher(t, BatcherConfig[int]{Crowd: 3})
	b.come(1, 0)
	require.Equal(t, 1, <-b.sizes)
	b.come(2, 2)
	require.Empty(t, b.sizes)
	b.come(1, 0)
	require.Equal(t, 3, <-b.sizes)
	b.come(5, 5)
	require.Empty(t, b.sizes)
	b.release <- struct{}{}
	require.Equal(t, 5, <-b.sizes)
	b.come(2, 2)
	b.release <- struct{}{} // two are too few beside the one that runs
	b.eventually(func() bool { return b.running == 1 })
	require.Empty(t, b.sizes)
	b.release <- struct{}{}
	require.Equal(t, 2, <-b.sizes)
	b.leave()
	b.Close()
}

func TestBatcherBoundsWhatWaits(t *testing.T) {
	t.Parallel()
	release, entered := make(chan struct{}), make(chan struct{}, 1)
	b := NewBatcher(BatcherConfig[int]{MaxWaiting: 2}, func(context.Context, []int, []Result[int]) error {
		entered <- struct{}{}
		<-release
		return nil
	})
	var callers sync.WaitGroup
	callers.Go(func() { _, _ = b.Do(context.Background(), 0) })
	<-entered
	for range 2 {
		callers.Go(func() { _, _ = b.Do(context.Background(), 0) })
	}
	require.Eventually(t, func() bool { b.mu.Lock(); defer b.mu.Unlock(); return len(b.waiting) == 2 }, waitFor, tick)
	_, err := b.Do(context.Background(), 0)
	require.Equal(t, messages.CodeOverloaded, AsCode(err))
	close(release)
	callers.Wait()
	b.Close()
}

// Items of one key come one by one and in their order, and keep the others from nothing.
func TestBatcherTakesNoTwoOfAKey(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	batches := make(chan []int, 10)
	b := NewBatcher(BatcherConfig[int]{Key: func(n int) any { return n / 10 }}, func(_ context.Context, items []int, _ []Result[int]) error {
		batches <- items
		<-release
		return nil
	})
	deadline := time.Now().Add(waitFor)
	b.Submit(deadline, 0, func(int, error) {})
	require.Equal(t, []int{0}, <-batches)
	for _, n := range []int{10, 11, 12, 20, 13, 30} {
		b.Submit(deadline, n, func(int, error) {})
	}
	for _, want := range [][]int{{10, 20, 30}, {11}, {12}, {13}} {
		release <- struct{}{}
		require.Equal(t, want, <-batches)
	}
	release <- struct{}{}
	b.Close()
}

func TestBatcherTimeout(t *testing.T) {
	t.Parallel()
	b := NewBatcher(BatcherConfig[int]{Timeout: 20 * time.Millisecond}, func(ctx context.Context, _ []int, _ []Result[int]) error {
		<-ctx.Done()
		return ctx.Err()
	})
	_, err := b.Do(context.Background(), 0)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	b.Close()
}

func BenchmarkBatcher(b *testing.B) {
	batcher := NewBatcher(BatcherConfig[int]{}, func(_ context.Context, items []int, results []Result[int]) error {
		for i := range items {
			results[i].Value = items[i]
		}
		return nil
	})
	b.ReportAllocs()
	b.SetParallelism(128)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := batcher.Do(context.Background(), 1); err != nil {
				b.Fatal(err)
			}
		}
	})
	batcher.Close()
}
