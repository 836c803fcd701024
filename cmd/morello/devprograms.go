package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/devstack"
	"github.com/ai-cherry/morello/internal/gateway"
	"github.com/ai-cherry/morello/internal/scheduler"
	"github.com/ai-cherry/morello/internal/worker"
)

const (
	devFile          = "dev.json"
	postgresStopTime = 30 * time.Second
	defaultNATSURL   = "nats://127.0.0.1:4222"
)

// prepareDatabase makes the database of an empty cluster, and migrates it.
func prepareDatabase(ctx context.Context, db *devstack.Postgres, cfg config.Config, log *slog.Logger) error {
	exists, err := databaseExists(ctx, db.URL("postgres"))
	if err != nil {
		return err
	}
	if !exists {
		if err := db.CreateDatabase(ctx, devDatabase, ""); err != nil {
			return err
		}
	}
	return migrateUp(ctx, db.URL(devDatabase), cfg, log)
}

func databaseExists(ctx context.Context, url string) (exists bool, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, devDatabase).Scan(&exists)
	return exists, err
}

func stopPostgres(ctx context.Context, db *devstack.Postgres) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), postgresStopTime)
	defer cancel()
	return db.Stop(ctx)
}

// runPrograms runs the programs until the context ends or one of them fails, and calls ready when all of them work.
func runPrograms(ctx context.Context, cfg config.Config, workers int, log *slog.Logger, ready func(httpAddr string) error) error {
	programs, ctx := errgroup.WithContext(ctx)
	working := make(chan struct{}, workers+1)
	for range workers {
		programs.Go(func() error {
			return worker.Run(ctx, worker.Config{Config: cfg, Log: log, OnReady: func() { working <- struct{}{} }})
		})
	}
	programs.Go(func() error {
		return scheduler.Run(ctx, scheduler.Config{Config: cfg, Log: log, OnReady: func() { working <- struct{}{} }})
	})
	addr := make(chan string, 1)
	programs.Go(func() error {
		return gateway.Run(ctx, gateway.Config{Config: cfg, Log: log, OnReady: func(a string) { addr <- a }})
	})
	programs.Go(func() error {
		for range cap(working) {
			select {
			case <-working:
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case httpAddr := <-addr:
			return ready(httpAddr)
		case <-ctx.Done():
			return nil
		}
	})
	return programs.Wait()
}

// devStack is what dev.json holds.
type devStack struct {
	NATSURL     string `json:"nats_url"`
	HTTPURL     string `json:"http_url"`
	DatabaseURL string `json:"database_url"`
}

// write puts dev.json into place in one step, so that who waits for it never reads half of it.
func (s devStack) write(dir string) error {
	text, err := json.Marshal(s, jsontext.WithIndent("  "))
	if err != nil {
		return err
	}
	temporary := filepath.Join(dir, "."+devFile)
	if err := os.WriteFile(temporary, append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, filepath.Join(dir, devFile))
}

// greet prints three commands to try, with what they answer.
func (s devStack) greet(w io.Writer) {
	call := "go run ./cmd/morello call"
	if s.NATSURL != defaultNATSURL {
		call += " --nats-url " + s.NATSURL
	}
	lines := []string{
		"ready",
		"",
		"  NATS        " + s.NATSURL,
		"  HTTP        " + s.HTTPURL,
		"  PostgreSQL  " + s.DatabaseURL,
		"",
		"Try, in another terminal:",
		"",
		"  " + call + ` cache.set_many '{"entries":[{"key":"greeting","value":"hello"}]}'`,
		`  {"stored":1}`,
		"",
		"  curl -d '{\"keys\":[\"greeting\",\"nothing\"]}' " + s.HTTPURL + "/v1/demo/cache/get_many",
		`  {"entries":{"greeting":{"value":"hello","version":…,"expires_at":"…","expires_in_seconds":…},"nothing":null}}`,
		"",
		"  " + call + ` cache.delete '{"key":"greeting"}'`,
		`  {"deleted":true}`,
		"",
		"Another worker, as it would run elsewhere:",
		"",
		"  MORELLO_DATABASE_URL='" + s.DatabaseURL + "' MORELLO_NATS_URL=" + s.NATSURL + " MORELLO_HEALTH_ADDR=off go run ./cmd/worker",
		"",
		"Ctrl-C stops everything.",
	}
	_, _ = fmt.Fprintln(w, strings.Join(lines, "\n"))
}

// newEmbeddedPostgresCommand is how the download of PostgreSQL runs as an unprivileged user when we are root.
func newEmbeddedPostgresCommand() *cobra.Command {
	return &cobra.Command{
		Use: "embedded-postgres", Hidden: true, DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return devstack.RunEmbeddedPostgres(cmd.Context(), args...)
		},
	}
}
