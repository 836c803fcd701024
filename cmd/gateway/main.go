// Command gateway runs a gateway of Morello.
package main

import (
	"context"
	"log/slog"

	"github.com/ai-cherry/morello/internal/cli"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/gateway"
)

func main() {
	cli.Main(cli.Program{
		Name: "gateway", Short: "Serve every operation over HTTP",
		Long: "The gateway turns POST /v1/<tenant>/<capability>/<operation> into a NATS request.",
		Run: func(ctx context.Context, cfg config.Config, log *slog.Logger) error {
			return gateway.Run(ctx, gateway.Config{Config: cfg, Log: log})
		},
	})
}
