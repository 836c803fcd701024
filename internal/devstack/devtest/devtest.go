// Package devtest gives tests real servers: a PostgreSQL database cloned from a migrated template, a private PostgreSQL for
// tests that kill it, a nats-server of their own. A server that cannot be had is a failure, never a skip.
//
// A package calls [Main] from its TestMain. All its tests share one PostgreSQL, which starts with the first of them that
// asks; it does without fsync, because no test survives a crash of the machine, but commits stay synchronous.
package devtest

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ai-cherry/morello/internal/devstack"
)

const (
	startTimeout     = 10 * time.Minute // initdb, migrations and, on a machine without PostgreSQL, the download
	statementTimeout = time.Minute
	stopTimeout      = 30 * time.Second
)

// process is what the tests of this process share; TestMain offers no other place to keep it.
var process fixture

// Main runs the tests, stops what they shared, checks that no goroutine is left, and exits. migrate prepares the database
// that tests get copies of and must close its connections; nil means empty databases.
func Main(m *testing.M, migrate func(ctx context.Context, databaseURL string) error) {
	if len(os.Args) > 1 && os.Args[1] == "embedded-postgres" { // see devstack.RunEmbeddedPostgres
		if err := devstack.RunEmbeddedPostgres(context.Background(), os.Args[2:]...); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	process.migrate = migrate
	code := m.Run()
	if err := process.close(); err != nil {
		fmt.Fprintln(os.Stderr, "devtest:", err)
		code = max(code, 1)
	}
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, "devtest: goroutines left by the tests:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// Database returns the URL of a new database, a copy of the migrated template, that is dropped when the test ends.
func Database(t testing.TB) string {
	t.Helper()
	server, name, err := process.newDatabase()
	if err != nil {
		t.Fatalf("devtest: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), statementTimeout)
		defer cancel()
		if err := server.DropDatabase(ctx, name); err != nil {
			t.Errorf("devtest: %v", err)
		}
	})
	return server.URL(name)
}

// Server returns a PostgreSQL of this test alone, which it may kill and restart, with a migrated database named morello. It
// is stopped and removed when the test ends.
func Server(t testing.TB) *devstack.Postgres {
	t.Helper()
	return ServerWithSettings(t, nil)
}

// ServerWithSettings is Server with further server settings, which win over ours.
func ServerWithSettings(t testing.TB, settings map[string]string) *devstack.Postgres {
	t.Helper()
	server, remove, err := process.newServer(settings)
	if err != nil {
		t.Fatalf("devtest: %v", err)
	}
	t.Cleanup(func() {
		if err := remove(); err != nil {
			t.Errorf("devtest: %v", err)
		}
	})
	return server
}

// NATS returns a nats-server of this test alone on a free port; it is shut down when the test ends.
func NATS(t testing.TB) *devstack.NATS {
	t.Helper()
	return NATSWithConfig(t, "")
}

// NATSWithConfig is NATS with the users, permissions and limits of a configuration file.
func NATSWithConfig(t testing.TB, file string) *devstack.NATS {
	t.Helper()
	server, err := devstack.StartNATS(devstack.NATSConfig{ConfigFile: file})
	if err != nil {
		t.Fatalf("devtest: %v", err)
	}
	t.Cleanup(server.Shutdown)
	return server
}
