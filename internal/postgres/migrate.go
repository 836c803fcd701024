package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/ai-cherry/morello/migrations"
)

const (
	// RiverSchema is the schema of River's own tables.
	RiverSchema = "river"

	migrationTable   = "morello.schema_migration"
	migrationLock    = 0x6d6f72656c6c6f // "morello": the advisory lock that only one migrating process holds
	migrationWait    = 10 * time.Minute // how long to wait for another process that migrates
	schemaPollPeriod = 2 * time.Second
)

// Migration is one step of the schema and whether it was applied.
type Migration struct {
	Name      string
	Applied   bool
	AppliedAt time.Time
}

// MigrateUp brings the schema morello up to date, then River's in the schema river, and checks the latter. Any number of
// processes may call it at once: one works, the others wait and find nothing left to do. A step that fails is rolled
// back, and what came before it stays.
func MigrateUp(ctx context.Context, databaseURL string, log *slog.Logger) error {
	return withMigrator(ctx, databaseURL, func(pool *pgxpool.Pool, ours *goose.Provider) error {
		unlock, err := lockMigrations(ctx, pool)
		if err != nil {
			return err
		}
		defer unlock()
		if _, err := pool.Exec(ctx, `CREATE SCHEMA IF NOT EXISTS morello`); err != nil {
			return fmt.Errorf("creating the schema morello: %w", err)
		}
		results, err := ours.Up(ctx)
		if err != nil {
			return fmt.Errorf("migrating the schema morello: %w", err)
		}
		for _, result := range results {
			log.Info("migration applied", "file", result.Source.Path, "took", result.Duration)
		}
		return migrateRiver(ctx, pool, log)
	})
}

// MigrationStatus lists our migrations in order, whether applied or not. It changes nothing.
func MigrationStatus(ctx context.Context, databaseURL string) ([]Migration, error) {
	var list []Migration
	err := withMigrator(ctx, databaseURL, func(pool *pgxpool.Pool, ours *goose.Provider) error {
		var exists bool
		if err := pool.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, migrationTable).Scan(&exists); err != nil {
			return fmt.Errorf("reading the migration table: %w", err)
		}
		if !exists {
			for _, source := range ours.ListSources() {
				list = append(list, Migration{Name: source.Path})
			}
			return nil
		}
		statuses, err := ours.Status(ctx)
		for _, s := range statuses {
			list = append(list, Migration{Name: s.Source.Path, Applied: s.State == goose.StateApplied, AppliedAt: s.AppliedAt.UTC()})
		}
		return err
	})
	return list, err
}

// withMigrator opens a pool of three connections: one holds the advisory lock, the others work.
func withMigrator(ctx context.Context, databaseURL string, fn func(*pgxpool.Pool, *goose.Provider) error) error {
	pool, err := open(ctx, Config{URL: databaseURL, Program: "migrate", Instance: "cli"}, 3, map[string]string{
		"statement_timeout": "0", "idle_in_transaction_session_timeout": "0",
	})
	if err != nil {
		return err
	}
	defer pool.Close()
	db := stdlib.OpenDBFromPool(pool)
	defer func() { _ = db.Close() }()
	ours, err := newProvider(db)
	if err != nil {
		return err
	}
	return fn(pool, ours)
}

func newProvider(db *sql.DB) (*goose.Provider, error) {
	return goose.NewProvider(goose.DialectPostgres, db, migrations.Files,
		goose.WithTableName(migrationTable), goose.WithDisableGlobalRegistry(true))
}

// lockMigrations takes the advisory lock on a connection of its own; unlock gives it back. It asks again and again
// instead of waiting in PostgreSQL, where a waiting statement would block the CREATE INDEX CONCURRENTLY of the holder.
func lockMigrations(ctx context.Context, pool *pgxpool.Pool) (unlock func(), err error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	try := func() error {
		var locked bool
		if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, int64(migrationLock)).Scan(&locked); err != nil {
			return backoff.Permanent(err)
		}
		if !locked {
			return errors.New("another process is migrating")
		}
		return nil
	}
	wait := backoff.NewExponentialBackOff(backoff.WithInitialInterval(50*time.Millisecond),
		backoff.WithMaxInterval(time.Second), backoff.WithMaxElapsedTime(migrationWait))
	if err := backoff.Retry(try, backoff.WithContext(wait, ctx)); err != nil {
		conn.Release()
		return nil, fmt.Errorf("waiting for the migration lock: %w", err)
	}
	return func() {
		_, _ = conn.Exec(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock($1)`, int64(migrationLock))
		conn.Release()
	}, nil
}

func migrateRiver(ctx context.Context, pool *pgxpool.Pool, log *slog.Logger) error {
	if _, err := pool.Exec(ctx, `CREATE SCHEMA IF NOT EXISTS `+RiverSchema); err != nil {
		return fmt.Errorf("creating the schema %s: %w", RiverSchema, err)
	}
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Schema: RiverSchema, Logger: log})
	if err != nil {
		return fmt.Errorf("reading River's migrations: %w", err)
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return fmt.Errorf("migrating the schema %s: %w", RiverSchema, err)
	}
	return checkRiver(ctx, migrator)
}

// checkRiver reports what River's schema lacks. It changes nothing.
func checkRiver(ctx context.Context, migrator *rivermigrate.Migrator[pgx.Tx]) error {
	checked, err := migrator.Validate(ctx, nil)
	if err != nil {
		return fmt.Errorf("checking the schema %s: %w", RiverSchema, err)
	}
	if !checked.OK {
		return fmt.Errorf("the schema %s is not as it should be: %v", RiverSchema, checked.Messages)
	}
	return nil
}

// SchemaState is where the schemas are.
type SchemaState struct {
	// Have is the newest migration of ours that was applied, 0 for none; Want is the newest that this program brings.
	Have, Want int64
	// River is what River's schema lacks, nil for nothing.
	River error
}

// ReadSchemaState looks at both schemas. It changes nothing.
func ReadSchemaState(ctx context.Context, pool *Pool) (SchemaState, error) {
	var state SchemaState
	var err error
	if state.Want, err = newestMigration(); err != nil {
		return state, err
	}
	if state.Have, err = appliedMigration(ctx, pool); err != nil {
		return state, err
	}
	migrator, err := rivermigrate.New(riverpgxv5.New(pool.requests), &rivermigrate.Config{
		Schema: RiverSchema, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return state, fmt.Errorf("reading River's migrations: %w", err)
	}
	state.River = checkRiver(ctx, migrator)
	return state, nil
}

// WaitForSchema returns when the schema is at least as new as this program, asking again until the context ends.
func WaitForSchema(ctx context.Context, pool *Pool) error {
	want, err := newestMigration()
	if err != nil {
		return err
	}
	check := func() error {
		have, err := appliedMigration(ctx, pool)
		if err != nil {
			return err
		}
		if have < want {
			return fmt.Errorf("the schema is at version %d and must be at %d: run \"morello migrate up\"", have, want)
		}
		return nil
	}
	notify := func(err error, _ time.Duration) {
		pool.log.Warn("waiting for the database schema", "error", err, "cause", errors.Unwrap(err), "setting", "MORELLO_DATABASE_URL")
	}
	return backoff.RetryNotify(check, backoff.WithContext(backoff.NewConstantBackOff(schemaPollPeriod), ctx), notify)
}

func newestMigration() (int64, error) {
	names, err := migrations.Files.ReadDir(".")
	if err != nil || len(names) == 0 {
		return 0, errors.Join(errors.New("no migrations"), err)
	}
	return goose.NumericComponent(names[len(names)-1].Name())
}

func appliedMigration(ctx context.Context, pool *Pool) (int64, error) {
	return Read(ctx, pool, func(ctx context.Context, db Querier) (int64, error) {
		var exists bool
		if err := db.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, migrationTable).Scan(&exists); err != nil || !exists {
			return 0, err
		}
		var version int64
		err := db.QueryRow(ctx, `SELECT coalesce(max(version_id), 0) FROM morello.schema_migration WHERE is_applied`).Scan(&version)
		return version, err
	})
}
