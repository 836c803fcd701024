package jobs

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/ai-cherry/morello/internal/postgres"
)

const (
	maxWorkers = 10
	// Connections to PostgreSQL that River has of its own: one for each job, and four for maintenance, completion,
	// election and listening. Jobs take theirs from the program's pool; starved of its own, River would lose its leadership.
	Connections        = maxWorkers + 4
	jobTimeout         = 2 * time.Minute
	rescueAfter        = 5 * time.Minute
	completedRetention = time.Hour
	reindexTimeout     = 10 * time.Minute
)

// Config says where River's tables are and as whom to connect.
type Config struct {
	DatabaseURL string
	Instance    string
	// Log defaults to slog.Default.
	Log *slog.Logger
}

// Client is a running River client, which may lead.
type Client struct {
	river *river.Client[pgx.Tx]
	pool  *pgxpool.Pool
}

// Start starts a client that runs the jobs of the set until Stop. It leads when no other does, or the other has died: a
// leader that is killed is followed within 15 seconds, one that stops at once.
func Start(ctx context.Context, cfg Config, set *Set) (*Client, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	pool, err := postgres.OpenForRiver(ctx, postgres.Config{
		URL: cfg.DatabaseURL, Program: "scheduler", Instance: cfg.Instance, Ceiling: Connections,
	})
	if err != nil {
		return nil, err
	}
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		ID: cfg.Instance, Schema: postgres.RiverSchema, Logger: cfg.Log,
		Queues:       map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: maxWorkers}},
		Workers:      set.workers,
		PeriodicJobs: set.periodic,
		JobTimeout:   jobTimeout, RescueStuckJobsAfter: rescueAfter,
		CompletedJobRetentionPeriod: completedRetention, ReindexerTimeout: reindexTimeout,
	})
	if err != nil {
		pool.Close()
		return nil, fmt.Errorf("configuring River: %w", err)
	}
	// River stops when the context that it was started with ends; Stop decides about that.
	if err := client.Start(context.WithoutCancel(ctx)); err != nil {
		pool.Close()
		return nil, fmt.Errorf("starting River: %w", err)
	}
	return &Client{river: client, pool: pool}, nil
}

// Stop lets running jobs end and gives up the lead. When the context ends first, the jobs' contexts are cancelled.
func (c *Client) Stop(ctx context.Context) error {
	defer c.pool.Close()
	if err := c.river.Stop(ctx); err == nil {
		return nil
	}
	if err := c.river.StopAndCancel(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("stopping River: %w", err)
	}
	return nil
}
