package worker_test

import (
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/messages"
)

// BenchmarkGet counts the allocations of a get in the caller and the worker, which share this process with nats-server.
// Subtracting those of BenchmarkEcho leaves the worker's.
func BenchmarkGet(b *testing.B) {
	cfg := config.Config{DatabaseURL: devtest.Database(b), NATSURL: devtest.NATS(b).URL()}
	start(b, cfg)
	conn := connect(b, cfg.NATSURL)
	var entries []messages.CacheSetEntry
	for i := range messages.MaxBatchKeys {
		entries = append(entries, messages.CacheSetEntry{Key: key(i), Value: value(i)})
	}
	_, err := bus.Call(b.Context(), conn, messages.CacheSetManyEndpoint, "acme", messages.CacheSetMany{Entries: entries})
	require.NoError(b, err)
	benchmarkCalls(b, conn)
}

// BenchmarkEcho is BenchmarkGet with a responder that does nothing in the worker's place.
func BenchmarkEcho(b *testing.B) {
	url := devtest.NATS(b).URL()
	nc, err := nats.Connect(url)
	require.NoError(b, err)
	defer nc.Close()
	reply := []byte(`{"found":true,"value":{"n":1},"version":1795608992118374,"expires_at":"2026-11-25T12:26:32.117464Z","expires_in_seconds":599.8}`)
	_, err = nc.Subscribe(messages.CacheGetEndpoint.Info().WorkerSubject(), func(msg *nats.Msg) { _ = msg.Respond(reply) })
	require.NoError(b, err)
	require.NoError(b, nc.Flush())
	benchmarkCalls(b, connect(b, url))
}

func benchmarkCalls(b *testing.B, conn *bus.Conn) {
	b.Helper()
	endpoint := messages.CacheGetEndpoint.Info()
	bodies := make([][]byte, messages.MaxBatchKeys)
	for i := range bodies {
		bodies[i] = []byte(`{"key":"` + key(i) + `"}`)
	}
	var next atomic.Uint64
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := conn.CallRaw(b.Context(), endpoint, "acme", bodies[next.Add(1)%messages.MaxBatchKeys], bus.Headers{}); err != nil {
				b.Error(err)
			}
		}
	})
}
