package bus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/messages"
)

func TestCallReachesTheOperation(t *testing.T) {
	t.Parallel()
	_, conn, _ := serve(t, bus.ServerConfig{}, bus.Bind(messages.CacheGetEndpoint, echoGet))
	reply, err := bus.Call(t.Context(), conn, messages.CacheGetEndpoint, "acme", messages.CacheGet{Key: "k"})
	require.NoError(t, err)
	require.JSONEq(t, `"acme/k"`, string(reply.Value))
}

func TestErrorsKeepTheirCode(t *testing.T) {
	t.Parallel()
	want := &messages.Error{Code: messages.CodeConflict, Message: "taken", Details: messages.ErrorDetails{Field: "name"}}
	_, conn, url := serve(t, bus.ServerConfig{}, bus.Bind(messages.CacheGetEndpoint,
		func(context.Context, string, messages.CacheGet) (messages.CacheGetReply, error) {
			return messages.CacheGetReply{}, fmt.Errorf("wrapped: %w", want)
		}))
	_, err := bus.Call(t.Context(), conn, messages.CacheGetEndpoint, "acme", messages.CacheGet{Key: "k"})
	require.Equal(t, want, failure(t, err))

	reply, err := rawConn(t, url).Request("morello.v1.acme.cache.get", []byte(`{"key":"k"}`), 5*time.Second)
	require.NoError(t, err)
	require.Equal(t, "409", reply.Header.Get("Nats-Service-Error-Code"))
	require.Equal(t, "conflict: name: taken", reply.Header.Get("Nats-Service-Error"))
	require.JSONEq(t, `{"error":{"code":"conflict","message":"taken","retryable":false,"details":{"field":"name"}}}`, string(reply.Data))
}

func TestInternalErrorsAreHiddenAndLoggedOnce(t *testing.T) {
	t.Parallel()
	for name, operation := range map[string]operation[messages.CacheGet, messages.CacheGetReply]{
		"error": func(context.Context, string, messages.CacheGet) (messages.CacheGetReply, error) {
			return messages.CacheGetReply{}, errors.New("the secret cause")
		},
		"panic": func(context.Context, string, messages.CacheGet) (messages.CacheGetReply, error) {
			panic("the secret cause")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log safeBuffer
			_, conn, _ := serve(t, bus.ServerConfig{Log: slog.New(slog.NewTextHandler(&log, nil))},
				bus.Bind(messages.CacheGetEndpoint, operation))
			for range 2 { // the second shows that the worker is unharmed
				_, err := bus.Call(t.Context(), conn, messages.CacheGetEndpoint, "acme", messages.CacheGet{Key: "k"})
				known := failure(t, err)
				require.Equal(t, messages.CodeInternal, known.Code)
				require.NotContains(t, err.Error(), "secret")
				require.NotEmpty(t, known.Details.ErrorID)
				require.Equal(t, 1, strings.Count(log.String(), known.Details.ErrorID))
			}
			require.Contains(t, log.String(), "the secret cause")
		})
	}
}

func TestSubjectsAndHeadersAreChecked(t *testing.T) {
	t.Parallel()
	_, _, url := serve(t, bus.ServerConfig{}, bus.Bind(messages.CacheSetEndpoint,
		func(context.Context, string, messages.CacheSet) (messages.CacheSetReply, error) {
			return messages.CacheSetReply{Stored: true}, nil
		}))
	nc := rawConn(t, url)
	body := `{"key":"k","value":1}`
	for name, test := range map[string]struct {
		tenant string
		header nats.Header
		body   string
		code   string
		field  string
	}{
		"wildcard tenant":             {tenant: "*", body: body, code: "invalid", field: "tenant"},
		"full wildcard tenant":        {tenant: ">", body: body, code: "invalid", field: "tenant"},
		"upper case tenant":           {tenant: "Acme", body: body, code: "invalid", field: "tenant"},
		"64 characters":               {tenant: strings.Repeat("a", 64), body: body, code: "invalid", field: "tenant"},
		"leading dash":                {tenant: "-a", body: body, code: "invalid", field: "tenant"},
		"tenant of a program":         {tenant: "_worker", body: body, code: "invalid", field: "tenant"},
		"operator":                    {tenant: "_admin", body: body, code: "forbidden"},
		"timeout of zero":             {tenant: "a", header: nats.Header{"Morello-Timeout-Ms": {"0"}}, body: body, code: "invalid", field: "Morello-Timeout-Ms"},
		"timeout of words":            {tenant: "a", header: nats.Header{"Morello-Timeout-Ms": {"soon"}}, body: body, code: "invalid", field: "Morello-Timeout-Ms"},
		"empty key":                   {tenant: "a", header: nats.Header{"Idempotency-Key": {""}}, body: body, code: "invalid", field: "Idempotency-Key"},
		"two keys":                    {tenant: "a", header: nats.Header{"Idempotency-Key": {"a", "b"}}, body: body, code: "invalid", field: "Idempotency-Key"},
		"129 characters":              {tenant: "a", header: nats.Header{"Idempotency-Key": {strings.Repeat("k", 129)}}, body: body, code: "invalid", field: "Idempotency-Key"},
		"long actor":                  {tenant: "a", header: nats.Header{"Morello-Actor": {strings.Repeat("k", 201)}}, body: body, code: "invalid", field: "Morello-Actor"},
		"actor of control characters": {tenant: "a", header: nats.Header{"Morello-Actor": {"a\x00b"}}, body: body, code: "invalid", field: "Morello-Actor"},
		"malformed body":              {tenant: "a", body: `{"key":`, code: "invalid", field: "key"},
		"unknown field":               {tenant: "a", body: `{"key":"k","value":1,"colour":true}`, code: "invalid", field: "colour"},
		"out of range":                {tenant: "a", body: `{"key":"","value":1}`, code: "invalid", field: "key"},
		"an absurd but long ms":       {tenant: "a", header: nats.Header{"Morello-Timeout-Ms": {"9223372036854775807"}}, body: body},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			msg := &nats.Msg{Subject: "morello.v1." + test.tenant + ".cache.set", Header: test.header, Data: []byte(test.body)}
			reply, err := nc.RequestMsg(msg, 5*time.Second)
			require.NoError(t, err)
			var body messages.ErrorReply
			if test.code == "" {
				require.JSONEq(t, `{"stored":true,"version":0}`, string(reply.Data))
				return
			}
			require.NoError(t, messages.DecodeReply(reply.Data, &body))
			require.Equal(t, test.code, string(body.Error.Code))
			require.Equal(t, test.field, body.Error.Details.Field)
		})
	}
}

func TestRequestsWithoutAnInboxAreDropped(t *testing.T) {
	t.Parallel()
	called := make(chan string, 10)
	server, conn, url := serve(t, bus.ServerConfig{}, bus.Bind(messages.CacheGetEndpoint,
		func(_ context.Context, _ string, m messages.CacheGet) (messages.CacheGetReply, error) {
			called <- m.Key
			return messages.CacheGetReply{}, nil
		}))
	nc := rawConn(t, url)
	forged := make(chan *nats.Msg, 10)
	_, err := nc.ChanSubscribe("morello.events.>", forged)
	require.NoError(t, err)
	for _, reply := range []string{"", "morello.events.v1.acme.session.created", "morello.v1._admin.pool.resize", "_INBOXES.x", "$JS.API.INFO"} {
		for _, subject := range []string{"morello.v1.acme.cache.get", "$SRV.PING", "morello.control.v1.all.ping"} {
			require.NoError(t, nc.PublishMsg(&nats.Msg{Subject: subject, Reply: reply, Data: []byte(`{"key":"forged"}`)}))
		}
	}
	require.NoError(t, nc.PublishRequest("morello.v1.acme.cache.get", "_INBOX.other.guessed.1", []byte(`{"key":"forged"}`)))
	require.NoError(t, nc.Flush())
	_, err = bus.Call(t.Context(), conn, messages.CacheGetEndpoint, "acme", messages.CacheGet{Key: "honest"})
	require.NoError(t, err)
	require.Equal(t, "honest", <-called)
	require.Empty(t, called)
	require.Eventually(t, func() bool {
		dropped, _, _ := server.Dropped()
		return dropped == 16
	}, 5*time.Second, 5*time.Millisecond)
	require.NoError(t, nc.Flush())
	require.Empty(t, forged)
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	left := make(chan time.Duration, 1)
	_, conn, _ := serve(t, bus.ServerConfig{}, bus.Bind(messages.CacheGetEndpoint,
		func(ctx context.Context, _ string, _ messages.CacheGet) (messages.CacheGetReply, error) {
			deadline, _ := ctx.Deadline()
			left <- time.Until(deadline)
			<-ctx.Done()
			return messages.CacheGetReply{}, ctx.Err()
		}))
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	_, err := bus.Call(ctx, conn, messages.CacheGetEndpoint, "acme", messages.CacheGet{Key: "k"})
	require.Equal(t, messages.CodeDeadlineExceeded, failure(t, err).Code)
	require.LessOrEqual(t, <-left, 150*time.Millisecond)

	_, err = bus.Call(t.Context(), conn, messages.CacheGetEndpoint, "acme", messages.CacheGet{Key: "k"})
	known := failure(t, err)
	require.Equal(t, messages.CodeDeadlineExceeded, known.Code)
	require.LessOrEqual(t, <-left, messages.CacheGetEndpoint.Timeout)
}

func TestAdmission(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}, 8), make(chan struct{})
	_, conn, _ := serve(t, bus.ServerConfig{MaxInFlight: 4}, bus.Bind(messages.CacheGetEndpoint,
		func(context.Context, string, messages.CacheGet) (messages.CacheGetReply, error) {
			entered <- struct{}{}
			<-release
			return messages.CacheGetReply{}, nil
		}))
	call := func(tenant string) error {
		_, err := bus.Call(t.Context(), conn, messages.CacheGetEndpoint, tenant, messages.CacheGet{Key: "k"})
		return err
	}
	var callers sync.WaitGroup
	occupy := func(tenant string) {
		callers.Go(func() { require.NoError(t, call(tenant)) })
		<-entered
	}
	occupy("loud")
	occupy("loud")
	known := failure(t, call("loud")) // its half
	require.Equal(t, messages.CodeQuotaExceeded, known.Code)
	require.Contains(t, known.Message, "limit of 2")
	require.Positive(t, known.Details.RetryAfterMS)
	occupy("quiet")
	occupy("calm")
	known = failure(t, call("fifth"))
	require.Equal(t, messages.CodeOverloaded, known.Code)
	require.Contains(t, known.Message, "limit of 4")
	close(release)
	callers.Wait()
	require.NoError(t, call("loud"))
}

// TestAdmissionOfBytes: large bodies are bounded too, all together and those of one tenant; a small one finds room beside
// them only in the whole.
func TestAdmissionOfBytes(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}, 8), make(chan struct{})
	_, conn, _ := serve(t, bus.ServerConfig{MaxRequestBytes: 4000}, bus.Bind(messages.CacheSetEndpoint,
		func(context.Context, string, messages.CacheSet) (messages.CacheSetReply, error) {
			entered <- struct{}{}
			<-release
			return messages.CacheSetReply{}, nil
		}))
	call := func(tenant string, bytes int) error {
		value := []byte(`"` + strings.Repeat("v", bytes) + `"`)
		_, err := bus.Call(t.Context(), conn, messages.CacheSetEndpoint, tenant, messages.CacheSet{Key: "k", Value: value})
		return err
	}
	var callers sync.WaitGroup
	occupy := func(tenant string, bytes int) {
		callers.Go(func() { require.NoError(t, call(tenant, bytes)) })
		<-entered
	}
	occupy("loud", 1900)
	known := failure(t, call("loud", 100)) // its half
	require.Equal(t, messages.CodeQuotaExceeded, known.Code)
	require.Contains(t, known.Message, "limit of 2000 bytes")
	occupy("quiet", 1500)
	known = failure(t, call("third", 600))
	require.Equal(t, messages.CodeOverloaded, known.Code)
	require.Contains(t, known.Message, "limit of 4000 bytes")
	require.Positive(t, known.Details.RetryAfterMS)
	occupy("third", 100)
	close(release)
	callers.Wait()
	require.NoError(t, call("loud", 10_000), "one that is larger than the limit is let in alone")
}

// TestReserve: the memory of a reply is bounded until it is sent, waiting in turn, and a deadline ends the wait.
func TestReserve(t *testing.T) {
	t.Parallel()
	reserved, release := make(chan string, 8), make(chan struct{})
	_, conn, _ := serve(t, bus.ServerConfig{MaxReplyBytes: 1000}, bus.Bind(messages.CacheGetEndpoint,
		func(ctx context.Context, _ string, m messages.CacheGet) (messages.CacheGetReply, error) {
			if err := bus.Reserve(ctx, int64(m.StaleSeconds)*10); err != nil {
				return messages.CacheGetReply{}, err
			}
			reserved <- m.Key
			<-release
			return messages.CacheGetReply{}, nil
		}))
	call := func(ctx context.Context, key string, tenBytes float64) error {
		_, err := bus.Call(ctx, conn, messages.CacheGetEndpoint, "acme", messages.CacheGet{Key: key, StaleSeconds: tenBytes})
		return err
	}
	var callers sync.WaitGroup
	callers.Go(func() { require.NoError(t, call(t.Context(), "first", 60)) })
	require.Equal(t, "first", <-reserved)
	impatient, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.Equal(t, messages.CodeDeadlineExceeded, failure(t, call(impatient, "impatient", 60)).Code)
	callers.Go(func() { require.NoError(t, call(t.Context(), "small", 40)) })
	require.Equal(t, "small", <-reserved)
	callers.Go(func() { require.NoError(t, call(t.Context(), "whole", 300)) }) // more than there is: all of it
	close(release)
	require.Equal(t, "whole", <-reserved)
	callers.Wait()
	require.NoError(t, bus.Reserve(t.Context(), 1<<40), "outside of a request there is nothing to bound")
}

func TestReplyThatDoesNotFit(t *testing.T) {
	t.Parallel()
	_, conn, _ := serve(t, bus.ServerConfig{}, bus.Bind(messages.CacheGetEndpoint,
		func(context.Context, string, messages.CacheGet) (messages.CacheGetReply, error) {
			value := append(append([]byte{'"'}, bytes.Repeat([]byte("a"), 9<<20)...), '"')
			return messages.CacheGetReply{CacheEntry: messages.CacheEntry{Value: value}}, nil
		}))
	_, err := bus.Call(t.Context(), conn, messages.CacheGetEndpoint, "acme", messages.CacheGet{Key: "k"})
	known := failure(t, err)
	require.Equal(t, messages.CodeTooLarge, known.Code)
	require.Contains(t, known.Message, "8388608")
}

func TestRequestsThatDoNotFit(t *testing.T) {
	t.Parallel()
	_, conn, _ := serve(t, bus.ServerConfig{}, bus.Bind(messages.CacheGetEndpoint, echoGet))
	for size, actor := range map[int]string{8<<20 + 1: "", 8<<20 - 10: "headers count too", 9 << 20: ""} {
		_, err := conn.CallRaw(t.Context(), messages.CacheGetEndpoint.Info(), "acme", make([]byte, size), bus.Headers{Actor: actor})
		require.Equal(t, messages.CodeTooLarge, failure(t, err).Code)
	}
	_, err := conn.CallRaw(t.Context(), messages.CacheGetEndpoint.Info(), "a.b", []byte(`{}`), bus.Headers{})
	require.Equal(t, "tenant", failure(t, err).Details.Field)
}

func TestMalformedTraceIsIgnored(t *testing.T) {
	t.Parallel()
	traces := make(chan string, 1)
	_, conn, _ := serve(t, bus.ServerConfig{}, bus.Bind(messages.CacheGetEndpoint,
		func(ctx context.Context, _ string, _ messages.CacheGet) (messages.CacheGetReply, error) {
			traces <- messages.CallFrom(ctx).Traceparent
			return messages.CacheGetReply{}, nil
		}))
	_, err := conn.CallRaw(t.Context(), messages.CacheGetEndpoint.Info(), "acme", []byte(`{"key":"k"}`), bus.Headers{Traceparent: "00-ABC"})
	require.NoError(t, err)
	require.Empty(t, <-traces)
}

func TestCallContext(t *testing.T) {
	t.Parallel()
	calls := make(chan messages.Call, 1)
	_, conn, _ := serve(t, bus.ServerConfig{}, bus.Bind(messages.CacheSetEndpoint,
		func(ctx context.Context, _ string, _ messages.CacheSet) (messages.CacheSetReply, error) {
			calls <- *messages.CallFrom(ctx)
			return messages.CacheSetReply{}, nil
		}))
	headers := bus.Headers{IdempotencyKey: "once", Actor: "ann", Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	send := func(body string) messages.Call {
		_, err := conn.CallRaw(t.Context(), messages.CacheSetEndpoint.Info(), "acme", []byte(body), headers)
		require.NoError(t, err)
		return <-calls
	}
	first, same, other := send(`{"key":"k","value":1}`), send(`{"key":"k","value":1}`), send(`{"key":"k","value":2}`)
	require.Equal(t, "once", first.IdempotencyKey)
	require.Equal(t, "ann", first.Actor)
	require.Equal(t, headers.Traceparent, first.Traceparent)
	require.Equal(t, "cache.set", first.Endpoint)
	require.Equal(t, first.Fingerprint, same.Fingerprint)
	require.NotEqual(t, first.Fingerprint, other.Fingerprint)
}

func TestDrainAnswersWhatItTook(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	server, conn, _ := serve(t, bus.ServerConfig{}, bus.Bind(messages.CacheGetEndpoint,
		func(context.Context, string, messages.CacheGet) (messages.CacheGetReply, error) {
			close(entered)
			<-release
			return messages.CacheGetReply{Found: true}, nil
		}))
	answered := make(chan error, 1)
	go func() {
		_, err := bus.Call(t.Context(), conn, messages.CacheGetEndpoint, "acme", messages.CacheGet{Key: "k"})
		answered <- err
	}()
	<-entered
	drained := make(chan error, 1)
	go func() { drained <- server.Drain(t.Context()) }()
	require.Eventually(t, func() bool { // its subscription is gone
		_, err := bus.Call(t.Context(), conn, messages.CacheGetEndpoint, "acme", messages.CacheGet{Key: "k"})
		known := failure(t, err)
		return known.Code == messages.CodeUnavailable && known.Details.Outcome == messages.OutcomeNotApplied
	}, 5*time.Second, 5*time.Millisecond)
	require.Empty(t, drained)
	close(release)
	require.NoError(t, <-answered)
	require.NoError(t, <-drained)
}

func TestDrainGivesUp(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	server, conn, _ := serve(t, bus.ServerConfig{}, bus.Bind(messages.CacheGetEndpoint,
		func(ctx context.Context, _ string, _ messages.CacheGet) (messages.CacheGetReply, error) {
			close(entered)
			<-ctx.Done()
			return messages.CacheGetReply{}, ctx.Err()
		}))
	answered := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := bus.Call(ctx, conn, messages.CacheGetEndpoint, "acme", messages.CacheGet{Key: "k"})
		answered <- err
	}()
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, server.Drain(ctx), context.DeadlineExceeded)
	require.Error(t, <-answered)
}

func TestRollingRestartLosesNoRequest(t *testing.T) {
	t.Parallel()
	binding := bus.Bind(messages.CacheGetEndpoint, echoGet)
	first, conn, url := serve(t, bus.ServerConfig{Instance: "first"}, binding)
	startServer(t, url, bus.ServerConfig{Instance: "second"}, binding)
	var callers sync.WaitGroup
	stop := make(chan struct{})
	for caller := range 16 {
		callers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				key := fmt.Sprintf("%d-%d", caller, i)
				reply, err := bus.Call(t.Context(), conn, messages.CacheGetEndpoint, "acme", messages.CacheGet{Key: key})
				require.NoError(t, err)
				require.Equal(t, `"acme/`+key+`"`, string(reply.Value))
			}
		})
	}
	require.NoError(t, first.Drain(t.Context()))
	startServer(t, url, bus.ServerConfig{Instance: "third"}, binding)
	close(stop)
	callers.Wait()
}

// safeBuffer is a buffer that a log may write to while a test reads it.
type safeBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
