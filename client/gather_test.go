package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/client"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/messages"
)

// gatherWorker answers gets with the key as the value, also several in one message, when it is allowed to; answer may decide otherwise
// on a key.
type gatherWorker struct {
	nc     *nats.Conn
	answer func(key string, together int) *messages.Error
	mu     sync.Mutex
	sizes  []int          // of the messages
	seen   map[string]int // how often a key was asked for
}

func startGatherWorker(t *testing.T, natsURL string, hold <-chan struct{}, answer func(key string, together int) *messages.Error) *gatherWorker {
	t.Helper()
	nc, err := nats.Connect(natsURL)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	w := &gatherWorker{nc: nc, answer: answer, seen: map[string]int{}}
	_, err = nc.Subscribe(messages.CacheGetEndpoint.Info().WorkerSubject(), func(msg *nats.Msg) {
		go func() {
			bodies, reply := w.note(t, msg), &nats.Msg{Subject: msg.Reply}
			if hold != nil {
				<-hold
			}
			var replies [][]byte
			for _, body := range bodies {
				replies = append(replies, w.reply(body, len(bodies)))
			}
			if reply.Data = replies[0]; msg.Header.Get(messages.HeaderBatch) != "" {
				reply.Data = messages.JoinBatch(replies)
			} else if failure := messages.BatchedError(reply.Data); failure != nil {
				reply.Header = nats.Header{messages.HeaderErrorCode: {strconv.Itoa(failure.Code.Number())}}
			}
			_ = nc.PublishMsg(reply)
		}()
	})
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	return w
}

func (w *gatherWorker) note(t *testing.T, msg *nats.Msg) [][]byte {
	bodies := [][]byte{msg.Data}
	if text := msg.Header.Get(messages.HeaderBatch); text != "" {
		n, err := strconv.Atoi(text)
		if err == nil {
			bodies, err = messages.SplitBatch(msg.Data, n)
		}
		if err != nil {
			t.Error(err)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sizes = append(w.sizes, len(bodies))
	for _, body := range bodies {
		w.seen[keyOf(body)]++
	}
	return bodies
}

func keyOf(body []byte) string {
	var request struct {
		Key string `json:"key"`
	}
	_ = json.Unmarshal(body, &request)
	return request.Key
}

func (w *gatherWorker) reply(body []byte, together int) []byte {
	key := keyOf(body)
	if w.answer != nil {
		if failure := w.answer(key, together); failure != nil {
			text, _ := messages.Encode(failure.Body(true))
			return text
		}
	}
	return fmt.Appendf(nil, `{"found":true,"value":%q}`, key)
}

func (w *gatherWorker) messages() (sizes []int, requests int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, size := range w.sizes {
		requests += size
	}
	return append(sizes, w.sizes...), requests
}

// getAll calls for keys at the same time, and returns the errors by key. Every success must be the key's own.
func getAll(ctx context.Context, t *testing.T, c *client.Client, keys []string) map[string]error {
	t.Helper()
	var mu sync.Mutex
	errs := map[string]error{}
	var callers sync.WaitGroup
	for _, key := range keys {
		callers.Go(func() {
			reply, err := c.Cache().Get(ctx, messages.CacheGet{Key: key})
			if err == nil && string(reply.Value) != strconv.Quote(key) {
				t.Errorf("%s got %s", key, reply.Value)
			}
			mu.Lock()
			defer mu.Unlock()
			errs[key] = err
		})
	}
	callers.Wait()
	return errs
}

func keyNames(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("key-%d", i)
	}
	return keys
}

// TestConcurrentRequestsGoTogether: while the first messages are without a reply, those of other callers gather, within the limit of
// requests; each gets its own reply.
func TestConcurrentRequestsGoTogether(t *testing.T) {
	t.Parallel()
	natsURL, hold := devtest.NATS(t).URL(), make(chan struct{})
	w := startGatherWorker(t, natsURL, hold, nil)
	c := connect(t, client.Config{URL: natsURL, MaxBatch: 20})
	time.AfterFunc(50*time.Millisecond, func() { close(hold) })
	for key, err := range getAll(t.Context(), t, c, keyNames(400)) {
		require.NoError(t, err, key)
	}
	sizes, requests := w.messages()
	require.Equal(t, 400, requests)
	require.Less(t, len(sizes), 100)
	for _, size := range sizes {
		require.LessOrEqual(t, size, 20)
	}
}

// TestLoneCallersSendAtOnce, each request by itself and without a header, as anybody would.
func TestLoneCallersSendAtOnce(t *testing.T) {
	t.Parallel()
	natsURL := devtest.NATS(t).URL()
	seen := respond(t, natsURL, "cache.get", func(int, *nats.Msg) *messages.Error { return nil })
	c := connect(t, client.Config{URL: natsURL})
	for range 10 {
		_, err := c.Cache().Get(t.Context(), messages.CacheGet{Key: "k"})
		require.NoError(t, err)
		msg := <-seen
		require.JSONEq(t, `{"key":"k"}`, string(msg.Data))
		require.Empty(t, msg.Header)
	}
}

// TestSlowMessagesHoldUpNobody: requests do not gather for longer than a moment, though nothing is answered.
func TestSlowMessagesHoldUpNobody(t *testing.T) {
	t.Parallel()
	natsURL := devtest.NATS(t).URL()
	hold := make(chan struct{})
	var slow atomic.Bool
	slow.Store(true)
	nc, err := nats.Connect(natsURL)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	_, err = nc.Subscribe(messages.CacheGetEndpoint.Info().WorkerSubject(), func(msg *nats.Msg) {
		if slow.Load() {
			go func() { <-hold; _ = msg.Respond([]byte(`{"found":false}`)) }()
			return
		}
		_ = msg.Respond([]byte(`{"found":true}`))
	})
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	c := connect(t, client.Config{URL: natsURL})
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			_, err := c.Cache().Get(t.Context(), messages.CacheGet{Key: "slow"})
			require.NoError(t, err)
		})
		time.Sleep(20 * time.Millisecond) // each has left by itself
	}
	slow.Store(false)
	reply, err := c.Cache().Get(t.Context(), messages.CacheGet{Key: "fast"})
	require.NoError(t, err)
	require.True(t, reply.Found)
	close(hold)
	callers.Wait()
}

// TestFailuresWithinAMessage: what happens to one request is nothing to the others; each is repeated, or not, by the rules for a
// request that went by itself.
func TestFailuresWithinAMessage(t *testing.T) {
	t.Parallel()
	natsURL, hold := devtest.NATS(t).URL(), make(chan struct{})
	var first sync.Map
	w := startGatherWorker(t, natsURL, hold, func(key string, together int) *messages.Error {
		switch key {
		case "key-1":
			return failure(messages.CodeConflict, messages.ErrorDetails{Field: "key"})
		case "key-2":
			if _, again := first.LoadOrStore(key, true); !again {
				return failure(messages.CodeOverloaded, messages.ErrorDetails{RetryAfterMS: 1})
			}
		case "key-3":
			if together > 1 {
				return failure(messages.CodeTooLarge, messages.ErrorDetails{})
			}
		}
		return nil
	})
	c := connect(t, client.Config{URL: natsURL})
	time.AfterFunc(30*time.Millisecond, func() { close(hold) })
	keys := append(keyNames(4), "a", "b", "c", "d") // two of them leave at once
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for key, err := range getAll(ctx, t, c, keys) {
		if key == "key-1" {
			require.Equal(t, "key", requireCode(t, messages.CodeConflict, err).Field)
			continue
		}
		require.NoError(t, err, key)
	}
	require.Equal(t, 1, w.seen["key-1"])
	require.Equal(t, 2, w.seen["key-2"])
	require.Equal(t, 1, w.seen["a"])
}

// TestWorkersThatTakeOneRequestAMessage: they refuse the message, and each request goes by itself.
func TestWorkersThatTakeOneRequestAMessage(t *testing.T) {
	t.Parallel()
	natsURL := devtest.NATS(t).URL()
	nc, err := nats.Connect(natsURL)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	var refused atomic.Int64
	_, err = nc.Subscribe(messages.CacheGetEndpoint.Info().WorkerSubject(), func(msg *nats.Msg) {
		go func() {
			time.Sleep(2 * time.Millisecond)
			var request messages.CacheGet
			err := messages.Decode(msg.Data, &request)
			if err == nil {
				_ = msg.Respond(fmt.Appendf(nil, `{"found":true,"value":%q}`, request.Key))
				return
			}
			refused.Add(1)
			body, _ := messages.Encode(messages.AsError(err).Body(true))
			_ = nc.PublishMsg(&nats.Msg{Subject: msg.Reply, Data: body, Header: nats.Header{messages.HeaderErrorCode: {"400"}}})
		}()
	})
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	c := connect(t, client.Config{URL: natsURL})
	for key, err := range getAll(t.Context(), t, c, keyNames(50)) {
		require.NoError(t, err, key)
	}
	require.Positive(t, refused.Load())
}

// TestRepliesThatCannotBeDivided are internal errors, and nobody gets another's.
func TestRepliesThatCannotBeDivided(t *testing.T) {
	t.Parallel()
	natsURL := devtest.NATS(t).URL()
	nc, err := nats.Connect(natsURL)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	_, err = nc.Subscribe(messages.CacheGetEndpoint.Info().WorkerSubject(), func(msg *nats.Msg) {
		go func() {
			time.Sleep(2 * time.Millisecond)
			if msg.Header.Get(messages.HeaderBatch) != "" {
				_ = msg.Respond([]byte(`[{"found":true}]`))
				return
			}
			_ = msg.Respond(fmt.Appendf(nil, `{"found":true,"value":%q}`, keyOf(msg.Data)))
		}()
	})
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	c := connect(t, client.Config{URL: natsURL})
	failed := 0
	for _, err := range getAll(t.Context(), t, c, keyNames(50)) {
		if err != nil {
			requireCode(t, messages.CodeInternal, err)
			failed++
		}
	}
	require.Positive(t, failed)
}

// TestWhatGoesAlone: requests that say something in headers, large ones, and all of a client that is told so.
func TestWhatGoesAlone(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("k", 500)
	for name, test := range map[string]struct {
		cfg client.Config
		ctx func(context.Context) context.Context
		set bool
	}{
		"max_batch 1": {cfg: client.Config{MaxBatch: 1}},
		"actor":       {ctx: func(ctx context.Context) context.Context { return client.WithActor(ctx, "ann") }},
		"key":         {ctx: func(ctx context.Context) context.Context { return client.WithIdempotencyKey(ctx, "once") }, set: true},
		"large":       {set: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			natsURL := devtest.NATS(t).URL()
			nc, err := nats.Connect(natsURL)
			require.NoError(t, err)
			t.Cleanup(nc.Close)
			var together atomic.Int64
			_, err = nc.Subscribe("morello.v1.*.cache.*", func(msg *nats.Msg) {
				if msg.Header.Get(messages.HeaderBatch) != "" {
					together.Add(1)
				}
				go func() { time.Sleep(2 * time.Millisecond); _ = msg.Respond([]byte(`{}`)) }()
			})
			require.NoError(t, err)
			require.NoError(t, nc.Flush())
			test.cfg.URL = natsURL
			c, ctx := connect(t, test.cfg), t.Context()
			if test.ctx != nil {
				ctx = test.ctx(ctx)
			}
			var callers sync.WaitGroup
			for range 40 {
				callers.Go(func() {
					var err error
					if test.set {
						_, err = c.Cache().Set(ctx, messages.CacheSet{Key: "k", Value: jsontext.Value(`"` + strings.Repeat(long, 20) + `"`)})
					} else {
						_, err = c.Cache().Get(ctx, messages.CacheGet{Key: long})
					}
					require.NoError(t, err)
				})
			}
			callers.Wait()
			require.Zero(t, together.Load())
		})
	}
}

// TestCallersThatGoAway: a caller whose context ends gets its answer then, and its request does not leave after that. Nobody else
// waits for less than its own time.
func TestCallersThatGoAway(t *testing.T) {
	t.Parallel()
	natsURL, hold := devtest.NATS(t).URL(), make(chan struct{})
	w := startGatherWorker(t, natsURL, hold, nil)
	c := connect(t, client.Config{URL: natsURL, Attempts: 1})
	var callers sync.WaitGroup
	callers.Go(func() { // the more patient ones
		for key, err := range getAll(t.Context(), t, c, keyNames(2)) {
			require.NoError(t, err, key)
		}
	})
	require.Eventually(t, func() bool { _, requests := w.messages(); return requests == 2 }, 10*time.Second, 100*time.Microsecond)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range getAll(gone, t, c, []string{"gone-1", "gone-2", "gone-3"}) {
		require.ErrorIs(t, err, context.Canceled)
		requireCode(t, messages.CodeDeadlineExceeded, err)
	}
	impatient, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	for _, err := range getAll(impatient, t, c, []string{"late-1", "late-2", "late-3", "late-4"}) {
		requireCode(t, messages.CodeDeadlineExceeded, err)
	}
	close(hold)
	callers.Wait()
	for key := range w.seen {
		require.NotContains(t, key, "gone")
	}
}

// TestGatheredWithoutAWorker: each caller learns that nothing happened.
func TestGatheredWithoutAWorker(t *testing.T) {
	t.Parallel()
	c := connect(t, client.Config{URL: devtest.NATS(t).URL(), Attempts: 1})
	for _, err := range getAll(t.Context(), t, c, keyNames(50)) {
		require.Equal(t, messages.OutcomeNotApplied, requireCode(t, messages.CodeUnavailable, err).Outcome)
	}
}

// TestManyCallersOfARealWorker: gets, sets and touches of small and large values and of what is not there, by 128 callers at once;
// each is answered with its own.
func TestManyCallersOfARealWorker(t *testing.T) {
	t.Parallel()
	natsURL := startStack(t)
	c := connect(t, client.Config{URL: natsURL})
	value := func(caller, round int) jsontext.Value {
		size := 20
		if (caller+round)%40 == 0 {
			size = 100 << 10 // over what comes with others
		}
		return jsontext.Value(fmt.Sprintf(`"%d-%d-%s"`, caller, round, strings.Repeat("v", size)))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var callers sync.WaitGroup
	for caller := range 128 {
		callers.Go(func() {
			key := fmt.Sprintf("caller-%d", caller)
			for round := range 10 {
				set, err := c.Cache().Set(ctx, messages.CacheSet{Key: key, Value: value(caller, round)})
				require.NoError(t, err)
				require.True(t, set.Stored)
				got, err := c.Cache().Get(ctx, messages.CacheGet{Key: key})
				require.NoError(t, err)
				require.Equal(t, string(value(caller, round)), string(got.Value))
				require.Equal(t, set.Version, got.Version)
				touched, err := c.Cache().Touch(ctx, messages.CacheTouch{Key: key})
				require.NoError(t, err)
				require.True(t, touched.Touched)
				missed, err := c.Cache().Get(ctx, messages.CacheGet{Key: key + "-not-there"})
				require.NoError(t, err)
				require.False(t, missed.Found)
				again, err := c.Cache().Set(ctx, messages.CacheSet{Key: key, Value: jsontext.Value(`1`), IfAbsent: true})
				require.NoError(t, err)
				require.False(t, again.Stored)
				_, err = c.Session().GetByToken(ctx, messages.SessionGetByToken{Token: key})
				var known *messages.Error
				require.True(t, errors.As(err, &known) && known.Code == messages.CodeNotFound, "%v", err)
			}
		})
	}
	callers.Wait()
}
