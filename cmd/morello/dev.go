package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/ai-cherry/morello/internal/cli"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/devstack"
)

const devDatabase = "morello"

type devFlags struct {
	dataDir   string
	natsPort  int
	httpPort  int
	workers   int
	ephemeral bool
}

func newDevCommand() *cobra.Command {
	var flags devFlags
	dev := &cobra.Command{
		Use: "dev", Short: "Run everything on this machine: PostgreSQL, NATS, workers, scheduler, gateway",
		Long: "Run everything on this machine, on loopback and without credentials, for any tenant: a private PostgreSQL (an\n" +
			"installed server, otherwise one that is downloaded), NATS with JetStream in this process, workers, scheduler\n" +
			"and gateway. DIR/dev.json says where they are once they answer. Ctrl-C stops all of it.",
		Example: "  morello dev\n  morello dev --ephemeral --nats-port 0 --http-port 0   # keep nothing, any free ports",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if flags.workers < 1 || flags.workers > 64 {
				return cli.UsageError{Err: errors.New("--workers must be 1 to 64")}
			}
			return runDev(cmd.Context(), flags, cmd.OutOrStdout())
		},
	}
	dev.Flags().StringVar(&flags.dataDir, "data-dir", "", "where everything is kept (default "+defaultDataDir()+")")
	dev.Flags().IntVar(&flags.natsPort, "nats-port", 4222, "port of NATS; 0 picks a free one")
	dev.Flags().IntVar(&flags.httpPort, "http-port", 8080, "port of the gateway; 0 picks a free one")
	dev.Flags().IntVar(&flags.workers, "workers", 1, "number of workers")
	dev.Flags().BoolVar(&flags.ephemeral, "ephemeral", false, "keep nothing: DIR is emptied at the start and removed at the end")
	return dev
}

// defaultDataDir is a folder that PostgreSQL's user may enter: as root, PostgreSQL runs as another user.
func defaultDataDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/morello/dev"
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return filepath.Join(os.TempDir(), "morello-dev")
	}
	return filepath.Join(home, ".local", "share", "morello", "dev")
}

// checkPort finds a taken port before anything is started or removed.
func checkPort(ctx context.Context, port int, flag string) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("%w (%s chooses another port, 0 a free one)", err, flag)
	}
	return listener.Close()
}

// runDev brings the stack up in the order in which its parts need each other, and takes it down in the reverse one.
func runDev(ctx context.Context, flags devFlags, out io.Writer) (err error) {
	cfg, err := config.Load()
	if err != nil {
		return cli.UsageError{Err: err}
	}
	log := cfg.Logger(os.Stderr)
	if err := errors.Join(checkPort(ctx, flags.natsPort, "--nats-port"), checkPort(ctx, flags.httpPort, "--http-port")); err != nil {
		return err
	}
	dir, clean, err := prepareDataDir(flags)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, clean()) }()
	_, _ = fmt.Fprintf(out, "starting PostgreSQL and NATS in %s\n", dir)
	db, err := devstack.StartPostgres(ctx, devstack.PostgresConfig{DataDir: filepath.Join(dir, devPostgres), Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopPostgres(ctx, db)) }()
	broker, err := devstack.StartNATS(devstack.NATSConfig{Port: flags.natsPort, StoreDir: filepath.Join(dir, devNATS), Log: log})
	if err != nil {
		return err
	}
	defer broker.Shutdown()
	if err := prepareDatabase(ctx, db, cfg, log); err != nil {
		return err
	}
	cfg.DatabaseURL, cfg.NATSURL, cfg.NATSCreds, cfg.NATSCA = db.URL(devDatabase), broker.URL(), "", ""
	cfg.HTTPAddr, cfg.HTTPToken = fmt.Sprintf("127.0.0.1:%d", flags.httpPort), ""
	cfg.HealthAddr = config.HealthOff
	return runPrograms(ctx, cfg, flags.workers, log, func(httpAddr string) error {
		stack := devStack{NATSURL: cfg.NATSURL, HTTPURL: "http://" + httpAddr, DatabaseURL: cfg.DatabaseURL}
		if err := stack.write(dir); err != nil {
			return err
		}
		stack.greet(out)
		return nil
	})
}
