package bench

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// snapshotsReport is what RunSnapshots measured.
type snapshotsReport struct {
	Comparisons []comparison   `json:"comparisons"`
	Relations   []relationSize `json:"relations"`
}

func (r *snapshotsReport) add(c comparison) {
	if c.Other > 0 {
		c.Ratio = c.Ours / c.Other
	}
	r.Comparisons = append(r.Comparisons, c)
}

// comparison holds one of our numbers against an aim, or against another's.
type comparison struct {
	Measure string  `json:"measure"`
	Ours    float64 `json:"ours"`
	Beside  string  `json:"beside,omitempty"`
	Other   float64 `json:"other,omitempty"`
	Ratio   float64 `json:"ratio,omitempty"`
	// At most one of the aims is set.
	AtMost       float64 `json:"aim_at_most,omitempty"`
	RatioAtMost  float64 `json:"aim_ratio_at_most,omitempty"`
	RatioAtLeast float64 `json:"aim_ratio_at_least,omitempty"`
	// CPU is microseconds of each program for one of ours, where that was measured, and for one of the other's.
	CPU      map[string]float64 `json:"cpu_us_per_operation,omitempty"`
	OtherCPU map[string]float64 `json:"other_cpu_us_per_operation,omitempty"`
}

// aim says what is aimed at, and whether it is reached.
func (c comparison) aim() (aim, reached string) {
	verdict := func(ok bool) string {
		if ok {
			return "reached"
		}
		return "not reached"
	}
	switch {
	case c.AtMost > 0:
		return fmt.Sprintf("<= %g", c.AtMost), verdict(c.Ours <= c.AtMost)
	case c.RatioAtMost > 0:
		return fmt.Sprintf("<= %g x", c.RatioAtMost), verdict(c.Ratio <= c.RatioAtMost)
	case c.RatioAtLeast > 0:
		return fmt.Sprintf(">= %g x", c.RatioAtLeast), verdict(c.Ratio >= c.RatioAtLeast)
	}
	return "", ""
}

// write writes Markdown that also reads well in a terminal.
func (r *snapshotsReport) write(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	_, _ = fmt.Fprintln(table, "| measure\t| morello\t| beside\t| its\t| ratio\t| aim\t| \t|")
	_, _ = fmt.Fprintln(table, "| ---\t| ---:\t| ---\t| ---:\t| ---:\t| ---:\t| ---\t|")
	for _, c := range r.Comparisons {
		other, ratio := "", ""
		if c.Beside != "" {
			other, ratio = number(c.Other), fmt.Sprintf("%.3f", c.Ratio)
		}
		aim, reached := c.aim()
		_, _ = fmt.Fprintf(table, "| %s\t| %s\t| %s\t| %s\t| %s\t| %s\t| %s\t|\n", c.Measure, number(c.Ours), c.Beside, other, ratio, aim, reached)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, c := range r.Comparisons {
		if c.CPU != nil {
			_, _ = fmt.Fprintf(w, "\n%s, CPU µs of each: %s", c.Measure, cpuText(c.CPU))
			if len(c.OtherCPU) > 0 {
				_, _ = fmt.Fprintf(w, "; %s: %s", c.Beside, cpuText(c.OtherCPU))
			}
			_, _ = fmt.Fprintln(w)
		}
	}
	_, _ = fmt.Fprintln(w)
	table = tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	_, _ = fmt.Fprintln(table, "| store\t| table or index\t| bytes as written\t| after VACUUM\t|")
	_, _ = fmt.Fprintln(table, "| ---\t| ---\t| ---:\t| ---:\t|")
	for _, s := range r.Relations {
		name := s.Relation
		if s.Search {
			name += ", for search only"
		}
		_, _ = fmt.Fprintf(table, "| %s\t| %s\t| %d\t| %d\t|\n", s.Store, name, s.Written, s.Vacuumed)
	}
	return table.Flush()
}

// number writes so many digits as say something.
func number(n float64) string {
	switch {
	case n >= 100:
		return fmt.Sprintf("%.0f", n)
	case n >= 1:
		return fmt.Sprintf("%.2f", n)
	}
	return fmt.Sprintf("%.3f", n)
}
