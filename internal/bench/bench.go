package bench

import (
	"context"
	"fmt"
	"io"
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
	// Duration of each measurement, after a warm-up of a quarter of it. Defaults to 5 s.
	Duration time.Duration
	// Only names the cases to run. Defaults to all.
	Only []string
	// Redis is the address of a Redis to compare with; empty leaves it out.
	Redis string
	// Profile is a folder for CPU profiles of the processes that run our code; empty for none.
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
		c.Duration = 5 * time.Second
	}
}

// Run measures every case with every number of callers, and writes the results.
func Run(ctx context.Context, cfg Config) error {
	cfg.setDefaults()
	progress := &progress{w: cfg.Progress}
	defer progress.clear()
	progress.show("starting PostgreSQL and NATS")
	stack, err := startStack(ctx, cfg.Profile)
	if err != nil {
		return err
	}
	defer stack.stop()
	var results []Result
	for _, benchCase := range selectCases(cfg) {
		measured, err := runCase(ctx, cfg, stack, benchCase, progress)
		if err != nil {
			return fmt.Errorf("%s: %w", benchCase.name, err)
		}
		results = append(results, measured...)
	}
	progress.clear()
	if cfg.JSON {
		return writeJSON(cfg.Out, results)
	}
	return writeTable(cfg.Out, results)
}

// runCase starts what the case needs, and measures it with each number of callers.
func runCase(ctx context.Context, cfg Config, stack *stack, c benchCase, progress *progress) ([]Result, error) {
	progress.show("%s: preparing", c.name)
	run, err := c.start(ctx, cfg, stack, progress)
	if err != nil {
		return nil, err
	}
	defer run.stop()
	var results []Result
	for _, callers := range cfg.Callers {
		progress.show("%s: %d callers", c.name, callers)
		if _, err := load(ctx, callers, cfg.Duration/4, run.operation); err != nil {
			return nil, err
		}
		before := stack.cpu()
		measured, err := load(ctx, callers, cfg.Duration, run.operation)
		if err != nil {
			return nil, err
		}
		result := measured.result(c.name, callers, run.itemsPerOperation)
		result.CPU = cpuPerOperation(before, stack.cpu(), measured.operations)
		results = append(results, result)
		progress.show("%s: %d callers: %.0f/s", c.name, callers, result.PerSecond)
	}
	return results, nil
}
