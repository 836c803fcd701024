package main

import (
	"errors"
	"os"
	"slices"
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
			return bench.Run(cmd.Context(), withOutput(cmd, cfg))
		},
	}
	command.Flags().IntVar(&cfg.Keys, "keys", 1_000_000, "number of keys")
	addCommonFlags(command, &cfg, 100)
	addComparisonFlags(command, &cfg)
	command.AddCommand(newBenchGrowthCommand(), newBenchCleanupCommand(), newBenchSessionsCommand(), newBenchSnapshotsCommand())
	return command
}

// addComparisonFlags adds those of the commands that measure several ways to do the same.
func addComparisonFlags(command *cobra.Command, cfg *bench.Config) {
	command.Flags().IntSliceVar(&cfg.Callers, "callers", []int{1, 16, 64, 256}, "numbers of concurrent callers")
	command.Flags().IntVar(&cfg.Rounds, "rounds", 3, "turns of each case; the median counts")
	command.Flags().StringArrayVar(&cfg.Only, "only", nil, "case to run (may be repeated; default all)")
	command.Flags().StringVar(&cfg.Redis, "redis", "", "address of a Redis to compare with")
}

func addCommonFlags(command *cobra.Command, cfg *bench.Config, valueBytes int) {
	command.Flags().IntVar(&cfg.ValueBytes, "value-bytes", valueBytes, "size of each value")
	command.Flags().DurationVar(&cfg.Duration, "duration", 6*time.Second, "time for each measurement, all rounds together")
	command.Flags().StringVar(&cfg.Profile, "profile", "", "folder for CPU profiles of the callers, worker, naive and echo")
	command.Flags().BoolVar(&cfg.JSON, "json", false, "print JSON in place of the table")
}

func withOutput(cmd *cobra.Command, cfg bench.Config) bench.Config {
	cfg.Out, cfg.Progress = cmd.OutOrStdout(), cmd.ErrOrStderr()
	return cfg
}

func newBenchGrowthCommand() *cobra.Command {
	var cfg bench.Config
	var rows []int
	command := &cobra.Command{
		Use: "growth", Short: "Measure gets on caches of different sizes, in turns", Args: cobra.NoArgs,
		Example: "  morello bench growth --rows 10000,10000000",
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, n := range rows {
				if n < 1 {
					return cli.UsageError{Err: errors.New("--rows must be 1 or more")}
				}
			}
			return bench.RunGrowth(cmd.Context(), withOutput(cmd, cfg), rows)
		},
	}
	command.Flags().IntSliceVar(&rows, "rows", []int{10_000, 10_000_000}, "numbers of rows")
	command.Flags().IntSliceVar(&cfg.Callers, "callers", []int{1, 64, 256}, "numbers of concurrent callers")
	command.Flags().IntVar(&cfg.Rounds, "rounds", 3, "turns of each size; the median counts")
	addCommonFlags(command, &cfg, 100)
	return command
}

func newBenchCleanupCommand() *cobra.Command {
	var cfg bench.Config
	var expired int
	var share float64
	command := &cobra.Command{
		Use: "cleanup", Short: "Measure gets, in an open loop, while expired rows are removed", Args: cobra.NoArgs,
		Example: "  morello bench cleanup --expired 1000000 --share 0.3 --duration 20s",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if expired < 1 || share <= 0 || share >= 1 {
				return cli.UsageError{Err: errors.New("--expired must be 1 or more, --share between 0 and 1")}
			}
			return bench.RunCleanup(cmd.Context(), withOutput(cmd, cfg), expired, share)
		},
	}
	command.Flags().IntVar(&cfg.Keys, "keys", 1_000_000, "number of live keys")
	command.Flags().IntVar(&expired, "expired", 1_000_000, "number of expired rows")
	command.Flags().Float64Var(&share, "share", 0.3, "part of the closed loop's rate")
	addCommonFlags(command, &cfg, 100)
	return command
}

func newBenchSessionsCommand() *cobra.Command {
	var cfg bench.SessionsConfig
	command := &cobra.Command{
		Use: "sessions", Short: "Measure sessions beside the session store of SCS and Redis, and the writes of touches", Args: cobra.NoArgs,
		Long: "Measure sessions beside cache.get, the session store of SCS on the same PostgreSQL (pgxstore) and Redis, all with data\n" +
			"of the same size; then, in an open loop on a few sessions, how many rows are written for their touches.\n\nCases:\n  " +
			strings.Join(bench.SessionCaseNames(), "\n  "),
		Example: "  morello bench sessions --callers 64,256 --redis 127.0.0.1:6379\n  morello bench sessions --only \"hot touches\" --hot-duration 3m",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cfg.Keys < 1 || slices.Min(append(cfg.StoreConns, 1)) < 1 || cfg.HotSessions < 1 || cfg.HotRate <= 0 || cfg.HotDuration <= 0 {
				return cli.UsageError{Err: errors.New("--sessions, --store-connections, --hot-sessions, --hot-rate and --hot-duration must be more than 0")}
			}
			cfg.Config = withOutput(cmd, cfg.Config)
			return bench.RunSessions(cmd.Context(), cfg)
		},
	}
	command.Flags().IntVar(&cfg.Keys, "sessions", 100_000, "number of sessions")
	command.Flags().IntSliceVar(&cfg.StoreConns, "store-connections", bench.DefaultStoreConns, "numbers of connections of pgxstore")
	command.Flags().IntVar(&cfg.HotSessions, "hot-sessions", 1000, "sessions of the case hot touches")
	command.Flags().Float64Var(&cfg.HotRate, "hot-rate", 10_000, "look-ups a second of the case hot touches")
	command.Flags().DurationVar(&cfg.HotDuration, "hot-duration", 2*time.Minute, "time for the case hot touches")
	addCommonFlags(command, &cfg.Config, 300)
	addComparisonFlags(command, &cfg.Config)
	return command
}

func newBenchSnapshotsCommand() *cobra.Command {
	var cfg bench.SnapshotsConfig
	command := &cobra.Command{
		Use: "snapshots", Short: "Measure snapshots beside a jsonb table and the checkpointer of LangGraph", Args: cobra.NoArgs,
		Long: "Measure snapshots of a conversation that grows beside a table with a jsonb column and beside the checkpointer of\n" +
			"LangGraph on the same PostgreSQL: the bytes on disk, and the times of creating, reading and comparing. LangGraph is\n" +
			"installed by npm into the user's cache folder.",
		Example: "  morello bench snapshots\n  morello bench snapshots --no-langgraph --repeats 1",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cfg.Turns < 20 || cfg.Turns > 200 || cfg.Repeats < 1 || cfg.Reads < 1 || cfg.SmallCallers < 1 || cfg.Searched < 0 {
				return cli.UsageError{Err: errors.New("--turns must be 20 to 200; --repeats, --reads and --small-callers must be more than 0; --search-snapshots not less")}
			}
			cfg.Config = withOutput(cmd, cfg.Config)
			return bench.RunSnapshots(cmd.Context(), cfg)
		},
	}
	command.Flags().IntVar(&cfg.Turns, "turns", 200, "turns of the conversation")
	command.Flags().IntVar(&cfg.Repeats, "repeats", 5, "how often the conversation is stored for the times of creations")
	command.Flags().IntVar(&cfg.Reads, "reads", 50, "reads of the latest state, in each round")
	command.Flags().IntVar(&cfg.SmallCallers, "small-callers", 8, "concurrent callers that store small states")
	command.Flags().IntVar(&cfg.Searched, "search-snapshots", 100_000, "snapshots to search in, with ten messages each (0: none)")
	command.Flags().StringArrayVar(&cfg.Only, "only", nil, "part to measure besides the sizes: "+strings.Join(bench.SnapshotPartNames(), ", ")+" (may be repeated; default all)")
	command.Flags().BoolVar(&cfg.NoLangGraph, "no-langgraph", false, "leave LangGraph out")
	command.Flags().IntVar(&cfg.Rounds, "rounds", 3, "turns of each case; the median counts")
	command.Flags().DurationVar(&cfg.Duration, "duration", 6*time.Second, "time for small states, all rounds together")
	command.Flags().StringVar(&cfg.Profile, "profile", "", "folder for CPU profiles of the callers and the worker")
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
