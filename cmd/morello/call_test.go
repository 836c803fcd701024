package main

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/messages"
)

// serve starts NATS and a worker that serves the bindings, and returns the URL of NATS.
func serve(t *testing.T, bindings ...bus.Binding) string {
	t.Helper()
	url, log := devtest.NATS(t).URL(), slog.New(slog.DiscardHandler)
	conn, err := bus.Connect(t.Context(), bus.ConnConfig{URL: url, Program: "worker", Instance: "one", Log: log})
	require.NoError(t, err)
	server := bus.NewServer(conn, bus.ServerConfig{Program: "worker", Instance: "one", Version: config.Version, Log: log}, bindings)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, server.Drain(ctx))
		require.NoError(t, conn.Close(ctx))
	})
	require.NoError(t, server.Start())
	return url
}

func TestCall(t *testing.T) {
	t.Parallel()
	type seen struct {
		tenant  string
		request messages.CacheSet
		call    messages.Call
	}
	calls := make(chan seen, 1)
	url := serve(t, bus.Bind(messages.CacheSetEndpoint, func(ctx context.Context, tenant string, m messages.CacheSet) (messages.CacheSetReply, error) {
		calls <- seen{tenant, m, *messages.CallFrom(ctx)}
		return messages.CacheSetReply{Stored: true, Version: 7}, nil
	}))
	out, err := run(t.Context(), "", "call", "--nats-url", url, "cache.set", `{"key":"k","value":1.0}`)
	require.NoError(t, err)
	require.Equal(t, `{"stored":true,"version":7}`+"\n", out)
	got := <-calls
	require.Equal(t, "demo", got.tenant)
	require.Equal(t, `1.0`, string(got.request.Value))

	_, err = run(t.Context(), "{\"key\":\"from stdin\",\"value\":null}\n", "call", "cache.set", "-", "--nats-url", url,
		"--tenant", "acme", "--idempotency-key", "once", "--actor", "operator-7", "--timeout", "30s")
	require.NoError(t, err)
	got = <-calls
	require.Equal(t, "acme", got.tenant)
	require.Equal(t, "from stdin", got.request.Key)
	require.Equal(t, "once", got.call.IdempotencyKey)
	require.Equal(t, "operator-7", got.call.Actor)
}

// TestCallRawBytes: bytes come from standard input and are printed as they are.
func TestCallRawBytes(t *testing.T) {
	t.Parallel()
	const id = "0196f3c2-7b1e-7c3a-9f0e-0f6a3d1c2b4a"
	var stored messages.TransferPut
	url := serve(t,
		bus.Bind(messages.TransferPutEndpoint, func(_ context.Context, _ string, m messages.TransferPut) (messages.TransferPutReply, error) {
			stored = m
			return messages.TransferPutReply{ReceivedBytes: len(m.Data)}, nil
		}),
		bus.Bind(messages.TransferGetEndpoint, func(context.Context, string, messages.TransferGet) (messages.TransferGetReply, error) {
			return messages.TransferGetReply{Parts: stored.Part + 1, Data: stored.Data}, nil
		}))
	out, err := run(t.Context(), "\x00\xff\n", "call", "--nats-url", url, "transfer.put", "-", "--header", "Morello-Transfer="+id, "--header", "Morello-Part=4")
	require.NoError(t, err)
	require.Equal(t, `{"received_bytes":3}`+"\n", out)
	require.Equal(t, id, stored.TransferID)
	require.Equal(t, 4, stored.Part)
	out, err = run(t.Context(), "", "call", "--nats-url", url, "transfer.get", `{"transfer_id":"`+id+`"}`)
	require.NoError(t, err)
	require.Equal(t, "\x00\xff\n", out)
	_, err = run(t.Context(), "", "call", "--nats-url", url, "transfer.get", `{"transfer_id":"`+id+`"}`, "--header", "Morello-Part=4")
	require.EqualError(t, err, `transfer.get has no header "Morello-Part" of its own`)
}

// TestCallFailures: programs read the error object, people the text.
func TestCallFailures(t *testing.T) {
	t.Parallel()
	url := serve(t,
		bus.Bind(messages.CacheGetEndpoint, func(ctx context.Context, _ string, _ messages.CacheGet) (messages.CacheGetReply, error) {
			<-ctx.Done()
			return messages.CacheGetReply{}, ctx.Err()
		}),
		bus.Bind(messages.CacheSetEndpoint, func(context.Context, string, messages.CacheSet) (messages.CacheSetReply, error) {
			return messages.CacheSetReply{}, context.DeadlineExceeded
		}))
	for _, c := range []struct {
		name      string
		args      []string
		code      messages.Code
		retryable bool
	}{
		{"no body", []string{"cache.get"}, messages.CodeInvalid, false},
		{"tenant that is none", []string{"cache.get", `{"key":"k"}`, "--tenant", "ACME"}, messages.CodeInvalid, false},
		{"tenant with wildcard", []string{"cache.get", `{"key":"k"}`, "--tenant", "*"}, messages.CodeInvalid, false},
		{"tenant with a space", []string{"cache.get", `{"key":"k"}`, "--tenant", "a b"}, messages.CodeInvalid, false},
		{"tenant with a dot", []string{"cache.get", `{"key":"k"}`, "--tenant", "a.b"}, messages.CodeInvalid, false},
		{"tenant of the operator", []string{"cache.get", `{"key":"k"}`, "--tenant", "_admin"}, messages.CodeForbidden, false},
		{"nobody listens", []string{"cache.touch", `{"key":"k"}`}, messages.CodeUnavailable, true},
		{"deadline of a read", []string{"cache.get", `{"key":"k"}`, "--timeout", "50ms"}, messages.CodeDeadlineExceeded, true},
		{"deadline of a change", []string{"cache.set", `{"key":"k","value":1}`}, messages.CodeDeadlineExceeded, false},
		{"deadline of a change with a key", []string{"cache.set", `{"key":"k","value":1}`, "--idempotency-key", "once"}, messages.CodeDeadlineExceeded, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out, err := run(t.Context(), "", append([]string{"call", "--nats-url", url}, c.args...)...)
			var failure *messages.Error
			require.ErrorAs(t, err, &failure)
			require.Equal(t, c.code, failure.Code)
			var reply messages.ErrorReply
			require.NoError(t, messages.DecodeReply([]byte(out), &reply))
			require.Equal(t, failure.Body(c.retryable), reply)
			require.Equal(t, c.retryable, reply.Error.Retryable)
		})
	}
}

// TestCallWithoutNATS: somebody is waiting, so it gives up, and says where it looked.
func TestCallWithoutNATS(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := run(ctx, "", "call", "cache.get", "--nats-url", "nats://user:hunter2@127.0.0.1:1")
	require.ErrorContains(t, err, "connecting to NATS at nats://127.0.0.1:1")
	require.NotContains(t, err.Error(), "hunter2")
}
