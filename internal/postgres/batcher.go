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
	defaultBatchRuns    = 2
	defaultBatchCrowd   = 32
	defaultBatchTimeout = 10 * time.Second
)

// BatcherConfig bounds a batcher.
type BatcherConfig[In any] struct {
	// MaxItems and MaxBytes bound one batch; an item over MaxBytes makes a batch of its own. Default to 512 and 4 MiB.
	MaxItems int
	MaxBytes int
	// Bytes is the size of an item. Defaults to 0 for all.
	Bytes func(In) int
	// Key tells items apart of which no two run at a time: those of a key come one by one, in their order. Defaults to none.
	Key func(In) any
	// MaxWaiting bounds the items that wait; over it they are overloaded. Defaults to 8192.
	MaxWaiting int
	// Slots is how many batches run at once at most, and Crowd how many items must wait for one to start beside another: fewer
	// do better to wait for companions. Default to 2 and 32 (measured in docs/adr/0003-natural-batcher.md).
	Slots int
	Crowd int
	// Linger is how long a batch waits, if need be, for as many items as the one before had. Callers that were answered together mostly
	// come back together, and a commit for the first of them and another for the rest is one too many. A lone caller, who came alone
	// before, waits for nobody. Defaults to 0.
	Linger time.Duration
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

// Batcher gathers the items of concurrent callers and runs them together. When no batch runs one leaves at once, be it of one item;
// meanwhile items gather, and the next batch takes all of them. So a lone caller waits for nobody, and under load one statement
// serves many. There is no timer, but for a batcher that lingers.
//
// Each caller gets the result of its own item. A caller that goes away before its batch leaves takes its item along; after
// that the item runs, and only the result is lost. When a run fails because of what an item holds, or panics, the batch
// is divided until the item at fault fails alone.
type Batcher[In, Out any] struct {
	cfg       BatcherConfig[In]
	run       func(ctx context.Context, items []In, results []Result[Out]) error
	mu        sync.Mutex
	waiting   []batchItem[In, Out]
	spare     []batchItem[In, Out] // the memory of a queue that was emptied
	running   int
	keys      map[any]bool  // of the items that run
	expected  int           // items of the batch before
	gathered  chan struct{} // closed when so many wait; nil when nobody lingers
	closed    bool
	idle      sync.Cond // signalled when running falls to 0
	answering sync.WaitGroup
}

type batchItem[In, Out any] struct {
	in       In
	ctx      context.Context // of a caller that waits, asked only whether it has ended; nil when nobody waits
	deadline time.Time       // when nobody waits
	answer   func(Out, error)
}

// gone reports whether nobody wants the result any more.
func (i *batchItem[In, Out]) gone(now time.Time) bool {
	if i.ctx != nil {
		return i.ctx.Err() != nil
	}
	return now.After(i.deadline)
}

// NewBatcher returns a batcher around run, which sets one result for each item, or returns the error that is everyone's.
func NewBatcher[In, Out any](
	cfg BatcherConfig[In], run func(ctx context.Context, items []In, results []Result[Out]) error,
) *Batcher[In, Out] {
	b := &Batcher[In, Out]{cfg: cfg, run: run, keys: map[any]bool{}}
	b.cfg.MaxItems = orDefault(cfg.MaxItems, defaultBatchItems)
	b.cfg.MaxBytes = orDefault(cfg.MaxBytes, defaultBatchBytes)
	b.cfg.MaxWaiting = orDefault(cfg.MaxWaiting, defaultBatchWaiting)
	b.cfg.Slots = orDefault(cfg.Slots, defaultBatchRuns)
	b.cfg.Crowd = orDefault(cfg.Crowd, defaultBatchCrowd)
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
	var result Result[Out]
	answered := make(chan struct{})
	b.enqueue(batchItem[In, Out]{in: in, ctx: ctx, answer: func(out Out, err error) {
		result = Result[Out]{out, err}
		close(answered)
	}})
	select {
	case <-answered:
		return result.Value, mapError(ctx, result.Err, b.cfg.ReadOnly)
	case <-ctx.Done():
		var none Out
		return none, mapError(ctx, ctx.Err(), b.cfg.ReadOnly)
	}
}

// Submit has the item run in a batch, unless its deadline passes before, and calls answer with the result: once, on
// another goroutine or before Submit returns. Answer must not wait for anything. It costs less than Do, because no
// goroutine waits.
func (b *Batcher[In, Out]) Submit(deadline time.Time, in In, answer func(Out, error)) {
	b.enqueue(batchItem[In, Out]{in: in, deadline: deadline, answer: func(out Out, err error) {
		answer(out, mapError(context.Background(), err, b.cfg.ReadOnly))
	}})
}

func (b *Batcher[In, Out]) enqueue(item batchItem[In, Out]) {
	if err := b.tryEnqueue(item); err != nil {
		var none Out
		item.answer(none, err)
	}
}

func (b *Batcher[In, Out]) tryEnqueue(item batchItem[In, Out]) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return messages.Unavailable("this worker is shutting down", messages.OutcomeNotApplied, nil)
	case len(b.waiting) >= b.cfg.MaxWaiting:
		return &messages.Error{Code: messages.CodeOverloaded, Message: fmt.Sprintf("%d items wait already", len(b.waiting))}
	}
	b.waiting = append(b.waiting, item)
	if b.gathered != nil && len(b.waiting) >= b.expected {
		close(b.gathered)
		b.gathered = nil
	}
	if b.mayRun(b.running) {
		b.running++
		go b.runNext()
	}
	return nil
}

// Close lets what was accepted run to its end, waits until it is answered, and refuses the rest.
func (b *Batcher[In, Out]) Close() {
	b.mu.Lock()
	b.closed = true
	for b.running > 0 {
		b.idle.Wait()
	}
	b.mu.Unlock()
	b.answering.Wait()
}

// runNext runs a batch in the slot that its goroutine holds, hands the slot on, and answers: PostgreSQL works on the next
// batch while the answers of this one go out.
func (b *Batcher[In, Out]) runNext() {
	if b.cfg.Linger > 0 {
		b.linger()
	}
	batch, late := b.take()
	defer b.answering.Done()
	results := make([]Result[Out], len(batch))
	if len(batch) > 0 {
		// Detached on purpose: no caller's deadline may end the work of its companions.
		ctx, cancel := context.WithTimeout(context.Background(), b.cfg.Timeout)
		b.runBatch(ctx, batch, results)
		cancel()
	}
	b.handOn(batch)
	for i := range batch {
		batch[i].answer(results[i].Value, results[i].Err)
	}
	for i := range late {
		var none Out
		late[i].answer(none, context.DeadlineExceeded)
	}
}

// linger waits for those who came with the batch before.
func (b *Batcher[In, Out]) linger() {
	b.mu.Lock()
	if b.closed || b.gathered != nil || len(b.waiting) >= b.expected {
		b.mu.Unlock()
		return
	}
	gathered := make(chan struct{})
	b.gathered = gathered
	b.mu.Unlock()
	timer := time.NewTimer(b.cfg.Linger)
	defer timer.Stop()
	select {
	case <-gathered:
	case <-timer.C:
		b.mu.Lock()
		if b.gathered == gathered {
			b.gathered = nil
		}
		b.mu.Unlock()
	}
}

// handOn gives the slot of a batch to the next one, or back when nothing waits. A batch that found nothing, because the keys of all
// that waits are at work, leaves it to those who have them.
func (b *Batcher[In, Out]) handOn(batch []batchItem[In, Out]) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cfg.Key != nil {
		for i := range batch {
			delete(b.keys, b.cfg.Key(batch[i].in))
		}
	}
	if others := b.running - 1; b.mayRun(others) && (len(batch) > 0 || others == 0) {
		go b.runNext()
		return
	}
	b.running--
	b.idle.Broadcast()
}

// mayRun reports whether a batch may start beside others: if there is something to do, and, unless it is the only one, enough.
func (b *Batcher[In, Out]) mayRun(others int) bool {
	return len(b.waiting) > 0 && (others == 0 || others < b.cfg.Slots && len(b.waiting) >= b.cfg.Crowd)
}

// take removes the next batch from the queue, and what nobody wants any more.
func (b *Batcher[In, Out]) take() (batch, late []batchItem[In, Out]) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answering.Add(1)
	now := time.Now()
	at, bytes := 0, 0
	batch = make([]batchItem[In, Out], 0, min(len(b.waiting), b.cfg.MaxItems))
	left := b.spare[:0] // what is left moves into the memory of the queue before
	for ; at < len(b.waiting); at++ {
		item := &b.waiting[at]
		if item.gone(now) {
			late = append(late, *item)
			continue
		}
		size := b.cfg.Bytes(item.in)
		if len(batch) == b.cfg.MaxItems || len(batch) > 0 && bytes+size > b.cfg.MaxBytes {
			break
		}
		if b.cfg.Key != nil {
			key := b.cfg.Key(item.in)
			if b.keys[key] {
				left = append(left, *item)
				continue
			}
			b.keys[key] = true
		}
		batch, bytes = append(batch, *item), bytes+size
	}
	left = append(left, b.waiting[at:]...)
	// This queue's memory is emptied for the next.
	clear(b.waiting)
	b.waiting, b.spare = left, b.waiting[:0]
	b.expected = len(batch)
	return batch, late
}

// runBatch runs the items together. If what one of them holds makes the run fail, each half is run by itself, down to
// the single item: a statement that PostgreSQL refused has changed nothing.
func (b *Batcher[In, Out]) runBatch(ctx context.Context, batch []batchItem[In, Out], results []Result[Out]) {
	err := b.tryRun(ctx, batch, results)
	switch {
	case err == nil:
	case len(batch) > 1 && isItemFault(err):
		half := len(batch) / 2
		b.runBatch(ctx, batch[:half], results[:half])
		b.runBatch(ctx, batch[half:], results[half:])
	default:
		for i := range results {
			results[i] = Result[Out]{Err: err}
		}
	}
}

func (b *Batcher[In, Out]) tryRun(ctx context.Context, batch []batchItem[In, Out], results []Result[Out]) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicError{fmt.Sprintf("panic in a batch: %v\n%s", p, debug.Stack())}
		}
	}()
	items := make([]In, len(batch))
	for i := range batch {
		items[i] = batch[i].in
	}
	clear(results)
	return b.run(ctx, items, results)
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
