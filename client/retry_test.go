package client_test

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/client"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/messages"
)

var discard = slog.New(slog.DiscardHandler)

// errSilence has a responder not answer.
var errSilence = &messages.Error{Code: "silence"}

// respond serves an endpoint on NATS: answer decides on the n-th request, from 1, whether it fails. What came is sent to
// the channel. Successes are empty objects.
func respond(t *testing.T, natsURL, endpoint string, answer func(n int, msg *nats.Msg) *messages.Error) <-chan *nats.Msg {
	t.Helper()
	nc, err := nats.Connect(natsURL)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	seen, n := make(chan *nats.Msg, 100), 0
	info, ok := messages.EndpointByName(endpoint)
	require.True(t, ok)
	_, err = nc.Subscribe(info.WorkerSubject(), func(msg *nats.Msg) {
		n++
		seen <- msg
		reply := &nats.Msg{Subject: msg.Reply, Data: []byte("{}")}
		if failure := answer(n, msg); failure == errSilence {
			return
		} else if failure != nil {
			reply.Data, _ = messages.Encode(failure.Body(false))
			reply.Header = nats.Header{messages.HeaderErrorCode: {strconv.Itoa(failure.Code.Number())}}
		}
		if err := nc.PublishMsg(reply); err != nil {
			t.Error(err)
		}
	})
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	return seen
}

func timeoutOf(t *testing.T, header nats.Header) int64 {
	t.Helper()
	ms, err := strconv.ParseInt(header.Get(messages.HeaderTimeout), 10, 64)
	require.NoError(t, err)
	return ms
}

func failure(code messages.Code, details messages.ErrorDetails) *messages.Error {
	return &messages.Error{Code: code, Message: "as scripted", Details: details}
}

// TestWhatIsRetried lists every code, for a read, for a change, and for a change with an idempotency key: how many
// attempts there are of a request that always fails so.
func TestWhatIsRetried(t *testing.T) {
	t.Parallel()
	unknown := messages.ErrorDetails{Outcome: messages.OutcomeUnknown}
	notApplied := messages.ErrorDetails{Outcome: messages.OutcomeNotApplied}
	for name, c := range map[string]struct {
		failure             *messages.Error
		read, change, keyed int
	}{
		"invalid":                 {failure(messages.CodeInvalid, messages.ErrorDetails{Field: "key"}), 1, 1, 1},
		"unauthorized":            {failure(messages.CodeUnauthorized, messages.ErrorDetails{}), 1, 1, 1},
		"forbidden":               {failure(messages.CodeForbidden, messages.ErrorDetails{}), 1, 1, 1},
		"not_found":               {failure(messages.CodeNotFound, messages.ErrorDetails{}), 1, 1, 1},
		"conflict":                {failure(messages.CodeConflict, messages.ErrorDetails{}), 1, 1, 1},
		"too_large":               {failure(messages.CodeTooLarge, messages.ErrorDetails{}), 1, 1, 1},
		"internal":                {failure(messages.CodeInternal, messages.ErrorDetails{}), 1, 1, 1},
		"a code of the future":    {failure("teapot", messages.ErrorDetails{}), 1, 1, 1},
		"quota for good":          {failure(messages.CodeQuotaExceeded, messages.ErrorDetails{}), 1, 1, 1},
		"quota for a moment":      {failure(messages.CodeQuotaExceeded, messages.ErrorDetails{RetryAfterMS: 1}), 3, 3, 3},
		"overloaded":              {failure(messages.CodeOverloaded, messages.ErrorDetails{}), 3, 3, 3},
		"unavailable not_applied": {failure(messages.CodeUnavailable, notApplied), 3, 3, 3},
		"unavailable unknown":     {failure(messages.CodeUnavailable, unknown), 3, 1, 3},
		"deadline_exceeded":       {failure(messages.CodeDeadlineExceeded, messages.ErrorDetails{}), 1, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			natsURL := devtest.NATS(t).URL()
			always := func(int, *nats.Msg) *messages.Error { return c.failure }
			reads, changes := respond(t, natsURL, "cache.get", always), respond(t, natsURL, "cache.increment", always)
			morello := connect(t, client.Config{URL: natsURL, Attempts: 3}).Cache()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()

			_, err := morello.Get(ctx, messages.CacheGet{Key: "k"})
			require.Equal(t, c.failure.Details, requireCode(t, c.failure.Code, err))
			require.ErrorContains(t, err, c.failure.Message)
			require.Len(t, reads, c.read)
			_, err = morello.Increment(ctx, messages.CacheIncrement{Key: "k"})
			requireCode(t, c.failure.Code, err)
			require.Len(t, changes, c.change)
			_, err = morello.Increment(client.WithIdempotencyKey(ctx, "key"), messages.CacheIncrement{Key: "k"})
			requireCode(t, c.failure.Code, err)
			require.Len(t, changes, c.change+c.keyed)
		})
	}
}

// TestAttempts: the default is four in all, each is told what is left of the deadline, and the pauses heed the worker.
func TestAttempts(t *testing.T) {
	t.Parallel()
	natsURL := devtest.NATS(t).URL()
	const after = 120 * time.Millisecond
	seen := respond(t, natsURL, "cache.get", func(n int, _ *nats.Msg) *messages.Error {
		if n > 3 {
			return nil
		}
		return failure(messages.CodeOverloaded, messages.ErrorDetails{RetryAfterMS: after.Milliseconds()})
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	start := time.Now()
	_, err := connect(t, client.Config{URL: natsURL}).Cache().Get(ctx, messages.CacheGet{Key: "k"})
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(start), 3*after)
	require.Len(t, seen, 4)
	last := int64(20_001)
	for range 4 {
		left := timeoutOf(t, (<-seen).Header)
		require.Less(t, left, last)
		last = left - after.Milliseconds() + 2 // rounded down, each
	}
}

// TestFourAttemptsByDefault: no more.
func TestFourAttemptsByDefault(t *testing.T) {
	t.Parallel()
	natsURL := devtest.NATS(t).URL()
	seen := respond(t, natsURL, "cache.get", func(int, *nats.Msg) *messages.Error {
		return failure(messages.CodeOverloaded, messages.ErrorDetails{})
	})
	_, err := connect(t, client.Config{URL: natsURL}).Cache().Get(t.Context(), messages.CacheGet{Key: "k"})
	requireCode(t, messages.CodeOverloaded, err)
	require.Len(t, seen, 4)
}

// TestNoPauseOutlastsTheDeadline: the failure comes at once, and not as deadline_exceeded after a wait for nothing.
func TestNoPauseOutlastsTheDeadline(t *testing.T) {
	t.Parallel()
	natsURL := devtest.NATS(t).URL()
	seen := respond(t, natsURL, "cache.get", func(int, *nats.Msg) *messages.Error {
		return failure(messages.CodeQuotaExceeded, messages.ErrorDetails{RetryAfterMS: 60_000})
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := connect(t, client.Config{URL: natsURL}).Cache().Get(ctx, messages.CacheGet{Key: "k"})
	requireCode(t, messages.CodeQuotaExceeded, err)
	require.NoError(t, ctx.Err())
	require.Len(t, seen, 1)
}

// TestCancelledInAPause: the caller leaves while the client waits for its next attempt.
func TestCancelledInAPause(t *testing.T) {
	t.Parallel()
	natsURL := devtest.NATS(t).URL()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	seen := respond(t, natsURL, "cache.get", func(int, *nats.Msg) *messages.Error {
		time.AfterFunc(100*time.Millisecond, cancel)
		return failure(messages.CodeOverloaded, messages.ErrorDetails{RetryAfterMS: 30_000})
	})
	start := time.Now()
	_, err := connect(t, client.Config{URL: natsURL}).Cache().Get(ctx, messages.CacheGet{Key: "k"})
	requireCode(t, messages.CodeDeadlineExceeded, err)
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, errors.Unwrap(err), "overloaded") // what it was waiting for to pass
	require.Less(t, time.Since(start), 20*time.Second)
	require.Len(t, seen, 1)
}

// TestNoReply: a reply that does not come within the endpoint's time-out is asked for again, if that is safe and there is
// time; otherwise it is waited for to the end.
func TestNoReply(t *testing.T) {
	t.Parallel()
	silentOnce := func(n int, _ *nats.Msg) *messages.Error {
		if n == 1 {
			return errSilence
		}
		return nil
	}
	for name, c := range map[string]struct {
		timeout  time.Duration
		ctx      func(context.Context) context.Context
		attempts int
	}{
		"with a key":          {time.Minute, func(ctx context.Context) context.Context { return client.WithIdempotencyKey(ctx, "k") }, 2},
		"without one":         {3 * time.Second, func(ctx context.Context) context.Context { return ctx }, 1},
		"no time for another": {time.Second, func(ctx context.Context) context.Context { return client.WithIdempotencyKey(ctx, "k") }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			natsURL := devtest.NATS(t).URL()
			seen := respond(t, natsURL, "cache.increment", silentOnce)
			ctx, cancel := context.WithTimeout(t.Context(), c.timeout)
			defer cancel()
			_, err := connect(t, client.Config{URL: natsURL}).Cache().Increment(c.ctx(ctx), messages.CacheIncrement{Key: "k"})
			require.Len(t, seen, c.attempts)
			if c.attempts > 1 {
				require.NoError(t, err)
				require.NoError(t, ctx.Err())
				return
			}
			requireCode(t, messages.CodeDeadlineExceeded, err)
			require.ErrorIs(t, err, context.DeadlineExceeded)
		})
	}
}

// TestDefaultDeadline: without a deadline of its own a call ends soon after the endpoint's.
func TestDefaultDeadline(t *testing.T) {
	t.Parallel()
	natsURL := devtest.NATS(t).URL()
	seen := respond(t, natsURL, "cache.get", func(int, *nats.Msg) *messages.Error { return errSilence })
	start := time.Now()
	_, err := connect(t, client.Config{URL: natsURL}).Cache().Get(context.Background(), messages.CacheGet{Key: "k"})
	requireCode(t, messages.CodeDeadlineExceeded, err)
	require.GreaterOrEqual(t, time.Since(start), messages.CacheGetEndpoint.Timeout)
	require.Less(t, time.Since(start), 15*time.Second)
	require.Len(t, seen, 1)
}

func TestNoWorker(t *testing.T) {
	t.Parallel()
	_, err := connect(t, client.Config{URL: devtest.NATS(t).URL()}).Cache().Set(t.Context(), messages.CacheSet{Key: "k", Value: []byte("1")})
	require.Equal(t, messages.OutcomeNotApplied, requireCode(t, messages.CodeUnavailable, err).Outcome)
	require.ErrorIs(t, err, nats.ErrNoResponders)
}

func TestEndedContext(t *testing.T) {
	t.Parallel()
	natsURL := devtest.NATS(t).URL()
	seen := respond(t, natsURL, "cache.get", func(int, *nats.Msg) *messages.Error { return nil })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := connect(t, client.Config{URL: natsURL}).Cache().Get(ctx, messages.CacheGet{Key: "k"})
	requireCode(t, messages.CodeDeadlineExceeded, err)
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, seen)
}

// TestRepliesThatCannotBeRead are internal, and not repeated.
func TestRepliesThatCannotBeRead(t *testing.T) {
	t.Parallel()
	natsURL := devtest.NATS(t).URL()
	for subject, header := range map[string]nats.Header{
		"morello.v1.acme.cache.get": nil, "morello.v1.acme.cache.set": {messages.HeaderErrorCode: {"500"}},
	} {
		serve(t, natsURL, subject, func(_ *nats.Conn, msg *nats.Msg) {
			if err := msg.RespondMsg(&nats.Msg{Data: []byte("["), Header: header}); err != nil {
				t.Error(err)
			}
		})
	}
	c := connect(t, client.Config{URL: natsURL}).Cache()
	_, err := c.Get(t.Context(), messages.CacheGet{Key: "k"})
	requireCode(t, messages.CodeInternal, err)
	_, err = c.Set(t.Context(), messages.CacheSet{Key: "k", Value: []byte("1")})
	requireCode(t, messages.CodeInternal, err)
	require.Error(t, errors.Unwrap(err))
}

// TestPause: full jitter within bounds that double, on top of what the worker asks for.
func TestPause(t *testing.T) {
	t.Parallel()
	for n, bound := range map[int]time.Duration{
		1: 100 * time.Millisecond, 2: 200 * time.Millisecond, 4: 800 * time.Millisecond,
		6: client.LongestPause, 64: client.LongestPause, 1000: client.LongestPause,
	} {
		var low, high bool
		for range 1000 {
			pause := client.Pause(n, failure(messages.CodeOverloaded, messages.ErrorDetails{}))
			require.GreaterOrEqual(t, pause, time.Duration(0))
			require.Less(t, pause, bound)
			low, high = low || pause < bound/4, high || pause > bound*3/4
			asked := client.Pause(n, failure(messages.CodeOverloaded, messages.ErrorDetails{RetryAfterMS: 5000}))
			require.GreaterOrEqual(t, asked, 5*time.Second)
			require.Less(t, asked, 5*time.Second+bound)
		}
		require.True(t, low && high, "the jitter is not full")
	}
}
