package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
)

// Result is one row: a case with a number of callers.
type Result struct {
	Case           string             `json:"case"`
	Callers        int                `json:"callers"`
	PerSecond      float64            `json:"operations_per_second"`
	ItemsPerSecond float64            `json:"items_per_second"`
	P50MS          float64            `json:"p50_ms"`
	P99MS          float64            `json:"p99_ms"`
	CPU            map[string]float64 `json:"cpu_us_per_operation"`
	// RowWrites is how many updates of rows PostgreSQL counted in a minute, where that is the question.
	RowWrites *float64 `json:"row_writes_per_minute,omitempty"`
}

func writeJSON(w io.Writer, results []Result) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(results)
}

// writeTable writes Markdown that also reads well in a terminal. Operations are held against those of the base.
func writeTable(w io.Writer, results []Result, base string) error {
	table := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	_, _ = fmt.Fprintf(table, "| case\t| callers\t| operations/s\t| × %s\t| items/s\t| p50 ms\t| p99 ms\t| CPU µs per operation\t|\n", base)
	_, _ = fmt.Fprintln(table, "| ---\t| ---:\t| ---:\t| ---:\t| ---:\t| ---:\t| ---:\t| ---\t|")
	held := map[int]float64{}
	for _, r := range results {
		if r.Case == base {
			held[r.Callers] = r.PerSecond
		}
	}
	for _, r := range results {
		ratio := "-"
		if held[r.Callers] > 0 && r.RowWrites == nil { // an open loop has no rate of its own
			ratio = fmt.Sprintf("%.2f", r.PerSecond/held[r.Callers])
		}
		_, _ = fmt.Fprintf(table, "| %s\t| %d\t| %.0f\t| %s\t| %.0f\t| %.2f\t| %.2f\t| %s\t|\n",
			r.Case, r.Callers, r.PerSecond, ratio, r.ItemsPerSecond, r.P50MS, r.P99MS, cpuText(r.CPU))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, r := range results {
		if r.RowWrites != nil {
			_, _ = fmt.Fprintf(w, "\n%s: %.0f row writes a minute\n", r.Case, *r.RowWrites)
		}
	}
	return nil
}

func cpuText(cpu map[string]float64) string {
	var parts []string
	for _, program := range slices.Sorted(maps.Keys(cpu)) {
		parts = append(parts, fmt.Sprintf("%s %.1f", program, cpu[program]))
	}
	return strings.Join(parts, ", ")
}

// progress is a line that is written over again and again.
type progress struct {
	mu    sync.Mutex
	w     io.Writer
	width int
}

func (p *progress) show(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.w == nil {
		return
	}
	text := fmt.Sprintf(format, args...)
	_, _ = fmt.Fprintf(p.w, "\r%-*s", p.width, text)
	p.width = max(p.width, len(text))
}

func (p *progress) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.w != nil && p.width > 0 {
		_, _ = fmt.Fprintf(p.w, "\r%*s\r", p.width, "")
		p.width = 0
	}
}
