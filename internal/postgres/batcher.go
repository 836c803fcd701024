package postgres

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ai-cherry/morello/messages"
)

const (
	defaultBatchItems   = 512
	defaultBatchBytes   = 4 << 20
	defaultBatchWaiting = 8192
	defaultBatchTimeout = 10 * time.Second
)

// BatcherConfig bounds a batcher.
type BatcherConfig[In any] struct {
	// MaxItems and MaxBytes bound one batch; an item over MaxBytes makes a batch of its own. Default to 512 and 4 MiB.
	MaxItems int
	MaxBytes int
	// Bytes is the size of an item. Defaults to 0 for all.
	Bytes func(In) int
	// MaxWaiting bounds the items that wait; over it they are overloaded. Defaults to 8192.
	MaxWaiting int
	// Slots is how many batches run at once. Defaults to 1, which is the fastest: a second batch finds fewer companions
	// (measured in docs/adr/0003-natural-batcher.md).
	Slots int
	// Timeout bounds the run of one batch. Defaults to 10 s.
	Timeout time.Duration
	// ReadOnly says that a run changes nothing, so that its failure leaves no doubt about the outcome.
	ReadOnly bool
}

// Result is the outcome of one item of a batch.
type Result[Out any] struct {
	Value Out
	Err   error
}

// Batcher gathers the items of concurrent callers and runs them together. There is no timer: when a slot is free a batch
// leaves at once, be it of one item; while the slots are busy items gather, and the next batch takes all of them. So a
// lone caller waits for nobody, and under load one statement serves many.
//
// Each caller gets the result of its own item. A caller that goes away before its batch leaves takes its item along; after
// that the item runs, and only the result is lost. When a run fails because of what an item holds, or panics, the batch
// is divided until the item at fault fails alone.
type Batcher[In, Out any] struct {
	cfg     BatcherConfig[In]
	run     func(ctx context.Context, items []In, results []Result[Out]) error
	mu      sync.Mutex
	waiting []*batchItem[In, Out]
	running int
	closed  bool
	idle    sync.Cond // signalled when running falls to 0
}

type batchItem[In, Out any] struct {
	ctx    context.Context // the caller's, asked only whether it has ended
	in     In
	result Result[Out]
	done   chan struct{}
}

// NewBatcher returns a batcher around run, which sets one result for each item, or returns the error that is everyone's.
func NewBatcher[In, Out any](
	cfg BatcherConfig[In], run func(ctx context.Context, items []In, results []Result[Out]) error,
) *Batcher[In, Out] {
	b := &Batcher[In, Out]{cfg: cfg, run: run}
	b.cfg.MaxItems = orDefault(cfg.MaxItems, defaultBatchItems)
	b.cfg.MaxBytes = orDefault(cfg.MaxBytes, defaultBatchBytes)
	b.cfg.MaxWaiting = orDefault(cfg.MaxWaiting, defaultBatchWaiting)
	b.cfg.Slots = orDefault(cfg.Slots, 1)
	if cfg.Timeout <= 0 {
		b.cfg.Timeout = defaultBatchTimeout
	}
	if cfg.Bytes == nil {
		b.cfg.Bytes = func(In) int { return 0 }
	}
	b.idle.L = &b.mu
	return b
}

func orDefault(n, otherwise int) int {
	if n <= 0 {
		return otherwise
	}
	return n
}

// Do has the item run in a batch and returns its result, or the contract's error for what went wrong. When the context
// ends first the item may have run, or may run yet.
func (b *Batcher[In, Out]) Do(ctx context.Context, in In) (Out, error) {
	item := &batchItem[In, Out]{ctx: ctx, in: in, done: make(chan struct{})}
	if err := b.enqueue(item); err != nil {
		var none Out
		return none, err
	}
	select {
	case <-item.done:
		return item.result.Value, mapError(ctx, item.result.Err, b.cfg.ReadOnly)
	case <-ctx.Done():
		var none Out
		return none, mapError(ctx, ctx.Err(), b.cfg.ReadOnly)
	}
}

func (b *Batcher[In, Out]) enqueue(item *batchItem[In, Out]) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return unavailable("this worker is shutting down", messages.OutcomeNotApplied, nil)
	case len(b.waiting) >= b.cfg.MaxWaiting:
		return &messages.Error{Code: messages.CodeOverloaded, Message: fmt.Sprintf("%d items wait already", len(b.waiting))}
	}
	b.waiting = append(b.waiting, item)
	if b.running < b.cfg.Slots {
		b.running++
		go b.runAll()
	}
	return nil
}

// Close lets what was accepted run to its end, waits for it, and refuses the rest.
func (b *Batcher[In, Out]) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for b.running > 0 {
		b.idle.Wait()
	}
}

// runAll holds a slot: it runs batches as long as there are items.
func (b *Batcher[In, Out]) runAll() {
	for {
		batch := b.take()
		if batch == nil {
			return
		}
		// Detached on purpose: no caller's deadline may end the work of its companions.
		ctx, cancel := context.WithTimeout(context.Background(), b.cfg.Timeout)
		b.runBatch(ctx, batch)
		cancel()
		for _, item := range batch {
			close(item.done)
		}
	}
}

// take removes the next batch from the queue, without the items whose callers have gone. When nothing waits it gives
// back the slot and returns nil.
func (b *Batcher[In, Out]) take() []*batchItem[In, Out] {
	b.mu.Lock()
	defer b.mu.Unlock()
	var batch []*batchItem[In, Out]
	taken, bytes := 0, 0
	for _, item := range b.waiting {
		if item.ctx.Err() != nil {
			taken++
			continue
		}
		size := b.cfg.Bytes(item.in)
		if len(batch) == b.cfg.MaxItems || len(batch) > 0 && bytes+size > b.cfg.MaxBytes {
			break
		}
		batch, bytes, taken = append(batch, item), bytes+size, taken+1
	}
	b.waiting = append(b.waiting[:0:0], b.waiting[taken:]...)
	if batch == nil {
		b.running--
		b.idle.Broadcast()
	}
	return batch
}

// runBatch runs the items together. If what one of them holds makes the run fail, each half is run by itself, down to
// the single item: a statement that PostgreSQL refused has changed nothing.
func (b *Batcher[In, Out]) runBatch(ctx context.Context, batch []*batchItem[In, Out]) {
	err := b.tryRun(ctx, batch)
	switch {
	case err == nil:
	case len(batch) > 1 && isItemFault(err):
		b.runBatch(ctx, batch[:len(batch)/2])
		b.runBatch(ctx, batch[len(batch)/2:])
	default:
		for _, item := range batch {
			item.result.Err = err
		}
	}
}

func (b *Batcher[In, Out]) tryRun(ctx context.Context, batch []*batchItem[In, Out]) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicError{fmt.Sprintf("panic in a batch: %v\n%s", p, debug.Stack())}
		}
	}()
	items := make([]In, len(batch))
	for i, item := range batch {
		items[i] = item.in
	}
	results := make([]Result[Out], len(batch))
	if err := b.run(ctx, items, results); err != nil {
		return err
	}
	for i, item := range batch {
		item.result = results[i]
	}
	return nil
}

type panicError struct{ text string }

func (e panicError) Error() string { return e.text }

// isItemFault reports whether an error can come from the content of a single item: a panic, or one of PostgreSQL's data
// exceptions (class 22), integrity violations (23) and program limits (54).
func isItemFault(err error) bool {
	var panicked panicError
	var server *pgconn.PgError
	if errors.As(err, &panicked) {
		return true
	}
	if !errors.As(err, &server) {
		return false
	}
	class := server.Code[:2]
	return class == "22" || class == "23" || class == "54"
}
