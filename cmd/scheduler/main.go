// Command scheduler runs a scheduler of Morello.
package main

import (
	"context"
	"log/slog"

	"github.com/ai-cherry/morello/internal/cli"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/scheduler"
)

func main() {
	cli.Main(cli.Program{
		Name: "scheduler", Short: "Run clean-up and other jobs",
		Long: "The scheduler runs periodic and long jobs. Start two: one leads, the other takes over when it dies.",
		Run: func(ctx context.Context, cfg config.Config, log *slog.Logger) error {
			return scheduler.Run(ctx, scheduler.Config{Config: cfg, Log: log})
		},
	})
}
