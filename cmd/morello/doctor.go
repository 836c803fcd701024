package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/ai-cherry/morello/internal/cli"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/doctor"
	"github.com/ai-cherry/morello/internal/scheduler"
	"github.com/ai-cherry/morello/internal/worker"
)

func newDoctorCommand() *cobra.Command {
	var asJSON bool
	command := &cobra.Command{
		Use: "doctor", Short: "Say what can be reached, in which versions, and which settings hurt, each with its mend", Args: cobra.NoArgs,
		Long: "Examine this machine's settings, PostgreSQL, NATS and the workers, and say what is ok, what hurts (warn) and what does\n" +
			"not work or loses data (FAIL), each with its mend. It changes nothing and takes a few seconds. Exits with 1 if\n" +
			"anything is FAIL. Log in to NATS as the operator: others may not ask all that it asks.",
		Example: "  morello doctor\n" +
			"  MORELLO_DATABASE_URL=postgres://morello:secret@db:5432/morello MORELLO_NATS_URL=nats://_operator:secret@nats:4222 morello doctor\n" +
			"  morello doctor --json | jq '.[] | select(.status != \"ok\")'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load()
			if err != nil {
				return cli.UsageError{Err: err}
			}
			findings := doctor.Run(cmd.Context(), doctor.Config{
				Config: cfg, Program: callProgram, Instance: uuid.NewString(),
				WorkerConns: worker.Connections(cfg), SchedulerConns: scheduler.Connections(),
			})
			return reportFindings(cmd.OutOrStdout(), findings, asJSON)
		},
	}
	command.Flags().BoolVar(&asJSON, "json", false, "print a JSON array of the findings")
	return command
}

// reportFindings prints the findings, and returns an error if any is a failure.
func reportFindings(w io.Writer, findings []doctor.Finding, asJSON bool) error {
	count := map[doctor.Status]int{}
	for _, f := range findings {
		count[f.Status]++
	}
	text := findingLines(findings, count)
	if asJSON {
		array, err := json.Marshal(findings, jsontext.WithIndent("  "))
		if err != nil {
			return err
		}
		text = string(array) + "\n"
	}
	if _, err := io.WriteString(w, text); err != nil {
		return err
	}
	if count[doctor.Fail] > 0 {
		return fmt.Errorf("failed checks: %d", count[doctor.Fail])
	}
	return nil
}

// findingLines is a line for each finding, an indented one with its mend, and a summary.
func findingLines(findings []doctor.Finding, count map[doctor.Status]int) string {
	const checkWidth = 45
	var text strings.Builder
	for _, f := range findings {
		status := string(f.Status)
		if f.Status == doctor.Fail {
			status = "FAIL"
		}
		fmt.Fprintf(&text, "%-4s  %-*s  %s\n", status, checkWidth, f.Check, f.Seen)
		if f.Mend != "" {
			fmt.Fprintf(&text, "      mend: %s\n", f.Mend)
		}
	}
	fmt.Fprintf(&text, "%d checks: %d ok, %d warn, %d FAIL\n", len(findings), count[doctor.OK], count[doctor.Warn], count[doctor.Fail])
	return text.String()
}
