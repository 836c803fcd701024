package bus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/messages"
)

const getSubject = "morello.v1.acme.cache.get"

// batchOf is a message of several requests.
func batchOf(subject string, bodies ...string) *nats.Msg {
	return &nats.Msg{
		Subject: subject, Data: []byte("[" + strings.Join(bodies, ",") + "]"),
		Header: nats.Header{messages.HeaderBatch: {strconv.Itoa(len(bodies))}},
	}
}

// elements returns the replies of a batch.
func elements(t *testing.T, reply *nats.Msg, err error, n int) []string {
	t.Helper()
	require.NoError(t, err)
	require.Empty(t, reply.Header)
	split, err := messages.SplitBatch(reply.Data, n)
	require.NoError(t, err)
	texts := make([]string, n)
	for i, element := range split {
		texts[i] = string(element)
	}
	return texts
}

// deferredGet answers on another goroutine, as a batch of PostgreSQL's would; some requests fail.
func deferredGet(d bus.Deferred[messages.CacheGetReply], tenant string, m messages.CacheGet) {
	switch m.Key {
	case "panics":
		panic("a secret cause")
	case "goes":
		d.Go(func(ctx context.Context) (messages.CacheGetReply, error) { return someGet(ctx, tenant, m) })
	default:
		go func() { d.Reply(someGet(context.Background(), tenant, m)) }()
	}
}

func someGet(ctx context.Context, tenant string, m messages.CacheGet) (messages.CacheGetReply, error) {
	switch m.Key {
	case "fails":
		return messages.CacheGetReply{}, &messages.Error{Code: messages.CodeConflict, Message: "not so"}
	case "breaks":
		return messages.CacheGetReply{}, errors.New("a secret cause")
	case "panics":
		panic("a secret cause")
	case "large":
		return messages.CacheGetReply{CacheEntry: messages.CacheEntry{Value: []byte(`"` + strings.Repeat("v", 5<<20) + `"`)}}, nil
	case "reserves":
		if err := bus.Reserve(ctx, 1); err != nil {
			return messages.CacheGetReply{}, err
		}
	}
	return echoGet(ctx, tenant, m)
}

// TestBatchOfRequests: each element of the reply is what the request would have got by itself, in the order of the requests, and the
// failure of one is nothing to the others.
func TestBatchOfRequests(t *testing.T) {
	t.Parallel()
	for name, binding := range map[string]bus.Binding{
		"bound":    bus.Bind(messages.CacheGetEndpoint, someGet),
		"deferred": bus.BindDeferred(messages.CacheGetEndpoint, someGet, deferredGet),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log safeBuffer
			server, _, url := serve(t, bus.ServerConfig{Log: slog.New(slog.NewTextHandler(&log, nil))}, binding)
			nc := rawConn(t, url)
			requests := []string{
				`{"key":"a"}`, `{"key":"fails"}`, ` {"key" : "b"}`, `{"key":""}`, `{"key":"breaks"}`, `{"key":"x","colour":1}`, `{"key":"panics"}`,
				`{"key":c}`, `7`, `{"key":"goes"}`,
			}
			reply, err := nc.RequestMsg(batchOf(getSubject, requests...), 5*time.Second)
			got := elements(t, reply, err, len(requests))
			for i, want := range map[int]string{0: "acme/a", 2: "acme/b", 9: "acme/goes"} {
				require.JSONEq(t, `{"found":true,"value":"`+want+`"}`, got[i])
			}
			require.JSONEq(t, `{"error":{"code":"conflict","message":"not so","retryable":false,"details":{}}}`, got[1])
			for i, code := range map[int]messages.Code{3: "invalid", 4: "internal", 5: "invalid", 6: "internal", 7: "invalid", 8: "invalid"} {
				failure := messages.BatchedError([]byte(got[i]))
				require.NotNil(t, failure, got[i])
				require.Equal(t, code, failure.Code, got[i])
				require.NotContains(t, got[i], "secret")
			}
			require.Contains(t, log.String(), messages.BatchedError([]byte(got[4])).Details.ErrorID)
			require.Eventually(t, func() bool { return server.InFlight() == 0 }, 5*time.Second, time.Millisecond)
		})
	}
}

func TestBatchesAreChecked(t *testing.T) {
	t.Parallel()
	_, _, url := serve(t, bus.ServerConfig{}, bus.Bind(messages.CacheGetEndpoint, echoGet), bus.Bind(messages.CacheSetEndpoint,
		func(context.Context, string, messages.CacheSet) (messages.CacheSetReply, error) {
			return messages.CacheSetReply{}, nil
		}),
		bus.Bind(messages.CacheInfoEndpoint,
			func(context.Context, string, messages.CacheInfo) (messages.CacheInfoReply, error) {
				return messages.CacheInfoReply{}, nil
			}))
	nc := rawConn(t, url)
	many := strings.Repeat(`{"key":"k"},`, messages.MaxBatchRequests) + `{"key":"k"}`
	for name, test := range map[string]struct {
		subject, count, key, body string
		field                     string
	}{
		"zero":            {count: "0", body: `[]`, field: messages.HeaderBatch},
		"negative":        {count: "-1", body: `[]`, field: messages.HeaderBatch},
		"words":           {count: "two", body: `[{},{}]`, field: messages.HeaderBatch},
		"over the limit":  {count: "129", body: "[" + many + "]", field: messages.HeaderBatch},
		"fewer elements":  {count: "3", body: `[{"key":"k"},{"key":"k"}]`, field: messages.HeaderBatch},
		"more elements":   {count: "1", body: `[{"key":"k"},{"key":"k"}]`, field: messages.HeaderBatch},
		"no array":        {count: "1", body: `{"key":"k"}`},
		"nothing":         {count: "1", body: ``},
		"missing element": {count: "2", body: `[{"key":"k"},]`, field: "[1]"},
		"one a message":   {subject: "morello.v1.acme.cache.info", count: "1", body: `[{}]`, field: messages.HeaderBatch},
		"idempotency key": {
			subject: "morello.v1.acme.cache.set", count: "1", key: "once", body: `[{"key":"k","value":1}]`, field: messages.HeaderIdempotencyKey,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			msg := &nats.Msg{Subject: getSubject, Data: []byte(test.body), Header: nats.Header{messages.HeaderBatch: {test.count}}}
			if test.subject != "" {
				msg.Subject = test.subject
			}
			if test.key != "" {
				msg.Header.Set(messages.HeaderIdempotencyKey, test.key)
			}
			reply, err := nc.RequestMsg(msg, 5*time.Second)
			require.NoError(t, err)
			require.Equal(t, "400", reply.Header.Get(messages.HeaderErrorCode), string(reply.Data))
			require.Equal(t, test.field, messages.DecodeError(reply.Data).Details.Field)
		})
	}
}

// TestLargeRepliesOfABatch: replies that do not fit into one message are too_large, and those that do arrive. Nothing waits for memory
// while it holds some.
func TestLargeRepliesOfABatch(t *testing.T) {
	t.Parallel()
	_, _, url := serve(t, bus.ServerConfig{}, bus.Bind(messages.CacheGetEndpoint, someGet))
	nc := rawConn(t, url)
	reply, err := nc.RequestMsg(batchOf(getSubject, `{"key":"large"}`, `{"key":"small"}`, `{"key":"large"}`, `{"key":"reserves"}`), 10*time.Second)
	got := elements(t, reply, err, 4)
	large := 0
	for _, i := range []int{0, 2} {
		if failure := messages.BatchedError([]byte(got[i])); failure != nil {
			require.Equal(t, messages.CodeTooLarge, failure.Code)
			continue
		}
		large++
		require.Greater(t, len(got[i]), 5<<20)
	}
	require.Equal(t, 1, large, "one of the two fits")
	require.JSONEq(t, `{"found":true,"value":"acme/small"}`, got[1])
	require.Equal(t, messages.CodeTooLarge, messages.BatchedError([]byte(got[3])).Code)
}

// TestAdmissionOfBatches: each request of a message counts.
func TestAdmissionOfBatches(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}, 64), make(chan struct{})
	server, _, url := serve(t, bus.ServerConfig{MaxInFlight: 8}, bus.Bind(messages.CacheGetEndpoint,
		func(ctx context.Context, tenant string, m messages.CacheGet) (messages.CacheGetReply, error) {
			entered <- struct{}{}
			<-release
			return echoGet(ctx, tenant, m)
		}))
	nc := rawConn(t, url)
	var callers sync.WaitGroup
	callers.Go(func() {
		reply, err := nc.RequestMsg(batchOf(getSubject, `{"key":"a"}`, `{"key":"b"}`, `{"key":"c"}`), 10*time.Second)
		elements(t, reply, err, 3)
	})
	for range 3 {
		<-entered
	}
	require.EqualValues(t, 3, server.InFlight())
	refused, err := nc.RequestMsg(batchOf(getSubject, `{"key":"a"}`, `{"key":"b"}`), 10*time.Second)
	require.NoError(t, err)
	failure := messages.DecodeError(refused.Data)
	require.Equal(t, messages.CodeQuotaExceeded, failure.Code)
	require.Contains(t, failure.Message, "limit of 4")
	close(release)
	callers.Wait()
	many := strings.Split(strings.Repeat(`{"key":"k"} `, 20)+`{"key":"k"}`, " ")
	reply, err := nc.RequestMsg(batchOf(getSubject, many...), 10*time.Second)
	elements(t, reply, err, len(many)) // more than the limit: let in alone
	require.Eventually(t, func() bool { return server.InFlight() == 0 }, 5*time.Second, time.Millisecond)
}

// TestDeadlineOfABatch: what is not done in time says so, and what is done arrives.
func TestDeadlineOfABatch(t *testing.T) {
	t.Parallel()
	_, _, url := serve(t, bus.ServerConfig{}, bus.Bind(messages.CacheGetEndpoint,
		func(ctx context.Context, tenant string, m messages.CacheGet) (messages.CacheGetReply, error) {
			if m.Key == "slow" {
				<-ctx.Done()
				return messages.CacheGetReply{}, ctx.Err()
			}
			return echoGet(ctx, tenant, m)
		}))
	msg := batchOf(getSubject, `{"key":"slow"}`, `{"key":"fast"}`)
	msg.Header.Set(messages.HeaderTimeout, "50")
	reply, err := rawConn(t, url).RequestMsg(msg, 10*time.Second)
	got := elements(t, reply, err, 2)
	require.Equal(t, messages.CodeDeadlineExceeded, messages.BatchedError([]byte(got[0])).Code)
	require.JSONEq(t, `{"found":true,"value":"acme/fast"}`, got[1])
}

// TestDrainAnswersBatches: a message of several that was taken is answered in full.
func TestDrainAnswersBatches(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}, 2), make(chan struct{})
	server, _, url := serve(t, bus.ServerConfig{}, bus.Bind(messages.CacheGetEndpoint,
		func(ctx context.Context, tenant string, m messages.CacheGet) (messages.CacheGetReply, error) {
			if m.Key != "late" {
				entered <- struct{}{}
				<-release
			}
			return echoGet(ctx, tenant, m)
		}))
	nc := rawConn(t, url)
	var caller sync.WaitGroup
	caller.Go(func() {
		reply, err := nc.RequestMsg(batchOf(getSubject, `{"key":"a"}`, `{"key":"b"}`), 10*time.Second)
		got := elements(t, reply, err, 2)
		require.JSONEq(t, `{"found":true,"value":"acme/b"}`, got[1])
	})
	<-entered
	<-entered
	drained := make(chan error, 1)
	go func() { drained <- server.Drain(t.Context()) }()
	require.Eventually(t, func() bool { // its subscription is gone
		_, err := nc.Request(getSubject, []byte(`{"key":"late"}`), 10*time.Second)
		return errors.Is(err, nats.ErrNoResponders)
	}, 5*time.Second, time.Millisecond)
	require.Empty(t, drained)
	close(release)
	require.NoError(t, <-drained)
	caller.Wait()
}

// TestBatchesSideBySide: many at once, with answers from many goroutines.
func TestBatchesSideBySide(t *testing.T) {
	t.Parallel()
	server, _, url := serve(t, bus.ServerConfig{MaxInFlight: 1 << 20}, bus.BindDeferred(messages.CacheGetEndpoint, someGet, deferredGet))
	nc := rawConn(t, url)
	var callers sync.WaitGroup
	for caller := range 16 {
		callers.Go(func() {
			for round := range 20 {
				var requests []string
				n := 1 + (caller*7+round*13)%messages.MaxBatchRequests
				for i := range n {
					requests = append(requests, fmt.Sprintf(`{"key":"%d-%d-%d"}`, caller, round, i))
				}
				reply, err := nc.RequestMsg(batchOf(getSubject, requests...), 10*time.Second)
				for i, got := range elements(t, reply, err, n) {
					require.Equal(t, fmt.Sprintf(`{"found":true,"value":"acme/%d-%d-%d"}`, caller, round, i), got)
				}
			}
		})
	}
	callers.Wait()
	require.Eventually(t, func() bool { return server.InFlight() == 0 }, 5*time.Second, time.Millisecond)
}
