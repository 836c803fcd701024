package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ai-cherry/morello/internal/cli"
	"github.com/ai-cherry/morello/internal/config"
)

func newConfigCommand() *cobra.Command {
	return &cobra.Command{
		Use: "config", Short: "Show the settings that are in force, and why; secrets are hidden", Args: cobra.NoArgs,
		Long: "Show the settings that are in force, and why. Settings are environment variables, the same for every program.\n" +
			"Passwords and tokens are hidden.",
		Example: "  MORELLO_LOG_LEVEL=debug morello config",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load()
			if err != nil {
				return cli.UsageError{Err: err}
			}
			return printSettings(cmd.OutOrStdout(), cfg)
		},
	}
}

func printSettings(w io.Writer, cfg config.Config) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "NAME\tVALUE\tFROM\tMEANING")
	for _, s := range cfg.Settings() {
		value := s.Value
		if value == "" {
			value = "-"
		}
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", s.Name, value, s.Source, s.Doc)
	}
	for _, name := range cfg.Unknown() {
		_, _ = fmt.Fprintf(table, "%s\t-\tenvironment\tmeans nothing to this version: misspelled?\n", name)
	}
	return table.Flush()
}
