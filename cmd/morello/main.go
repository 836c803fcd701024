// Command morello is the operator's command: everything in one process for development, migrations, calls, settings.
package main

import (
	"github.com/spf13/cobra"

	"github.com/ai-cherry/morello/internal/cli"
	"github.com/ai-cherry/morello/internal/config"
)

func main() { cli.Execute(newCommand()) }

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use: "morello", Short: "The data plane for AI agents",
		Long: "Morello is the data plane for AI agents: cache, sessions, snapshots, registry, audit and knowledge on one\n" +
			"PostgreSQL, reached by NATS request/reply.",
		Example: "  morello dev                                   # everything on this machine\n" +
			"  morello call cache.get '{\"key\":\"greeting\"}'    # one operation",
		Version: config.Version, SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(newDevCommand(), newMigrateCommand(), newCallCommand(), newConfigCommand(), newDoctorCommand(), newBenchCommand(), newBenchRoleCommand(),
		newEmbeddedPostgresCommand())
	return root
}
