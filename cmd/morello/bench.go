package main

import (
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ai-cherry/morello/internal/bench"
	"github.com/ai-cherry/morello/internal/cli"
	"github.com/ai-cherry/morello/internal/config"
)

func newBenchCommand() *cobra.Command {
	var cfg bench.Config
	command := &cobra.Command{
		Use: "bench", Short: "Measure the cache beside what one would pick instead, on this machine", Args: cobra.NoArgs,
		Long: "Measure the cache beside what one would pick instead, in one run on this machine, each server in a process of\n" +
			"its own, on a PostgreSQL that is made for it and removed afterwards. Compare the rows of one run, not of two.\n\nCases:\n  " +
			strings.Join(bench.CaseNames(), "\n  "),
		Example: "  morello bench\n  morello bench --callers 256 --only get --only echo --duration 10s\n  morello bench --redis 127.0.0.1:6379 --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Out = cmd.OutOrStdout()
			cfg.Progress = cmd.ErrOrStderr()
			return bench.Run(cmd.Context(), cfg)
		},
	}
	command.Flags().IntVar(&cfg.Keys, "keys", 1_000_000, "number of keys")
	command.Flags().IntVar(&cfg.ValueBytes, "value-bytes", 100, "size of each value")
	command.Flags().IntSliceVar(&cfg.Callers, "callers", []int{1, 16, 64, 256}, "numbers of concurrent callers")
	command.Flags().DurationVar(&cfg.Duration, "duration", 6*time.Second, "time for each measurement, all rounds together")
	command.Flags().IntVar(&cfg.Rounds, "rounds", 3, "turns of each case; the median counts")
	command.Flags().StringArrayVar(&cfg.Only, "only", nil, "case to run (may be repeated; default all)")
	command.Flags().StringVar(&cfg.Redis, "redis", "", "address of a Redis to compare with")
	command.Flags().StringVar(&cfg.Profile, "profile", "", "folder for CPU profiles of the callers, worker, naive and echo")
	command.Flags().BoolVar(&cfg.JSON, "json", false, "print JSON in place of the table")
	return command
}

// newBenchRoleCommand is how a run of bench starts the processes that it measures.
func newBenchRoleCommand() *cobra.Command {
	return &cobra.Command{
		Use: bench.RoleCommand, Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := config.Load()
			if err != nil {
				return cli.UsageError{Err: err}
			}
			return bench.RunRole(cmd.Context(), args[0], cfg, os.Getenv("MORELLO_BENCH_DIR"), os.Getenv("MORELLO_BENCH_PROFILE"))
		},
	}
}
