package worker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/health"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/internal/worker"
	"github.com/ai-cherry/morello/messages"
)

func TestMain(m *testing.M) {
	for _, user := range []string{"OPERATOR", "GATEWAY", "WORKER", "SCHEDULER", "TENANT_ACME"} {
		if err := os.Setenv("MORELLO_NATS_"+user+"_PASSWORD", password); err != nil {
			panic(err)
		}
	}
	devtest.Main(m, func(ctx context.Context, databaseURL string) error {
		return postgres.MigrateUp(ctx, databaseURL, slog.New(slog.DiscardHandler))
	})
}

const password = "secret"

// start runs a worker until stop is called, which returns how it ended.
func start(t testing.TB, cfg config.Config) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	if cfg.HealthAddr == "" {
		cfg.HealthAddr = config.HealthOff
	}
	go func() {
		ended <- worker.Run(ctx, worker.Config{
			Config: cfg, OnReady: func() { close(ready) }, Log: slog.New(slog.DiscardHandler),
		})
	}()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { require.NoError(t, stop()) })
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		require.NoError(t, err)
	}
	return stop
}

func connect(t testing.TB, url string) *bus.Conn {
	t.Helper()
	conn, err := bus.Connect(t.Context(), bus.ConnConfig{URL: url, Program: "operator", Instance: "test", Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		require.NoError(t, conn.Close(ctx))
	})
	return conn
}

// TestRollingRestartUnderLoad: 256 callers read 100 000 distinct keys through two workers, of which one is drained and
// another started. No request fails and none is answered wrongly.
func TestRollingRestartUnderLoad(t *testing.T) {
	t.Parallel()
	const keys, callers = 100_000, 256
	cfg := config.Config{DatabaseURL: devtest.Database(t), NATSURL: devtest.NATS(t).URL()}
	stopFirst := start(t, cfg)
	start(t, cfg)
	conn := connect(t, cfg.NATSURL)
	for first := 0; first < keys; first += messages.MaxBatchKeys {
		var entries []messages.CacheSetEntry
		for i := first; i < first+messages.MaxBatchKeys; i++ {
			entries = append(entries, messages.CacheSetEntry{Key: key(i), Value: value(i)})
		}
		_, err := bus.Call(t.Context(), conn, messages.CacheSetManyEndpoint, "acme", messages.CacheSetMany{Entries: entries})
		require.NoError(t, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var next, done atomic.Int64
	var crowd sync.WaitGroup
	for range callers {
		crowd.Go(func() {
			for i := next.Add(1) - 1; i < keys; i = next.Add(1) - 1 {
				reply, err := bus.Call(ctx, conn, messages.CacheGetEndpoint, "acme", messages.CacheGet{Key: key(int(i))})
				if err != nil || string(reply.Value) != string(value(int(i))) {
					t.Errorf("key %d: %s, %v", i, reply.Value, err)
					return
				}
				done.Add(1)
			}
		})
	}
	waitFor := func(n int64) {
		require.Eventually(t, func() bool { return done.Load() >= n }, 5*time.Minute, time.Millisecond)
	}
	waitFor(keys / 4)
	require.NoError(t, stopFirst())
	require.Less(t, done.Load(), int64(keys), "the drain did not happen under load")
	waitFor(done.Load() + keys/10)
	start(t, cfg)
	crowd.Wait()
	require.EqualValues(t, keys, done.Load())
}

func key(i int) string   { return fmt.Sprintf("key-%d", i) }
func value(i int) []byte { return fmt.Appendf(nil, `{"n":%d}`, i) }

// TestBadInputHarmsNobody: garbage from many callers, among good requests of others. Each gets its own answer.
func TestBadInputHarmsNobody(t *testing.T) {
	t.Parallel()
	cfg := config.Config{DatabaseURL: devtest.Database(t), NATSURL: devtest.NATS(t).URL()}
	start(t, cfg)
	conn := connect(t, cfg.NATSURL)
	nc, err := nats.Connect(cfg.NATSURL)
	require.NoError(t, err)
	defer nc.Close()
	bad := map[string]struct{ operation, body, code, field string }{
		"malformed":        {"get", `{"key"`, "invalid", "key"},
		"unknown field":    {"get", `{"key":"k","colour":true}`, "invalid", "colour"},
		"repeated member":  {"set", `{"key":"k","value":1,"value":2}`, "invalid", "value"},
		"wrong type":       {"get", `{"key":1}`, "invalid", "key"},
		"missing":          {"set", `{"key":"k"}`, "invalid", "value"},
		"empty key":        {"get", `{"key":""}`, "invalid", "key"},
		"513 bytes":        {"set", `{"key":"` + strings.Repeat("k", 513) + `","value":1}`, "invalid", "key"},
		"invalid UTF-8":    {"get", "{\"key\":\"\xff\"}", "invalid", ""},
		"NUL":              {"set", `{"key":"a\u0000","value":1}`, "invalid", "key"},
		"lone surrogate":   {"set", `{"key":"\ud800","value":1}`, "invalid", "key"},
		"33 tags":          {"set", `{"key":"k","value":1,"tags":["a"` + strings.Repeat(`,"a"`, 32) + `]}`, "invalid", "tags"},
		"129 byte tag":     {"set", `{"key":"k","value":1,"tags":["` + strings.Repeat("t", 129) + `"]}`, "invalid", "tags[0]"},
		"TTL of 0":         {"set", `{"key":"k","value":1,"ttl_seconds":0}`, "invalid", "ttl_seconds"},
		"negative TTL":     {"touch", `{"key":"k","ttl_seconds":-1}`, "invalid", "ttl_seconds"},
		"absurd TTL":       {"increment", `{"key":"k","ttl_seconds":1e300}`, "invalid", "ttl_seconds"},
		"1001 keys":        {"get_many", `{"keys":["a"` + strings.Repeat(`,"a"`, 1000) + `]}`, "invalid", "keys"},
		"value over 4 MiB": {"set", `{"key":"k","value":"` + strings.Repeat("v", 4<<20) + `"}`, "too_large", "value"},
		"deep nesting":     {"set", `{"key":"k","value":` + strings.Repeat("[", 600) + strings.Repeat("]", 600) + `}`, "invalid", ""},
		"trailing bytes":   {"get", `{"key":"k"} {}`, "invalid", ""},
	}
	var crowd sync.WaitGroup
	for name, request := range bad {
		crowd.Go(func() {
			for range 5 {
				reply, err := nc.Request("morello.v1.acme.cache."+request.operation, []byte(request.body), 10*time.Second)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				var body messages.ErrorReply
				if err := messages.DecodeReply(reply.Data, &body); err != nil || string(body.Error.Code) != request.code || body.Error.Details.Field != request.field {
					t.Errorf("%s: %s", name, reply.Data)
				}
			}
		})
	}
	for caller := range 16 {
		crowd.Go(func() {
			for i := range 50 {
				mine := fmt.Sprintf("%d-%d", caller, i)
				_, err := bus.Call(t.Context(), conn, messages.CacheSetEndpoint, "acme", messages.CacheSet{Key: mine, Value: value(i)})
				if err != nil {
					t.Error(err)
				}
				reply, err := bus.Call(t.Context(), conn, messages.CacheGetEndpoint, "acme", messages.CacheGet{Key: mine})
				if err != nil || string(reply.Value) != string(value(i)) {
					t.Errorf("%s: %s, %v", mine, reply.Value, err)
				}
			}
		})
	}
	crowd.Wait()
}

// TestTenantCannotUseTheReplySubject: with the permissions of deploy/nats, and the real worker.
func TestTenantCannotUseTheReplySubject(t *testing.T) {
	t.Parallel()
	broker := devtest.NATSWithConfig(t, "../../deploy/nats/nats-server.conf")
	login := func(user string) string {
		return strings.Replace(broker.URL(), "nats://", "nats://"+user+":"+password+"@", 1)
	}
	start(t, config.Config{DatabaseURL: devtest.Database(t), NATSURL: login("_worker")})
	operator, err := nats.Connect(login("_operator"), nats.CustomInboxPrefix("_INBOX._operator"))
	require.NoError(t, err)
	defer operator.Close()
	seen := make(chan *nats.Msg, 100)
	_, err = operator.ChanSubscribe("morello.events.v1.>", seen)
	require.NoError(t, err)
	_, err = operator.ChanSubscribe("_INBOX._operator.>", seen)
	require.NoError(t, err)
	require.NoError(t, operator.Flush())

	tenant, err := nats.Connect(login("acme"), nats.CustomInboxPrefix("_INBOX.acme"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	require.NoError(t, err)
	defer tenant.Close()
	for _, reply := range []string{
		"morello.events.v1.acme.cache.invalidated", "morello.events.v1._admin.maintenance.cache_cleanup", "morello.v1._admin.pool.resize",
		"morello.v1.other.cache.delete", "morello.control.v1.all.ping", "$JS.API.STREAM.DELETE.MORELLO_EVENTS", "$SRV.PING", "_INBOX.other.x",
	} {
		require.NoError(t, tenant.PublishMsg(&nats.Msg{Subject: "morello.v1.acme.cache.get", Reply: reply, Data: []byte(`{"key":"k"}`)}))
	}
	reply, err := tenant.Request("morello.v1.acme.cache.get", []byte(`{"key":"k"}`), 10*time.Second) // and is served
	require.NoError(t, err)
	require.JSONEq(t, `{"found":false}`, string(reply.Data))
	for _, subject := range []string{"morello.v1.other.cache.get", "morello.v1._admin.cache.get"} {
		_, err := tenant.Request(subject, []byte(`{"key":"k"}`), 200*time.Millisecond)
		require.Error(t, err, subject)
	}
	// The operator's call is answered after all that the worker could have sent before.
	answer, err := operator.Request("morello.v1.acme.cache.get", []byte(`{"key":"k"}`), 10*time.Second)
	require.NoError(t, err)
	require.JSONEq(t, `{"found":false}`, string(answer.Data))
	require.NoError(t, operator.Flush())
	close(seen)
	for msg := range seen {
		require.Equal(t, answer.Subject, msg.Subject, "a tenant had the worker publish here")
	}
}

func TestWorkerWithTheDeployedGrants(t *testing.T) {
	t.Parallel()
	broker := devtest.NATSWithConfig(t, "../../deploy/nats/nats-server.conf")
	login := func(user string) string {
		return strings.Replace(broker.URL(), "nats://", "nats://"+user+":"+password+"@", 1)
	}
	stop := start(t, config.Config{DatabaseURL: devtest.Database(t), NATSURL: login("_worker")})
	conn, err := bus.Connect(t.Context(), bus.ConnConfig{URL: login("_operator"), Program: "operator", Instance: "one"})
	require.NoError(t, err)
	_, err = bus.Call(t.Context(), conn, messages.CacheSetEndpoint, "acme", messages.CacheSet{Key: "k", Value: []byte("1")})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	answers, err := conn.Control(ctx, messages.ControlAll, messages.ControlPing, 1)
	require.NoError(t, err)
	require.Len(t, answers, 1)
	require.NoError(t, stop())
	require.NoError(t, conn.Close(ctx))
}

func TestHealthAndLease(t *testing.T) {
	t.Parallel()
	server, broker := devtest.Server(t), devtest.NATS(t)
	url := server.URL("morello")
	// The port is chosen by asking for a free one just before; nothing else on this machine wants it.
	addr := freeAddr(t)
	stop := start(t, config.Config{DatabaseURL: url, NATSURL: broker.URL(), HealthAddr: addr})
	require.NoError(t, health.Ask(t.Context(), addr))
	db, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	var live int
	require.NoError(t, db.QueryRow(t.Context(), `SELECT count(*) FROM morello.worker_lease WHERE program = 'worker' AND leased_until > now()`).Scan(&live))
	require.Equal(t, 1, live)
	var named bool
	require.NoError(t, db.QueryRow(t.Context(), `SELECT bool_or(application_name LIKE 'morello/worker/%') FROM pg_stat_activity`).Scan(&named))
	require.True(t, named)
	require.NoError(t, db.Close(t.Context()))

	require.NoError(t, server.Kill())
	require.ErrorContains(t, health.Ask(t.Context(), addr), "503")
	require.NoError(t, server.Restart(t.Context()))
	require.Eventually(t, func() bool { return health.Ask(t.Context(), addr) == nil }, 30*time.Second, 50*time.Millisecond)

	require.NoError(t, stop())
	require.Error(t, health.Ask(t.Context(), addr))
	db, err = pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	require.NoError(t, db.QueryRow(t.Context(), `SELECT count(*) FROM morello.worker_lease`).Scan(&live))
	require.Zero(t, live) // given back
	require.NoError(t, db.Close(t.Context()))
}

// TestStopDuringTheStart: a worker that waits for what is not there stops as cleanly as any.
func TestStopDuringTheStart(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]config.Config{
		"no PostgreSQL": {DatabaseURL: "postgres://127.0.0.1:1/x", NATSURL: devtest.NATS(t).URL()},
		"no NATS":       {DatabaseURL: devtest.Database(t), NATSURL: "nats://127.0.0.1:1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			cfg.HealthAddr = config.HealthOff
			err := worker.Run(ctx, worker.Config{Config: cfg, Log: slog.New(slog.DiscardHandler), OnReady: func() { t.Error("ready without its servers") }})
			require.NoError(t, err)
		})
	}
}

func TestMalformedDatabaseURL(t *testing.T) {
	t.Parallel()
	err := worker.Run(t.Context(), worker.Config{Config: config.Config{DatabaseURL: "postgres://u:secret@h:port/", HealthAddr: config.HealthOff}})
	require.ErrorContains(t, err, "worker: database URL")
	require.NotContains(t, err.Error(), "secret")
	require.False(t, errors.Is(err, context.Canceled))
}
