package bench

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"
)

// Config of a run. The zero value of a field means the default.
type Config struct {
	// Keys is how many keys there are. Defaults to 1 000 000.
	Keys int
	// ValueBytes is the size of each value. Defaults to 100.
	ValueBytes int
	// Callers are the numbers of concurrent callers to measure. Defaults to 1, 16, 64 and 256.
	Callers []int
	// Duration of each measurement, all rounds together, after warm-ups of a quarter of it. Defaults to 6 s.
	Duration time.Duration
	// Rounds in which each case gets its turn, so that a machine that is slow for a while is slow for all of them.
	// Defaults to 3.
	Rounds int
	// Only names the cases to run. Defaults to all.
	Only []string
	// Redis is the address of a Redis to compare with; empty leaves it out.
	Redis string
	// Profile is a folder for CPU profiles of this process and of those that run our code; empty for none.
	Profile string
	// JSON writes the results as JSON in place of the table.
	JSON bool
	// Out gets the results, Progress a line that is written over again and again.
	Out      io.Writer
	Progress io.Writer
}

func (c *Config) setDefaults() {
	if c.Keys <= 0 {
		c.Keys = 1_000_000
	}
	if c.ValueBytes <= 0 {
		c.ValueBytes = 100
	}
	if len(c.Callers) == 0 {
		c.Callers = []int{1, 16, 64, 256}
	}
	if c.Duration <= 0 {
		c.Duration = 6 * time.Second
	}
	if c.Rounds <= 0 {
		c.Rounds = 3
	}
}

// Run measures every case with every number of callers, and writes the results.
func Run(ctx context.Context, cfg Config) error {
	cfg.setDefaults()
	cases, err := selectCases(cfg, cases)
	if err != nil {
		return err
	}
	return runCases(ctx, cfg, cases)
}

// runCases starts a stack and measures the cases on it, in turns.
func runCases(ctx context.Context, cfg Config, cases []benchCase) error {
	return withStack(ctx, cfg, func(stack *stack, progress *progress) error {
		results, err := measureCases(ctx, cfg, stack, progress, cases)
		if err != nil {
			return err
		}
		return write(cfg, progress, results, echoCase)
	})
}

// measureCases measures the cases in turns, with each number of callers.
func measureCases(ctx context.Context, cfg Config, stack *stack, progress *progress, cases []benchCase) ([]Result, error) {
	results := make([]Result, 0, len(cases)*len(cfg.Callers))
	for _, callers := range cfg.Callers {
		measured := make([]measurement, len(cases))
		for round := range cfg.Rounds {
			for i, c := range cases {
				progress.show("%d callers, round %d of %d: %s", callers, round+1, cfg.Rounds, c.name)
				if err := measure(ctx, cfg, stack, c, callers, progress, &measured[i]); err != nil {
					return nil, fmt.Errorf("%s: %w", c.name, err)
				}
			}
		}
		for i, c := range cases {
			results = append(results, measured[i].result(c.name, callers))
		}
	}
	return results, nil
}

// write ends the progress and writes the results, in the table beside those of the case that is the base.
func write(cfg Config, progress *progress, results []Result, base string) error {
	progress.clear()
	if cfg.JSON {
		return writeJSON(cfg.Out, results)
	}
	return writeTable(cfg.Out, results, base)
}

// withStack runs what measures between the start and the end of all servers.
func withStack(ctx context.Context, cfg Config, run func(*stack, *progress) error) error {
	progress := &progress{w: cfg.Progress}
	defer progress.clear()
	if cfg.Profile != "" {
		stop, err := startProfile(filepath.Join(cfg.Profile, "client.pprof"))
		if err != nil {
			return err
		}
		defer stop()
	}
	progress.show("starting PostgreSQL and NATS")
	stack, err := startStack(ctx, cfg.Profile)
	if err != nil {
		return err
	}
	defer stack.stop()
	return run(stack, progress)
}

// measure starts what the case needs, warms it up, and adds one round to the measurement.
func measure(ctx context.Context, cfg Config, stack *stack, c benchCase, callers int, progress *progress, m *measurement) error {
	run, err := c.start(ctx, cfg, stack, progress)
	if err != nil {
		return err
	}
	defer run.stop()
	slice := cfg.Duration / time.Duration(cfg.Rounds)
	if _, err := load(ctx, callers, slice/4, run.operation); err != nil {
		return err
	}
	before := stack.cpu()
	round, err := load(ctx, callers, slice, run.operation)
	if err != nil {
		return err
	}
	round.cpu = stack.cpu().since(before)
	round.itemsPerOperation = run.itemsPerOperation
	m.add(round)
	return ctx.Err()
}
