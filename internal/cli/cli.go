// Package cli is what the commands of the programs have in common: settings from the environment, signals, a health
// subcommand, exit codes.
package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/spf13/cobra"

	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/health"
)

// Program describes a program that runs until it is told to stop.
type Program struct {
	Name  string
	Short string
	Long  string
	Run   func(ctx context.Context, cfg config.Config, log *slog.Logger) error
}

// Main runs a program and ends the process: with 0 after a clean stop, 1 after a failure, 2 when the command line or a
// setting is wrong. SIGINT and SIGTERM stop it cleanly, a second one at once.
func Main(program Program) { Execute(program.command()) }

// gcPercent suits a program of a few megabytes that makes garbage with each request: at Go's default of 100 an eighth of a
// worker's CPU went into collecting it. GOMEMLIMIT still bounds the memory.
const gcPercent = 400

// collectLessOften raises GOGC unless somebody has set it.
func collectLessOften() {
	if previous := debug.SetGCPercent(gcPercent); previous != 100 {
		debug.SetGCPercent(previous)
	}
}

// limitMemory sets GOMEMLIMIT to 90 % of the cgroup's limit, if there is one and nobody has set it: the collector then works
// harder before the kernel kills the process.
func limitMemory() { _, _ = memlimit.Set() }

// Execute runs a command as Main does. What fails before a command begins is a mistake in the command line.
func Execute(root *cobra.Command) {
	collectLessOften()
	limitMemory()
	begun := false
	root.PersistentPreRun = func(*cobra.Command, []string) { begun = true }
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal meets the default: the process ends
	err := root.ExecuteContext(ctx)
	if err == nil {
		os.Exit(0)
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", root.Name(), err)
	var usage UsageError
	if !begun || errors.As(err, &usage) {
		os.Exit(2)
	}
	os.Exit(1)
}

// UsageError is a mistake in the command line or in a setting.
type UsageError struct{ Err error }

// Error returns the text of the mistake.
func (e UsageError) Error() string { return e.Err.Error() }

// Unwrap returns the mistake.
func (e UsageError) Unwrap() error { return e.Err }

func (p Program) command() *cobra.Command {
	root := &cobra.Command{
		Use: p.Name, Short: p.Short, Long: p.Long + "\n\nSettings come from the environment: \"morello config\" lists them.",
		Version: config.Version, Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load()
			if err != nil {
				return UsageError{err}
			}
			log := cfg.Logger(os.Stderr)
			for _, name := range cfg.Unknown() {
				log.Warn("a variable is set that means nothing to this version", "name", name)
			}
			return p.Run(cmd.Context(), cfg, log)
		},
	}
	root.AddCommand(&cobra.Command{
		Use: "health", Short: "Ask the running " + p.Name + " whether it is ready; exits with 1 when it is not", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load()
			if err != nil {
				return UsageError{err}
			}
			if cfg.HealthAddr == config.HealthOff {
				return UsageError{errors.New("MORELLO_HEALTH_ADDR is off: nobody could be asked")}
			}
			return health.Ask(cmd.Context(), cfg.HealthAddr)
		},
	})
	return root
}
