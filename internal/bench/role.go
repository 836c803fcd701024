package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/pprof"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/devstack"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/internal/scheduler"
	"github.com/ai-cherry/morello/internal/worker"
	"github.com/ai-cherry/morello/messages"
)

// RoleCommand is the hidden subcommand of morello that runs a role.
const RoleCommand = "bench-role"

// The roles that a process of a run can have.
const (
	RoleNATS      = "nats"      // nats-server
	RoleWorker    = "worker"    // the real worker
	RoleScheduler = "scheduler" // the real scheduler
	RoleNaive     = "naive"     // answers get and set with one statement for each request
	RoleEcho      = "echo"      // answers at once, with the size of a get's reply
)

// RunRole does the job of a role until the context ends, and prints a line when it is ready. dir is where files may be put.
// profile is a folder for its CPU profile, or empty.
func RunRole(ctx context.Context, name string, cfg config.Config, dir, profile string) error {
	if profile != "" {
		stop, err := startProfile(filepath.Join(profile, name+".pprof"))
		if err != nil {
			return err
		}
		defer stop()
	}
	ready := func() { fmt.Println("ready") }
	switch name {
	case RoleNATS:
		return runNATS(ctx, dir)
	case RoleWorker:
		return worker.Run(ctx, worker.Config{Config: cfg, OnReady: ready, Log: cfg.Logger(os.Stderr)})
	case RoleScheduler:
		return scheduler.Run(ctx, scheduler.Config{Config: cfg, OnReady: ready, Log: cfg.Logger(os.Stderr)})
	case RoleNaive:
		return runNaive(ctx, cfg, ready)
	case RoleEcho:
		return runEcho(ctx, cfg, ready)
	default:
		return fmt.Errorf("there is no role %q", name)
	}
}

func startProfile(file string) (stop func(), err error) {
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close()
	}, nil
}

func runNATS(ctx context.Context, dir string) error {
	server, err := devstack.StartNATS(devstack.NATSConfig{StoreDir: filepath.Join(dir, "nats")})
	if err != nil {
		return err
	}
	fmt.Println(server.URL())
	<-ctx.Done()
	server.Shutdown()
	return nil
}

// runNaive serves over the same bus as the worker, with the same pool, and without batches: what is left is the
// difference that batching makes.
func runNaive(ctx context.Context, cfg config.Config, ready func()) error {
	pool, err := postgres.Open(ctx, postgres.Config{URL: cfg.DatabaseURL, Program: RoleNaive, Instance: "one", Ceiling: cfg.PoolCeiling})
	if err != nil {
		return err
	}
	defer pool.Close()
	conn, err := bus.Connect(ctx, bus.ConnConfig{URL: cfg.NATSURL, Program: RoleNaive, Instance: uuid.NewString()})
	if err != nil {
		return err
	}
	naive := naive{pool}
	server := bus.NewServer(conn, bus.ServerConfig{Program: RoleNaive, Instance: "naive", Version: config.Version, Log: slog.Default()},
		[]bus.Binding{bus.Bind(messages.CacheGetEndpoint, naive.get), bus.Bind(messages.CacheSetEndpoint, naive.set)})
	if err := server.Start(); err != nil {
		return err
	}
	ready()
	<-ctx.Done()
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	if err := server.Drain(stopCtx); err != nil {
		return err
	}
	return conn.Close(stopCtx)
}

type naive struct{ pool *postgres.Pool }

func (n naive) get(ctx context.Context, tenant string, m messages.CacheGet) (messages.CacheGetReply, error) {
	const sql = `SELECT value, version FROM morello.cache_entry WHERE tenant = $1 AND key = $2 AND expires_at > now()`
	return postgres.Read(ctx, n.pool, func(ctx context.Context, db postgres.Querier) (messages.CacheGetReply, error) {
		reply := messages.CacheGetReply{Found: true}
		return reply, db.QueryRow(ctx, sql, tenant, m.Key).Scan((*[]byte)(&reply.Value), &reply.Version)
	})
}

func (n naive) set(ctx context.Context, tenant string, m messages.CacheSet) (messages.CacheSetReply, error) {
	const sql = `
		INSERT INTO morello.cache_entry AS e (tenant, key, value, version, ttl, expires_at, sweep_after, created_at)
		VALUES ($1, $2, $3, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, interval '1 hour',
			now() + interval '1 hour', now() + interval '1 hour 300 seconds', now())
		ON CONFLICT (tenant, key) DO UPDATE SET value = excluded.value, version = greatest(e.version + 1, excluded.version),
			ttl = excluded.ttl, expires_at = excluded.expires_at, sweep_after = least(e.sweep_after, excluded.sweep_after)
		RETURNING version`
	return postgres.InStatement(ctx, n.pool, tenant, func(ctx context.Context, db postgres.Querier) (messages.CacheSetReply, error) {
		reply := messages.CacheSetReply{Stored: true}
		return reply, db.QueryRow(ctx, sql, tenant, m.Key, []byte(m.Value)).Scan(&reply.Version)
	})
}

// runEcho answers on the subject of a get, on the subscription's own goroutine: nothing that carries requests over NATS
// can be faster than this.
func runEcho(ctx context.Context, cfg config.Config, ready func()) error {
	nc, err := nats.Connect(cfg.NATSURL)
	if err != nil {
		return err
	}
	defer nc.Close()
	expires, left := "2026-01-01T00:00:00.000000Z", 3599.123456
	reply := fmt.Appendf(nil, `{"found":true,"value":%s,"version":1795471598808518,"expires_at":%q,"expires_in_seconds":%f}`,
		benchValue(100), expires, left)
	_, err = nc.QueueSubscribe(messages.CacheGetEndpoint.Info().WorkerSubject(), messages.QueueGroup, func(msg *nats.Msg) {
		_ = msg.Respond(reply)
	})
	if err != nil {
		return err
	}
	if err := nc.Flush(); err != nil {
		return err
	}
	ready()
	<-ctx.Done()
	return nil
}

// benchValue returns a JSON string of so many bytes.
func benchValue(size int) jsontext.Value {
	value := make([]byte, max(2, size))
	for i := range value {
		value[i] = 'v'
	}
	value[0], value[len(value)-1] = '"', '"'
	return value
}
