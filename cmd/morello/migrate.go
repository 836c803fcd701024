package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/ai-cherry/morello/internal/cache"
	"github.com/ai-cherry/morello/internal/cli"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/internal/snapshot"
)

func newMigrateCommand() *cobra.Command {
	migrate := &cobra.Command{
		Use: "migrate", Short: "Bring the database schema up to date, or show where it is",
		Long: "Migrations are part of this program. They run in order under a lock: any number of processes may run them at\n" +
			"once. The database is MORELLO_MIGRATE_DATABASE_URL, or else MORELLO_DATABASE_URL.",
		Args: cobra.NoArgs, // without these two lines an unknown subcommand would show the help, and succeed
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	migrate.AddCommand(&cobra.Command{
		Use: "up", Short: "Apply what is missing", Args: cobra.NoArgs,
		Long: "Apply what is missing, and make the cache durable or not, as MORELLO_CACHE_DURABLE says. Changing that rewrites\n" +
			"the tables of the cache, and blocks it meanwhile. Search in snapshots goes by MORELLO_TEXT_CONFIG; changing that\n" +
			"makes its index anew, and blocks new snapshots meanwhile.",
		Example: "  MORELLO_DATABASE_URL=postgres://morello:secret@db:5432/morello morello migrate up",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load()
			if err != nil {
				return cli.UsageError{Err: err}
			}
			if err := migrateUp(cmd.Context(), cfg.MigrateDatabaseURL, cfg, cfg.Logger(os.Stderr)); err != nil {
				return err
			}
			_, _ = fmt.Fprintln(cmd.OutOrStdout(), "the schema is up to date")
			return nil
		},
	}, &cobra.Command{
		Use: "status", Short: "List all migrations and when they were applied", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return printMigrations(cmd) },
	})
	return migrate
}

// migrateUp applies what is missing, and puts the settings into force that the schema holds.
func migrateUp(ctx context.Context, databaseURL string, cfg config.Config, log *slog.Logger) (err error) {
	if err := postgres.MigrateUp(ctx, databaseURL, log); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	changed, err := cache.SetDurable(ctx, conn, cfg.CacheDurable)
	if err != nil {
		return err
	}
	if changed {
		log.Info("the cache was rewritten", "durable", cfg.CacheDurable)
	}
	if changed, err = snapshot.SetTextConfig(ctx, conn, cfg.TextConfig); changed {
		log.Info("the index of words was made anew", "text_config", cfg.TextConfig)
	}
	return err
}

func printMigrations(cmd *cobra.Command) error {
	cfg, err := config.Load()
	if err != nil {
		return cli.UsageError{Err: err}
	}
	list, err := postgres.MigrationStatus(cmd.Context(), cfg.MigrateDatabaseURL)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "MIGRATION\tAPPLIED")
	for _, m := range list {
		applied := "pending"
		if m.Applied {
			applied = m.AppliedAt.Format(time.RFC3339)
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\n", m.Name, applied)
	}
	return table.Flush()
}
