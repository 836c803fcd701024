// Command worker runs a worker of Morello.
package main

import (
	"context"
	"log/slog"

	"github.com/ai-cherry/morello/internal/cli"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/worker"
)

func main() {
	cli.Main(cli.Program{
		Name: "worker", Short: "Answer the requests of all tenants",
		Long: "The worker answers requests from NATS out of PostgreSQL. Start as many as you like.",
		Run: func(ctx context.Context, cfg config.Config, log *slog.Logger) error {
			return worker.Run(ctx, worker.Config{Config: cfg, Log: log})
		},
	})
}
