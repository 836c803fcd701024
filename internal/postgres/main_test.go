package postgres_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

func TestMain(m *testing.M) { devtest.Main(m, migrate) }

func migrate(ctx context.Context, databaseURL string) error {
	return postgres.MigrateUp(ctx, databaseURL, slog.New(slog.DiscardHandler))
}

func openPool(t *testing.T, url string, ceiling int) *postgres.Pool {
	t.Helper()
	pool, err := postgres.Open(t.Context(), postgres.Config{
		URL: url, Program: "test", Instance: "one", Ceiling: ceiling, Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

func failure(t *testing.T, err error) *messages.Error {
	t.Helper()
	var known *messages.Error
	require.ErrorAs(t, err, &known)
	return known
}
