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
	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/client"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/messages"
)

// gatherWorker answers gets with the key as the value, also several in one message, when it is allowed to; answer may decide otherwise
// on a key.
type gatherWorker struct {
	answer func(key string, together int) *messages.Error
	mu     sync.Mutex
	sizes  []int          // of the messages
	seen   map[string]int // how often a key was asked for
}

// serve answers the messages on a subject, each in its own time.
func serve(t *testing.T, natsURL, subject string, handle func(nc *nats.Conn, msg *nats.Msg)) {
	t.Helper()
	nc, err := nats.Connect(natsURL)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	_, err = nc.Subscribe(subject, func(msg *nats.Msg) { go handle(nc, msg) })
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
}

var cacheGetSubject = messages.CacheGetEndpoint.Info().WorkerSubject()

func startGatherWorker(t *testing.T, natsURL string, hold <-chan struct{}, answer func(key string, together int) *messages.Error) *gatherWorker {
	t.Helper()
	w := &gatherWorker{answer: answer, seen: map[string]int{}}
	serve(t, natsURL, cacheGetSubject, func(nc *nats.Conn, msg *nats.Msg) {
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
	})
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
	hold, arrived := make(chan struct{}), make(chan struct{})
	serve(t, natsURL, cacheGetSubject, func(_ *nats.Conn, msg *nats.Msg) {
		if keyOf(msg.Data) == "fast" {
			_ = msg.Respond([]byte(`{"found":true}`))
			return
		}
		arrived <- struct{}{}
		<-hold
		_ = msg.Respond([]byte(`{"found":false}`))
	})
	c := connect(t, client.Config{URL: natsURL})
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			_, err := c.Cache().Get(t.Context(), messages.CacheGet{Key: "slow"})
			require.NoError(t, err)
		})
		<-arrived // by itself
	}
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

// serveAfterABatch answers messages of several requests, and messages of one when one of several has come: until then others gather.
func serveAfterABatch(t *testing.T, natsURL string, several func(nc *nats.Conn, msg *nats.Msg)) {
	t.Helper()
	came := make(chan struct{})
	var once sync.Once
	serve(t, natsURL, cacheGetSubject, func(nc *nats.Conn, msg *nats.Msg) {
		if msg.Header.Get(messages.HeaderBatch) != "" {
			several(nc, msg)
			once.Do(func() { close(came) })
			return
		}
		<-came
		_ = msg.Respond(fmt.Appendf(nil, `{"found":true,"value":%q}`, keyOf(msg.Data)))
	})
}

// TestWorkersThatTakeOneRequestAMessage: they refuse the message, and each request goes by itself.
func TestWorkersThatTakeOneRequestAMessage(t *testing.T) {
	t.Parallel()
	natsURL := devtest.NATS(t).URL()
	serveAfterABatch(t, natsURL, func(nc *nats.Conn, msg *nats.Msg) {
		body, _ := messages.Encode(messages.AsError(messages.Decode(msg.Data, &messages.CacheGet{})).Body(true))
		_ = nc.PublishMsg(&nats.Msg{Subject: msg.Reply, Data: body, Header: nats.Header{messages.HeaderErrorCode: {"400"}}})
	})
	c := connect(t, client.Config{URL: natsURL})
	for key, err := range getAll(t.Context(), t, c, keyNames(50)) {
		require.NoError(t, err, key)
	}
}

// TestRepliesThatCannotBeDivided are internal errors, and nobody gets another's.
func TestRepliesThatCannotBeDivided(t *testing.T) {
	t.Parallel()
	natsURL := devtest.NATS(t).URL()
	serveAfterABatch(t, natsURL, func(_ *nats.Conn, msg *nats.Msg) { _ = msg.Respond([]byte(`[{"found":true}]`)) })
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

// TestWhatGoesAlone: requests that say something in headers, large ones, those that may wait for others or must not be asked for
// twice, and all of a client that is told so.
func TestWhatGoesAlone(t *testing.T) {
	t.Parallel()
	get := func(ctx context.Context, c *client.Client) error {
		_, err := c.Cache().Get(ctx, messages.CacheGet{Key: strings.Repeat("k", 500)})
		return err
	}
	setting := func(m messages.CacheSet) func(ctx context.Context, c *client.Client) error {
		m.Key = "k"
		return func(ctx context.Context, c *client.Client) error {
			_, err := c.Cache().Set(ctx, m)
			return err
		}
	}
	small, version := jsontext.Value(`1`), int64(1)
	for name, test := range map[string]struct {
		cfg  client.Config
		ctx  func(context.Context) context.Context
		call func(ctx context.Context, c *client.Client) error
	}{
		"max_batch 1": {cfg: client.Config{MaxBatch: 1}, call: get},
		"actor":       {ctx: func(ctx context.Context) context.Context { return client.WithActor(ctx, "ann") }, call: get},
		"key": {
			ctx: func(ctx context.Context) context.Context { return client.WithIdempotencyKey(ctx, "once") }, call: setting(messages.CacheSet{Value: small}),
		},
		"large":      {call: setting(messages.CacheSet{Value: jsontext.Value(`"` + strings.Repeat("v", 10_000) + `"`)})},
		"if_absent":  {call: setting(messages.CacheSet{Value: small, IfAbsent: true})},
		"if_version": {call: setting(messages.CacheSet{Value: small, IfVersion: &version})},
		"with lease": {call: setting(messages.CacheSet{Value: small, Lease: uuid.NewString()})},
		"for a lease": {call: func(ctx context.Context, c *client.Client) error {
			_, err := c.Cache().Get(ctx, messages.CacheGet{Key: "k", Lease: true})
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const calls = 40
			natsURL := devtest.NATS(t).URL()
			var together, alone atomic.Int64
			all := make(chan struct{}) // closed when all are there
			serve(t, natsURL, "morello.v1.*.cache.*", func(_ *nats.Conn, msg *nats.Msg) {
				if msg.Header.Get(messages.HeaderBatch) != "" {
					together.Add(1)
				} else if alone.Add(1) == calls {
					close(all)
				}
				<-all
				_ = msg.Respond([]byte(`{}`))
			})
			test.cfg.URL, test.cfg.Attempts = natsURL, 1
			c, ctx := connect(t, test.cfg), t.Context()
			if test.ctx != nil {
				ctx = test.ctx(ctx)
			}
			var callers sync.WaitGroup
			for range calls {
				callers.Go(func() { require.NoError(t, test.call(ctx, c)) })
			}
			callers.Wait()
			require.Zero(t, together.Load())
		})
	}
}

// TestLeaseOfAReplyThatIsTooLarge: who does not learn of its lease, because the stale value is too large to come with others, does
// not keep it.
func TestLeaseOfAReplyThatIsTooLarge(t *testing.T) {
	t.Parallel()
	natsURL := startStack(t)
	c := connect(t, client.Config{URL: natsURL})
	ttl := 0.001
	_, err := c.Cache().Set(t.Context(), messages.CacheSet{Key: "k", Value: jsontext.Value(`"` + strings.Repeat("x", 100<<10) + `"`), TTLSeconds: &ttl})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		got, err := c.Cache().Get(t.Context(), messages.CacheGet{Key: "k"})
		return err == nil && !got.Found
	}, 10*time.Second, time.Millisecond)
	get := messages.CacheGet{Key: "k", Lease: true, StaleSeconds: 60}
	body, err := messages.Encode(get)
	require.NoError(t, err)
	nc, err := nats.Connect(natsURL)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	msg := &nats.Msg{Subject: "morello.v1.acme.cache.get", Data: messages.JoinBatch([][]byte{body, body}), Header: nats.Header{messages.HeaderBatch: {"2"}}}
	reply, err := nc.RequestMsgWithContext(t.Context(), msg)
	require.NoError(t, err)
	replies, err := messages.SplitBatch(reply.Data, 2)
	require.NoError(t, err)
	for _, element := range replies {
		require.Equal(t, messages.CodeTooLarge, messages.BatchedError(element).Code)
	}
	got, err := c.Cache().Get(t.Context(), get)
	require.NoError(t, err)
	require.True(t, got.Stale)
	require.NotEmpty(t, got.Lease)
}

// TestCallersWithoutADeadline leave when the operation's time has come, whoever they go with.
func TestCallersWithoutADeadline(t *testing.T) {
	t.Parallel()
	natsURL, hold := devtest.NATS(t).URL(), make(chan struct{})
	startGatherWorker(t, natsURL, hold, nil)
	c := connect(t, client.Config{URL: natsURL, Attempts: 1})
	patient, cancel := context.WithTimeout(t.Context(), time.Hour)
	var others, callers sync.WaitGroup
	for range 10 {
		others.Go(func() {
			_, err := c.Cache().Get(patient, messages.CacheGet{Key: "patient"})
			require.ErrorIs(t, err, context.Canceled)
		})
		callers.Go(func() {
			_, err := c.Cache().Get(t.Context(), messages.CacheGet{Key: "without"})
			requireCode(t, messages.CodeDeadlineExceeded, err)
		})
	}
	left := make(chan struct{})
	go func() { callers.Wait(); close(left) }()
	select {
	case <-left:
	case <-time.After(30 * time.Second):
		t.Error("they wait for the others")
	}
	cancel()
	others.Wait()
	close(hold)
	callers.Wait()
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
