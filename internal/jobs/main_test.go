package jobs

import (
	"context"
	"log/slog"
	"testing"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/postgres"
)

func TestMain(m *testing.M) {
	devtest.Main(m, func(ctx context.Context, databaseURL string) error {
		return postgres.MigrateUp(ctx, databaseURL, slog.New(slog.DiscardHandler))
	})
}
