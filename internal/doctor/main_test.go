package doctor_test

import (
	"context"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/devstack"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/doctor"
	"github.com/ai-cherry/morello/internal/postgres"
)

func TestMain(m *testing.M) {
	devtest.Main(m, func(ctx context.Context, databaseURL string) error {
		return postgres.MigrateUp(ctx, databaseURL, slog.New(slog.DiscardHandler))
	})
}

const (
	// nowhere is where nobody listens. Its password must never be seen.
	nowhere     = "127.0.0.1:1"
	workerConns = 20
	schedConns  = 25
	// patience and tick are for what a server does a moment after it was asked.
	patience = 30 * time.Second
	tick     = 50 * time.Millisecond
)

// examine returns the findings by check.
func examine(t *testing.T, databaseURL, natsURL string) map[string]doctor.Finding {
	t.Helper()
	return examineConfig(t, t.Context(), config.Config{DatabaseURL: databaseURL, NATSURL: natsURL})
}

func examineConfig(t *testing.T, ctx context.Context, cfg config.Config) map[string]doctor.Finding {
	t.Helper()
	findings := map[string]doctor.Finding{}
	for _, f := range doctor.Run(ctx, doctor.Config{
		Config: cfg, Program: "operator", Instance: uuid.NewString(), WorkerConns: workerConns, SchedulerConns: schedConns,
	}) {
		require.NotContains(t, findings, f.Check, "every check has one finding")
		require.NotEmpty(t, f.Seen, f.Check)
		require.Equal(t, f.Status == doctor.OK, f.Mend == "", "%+v", f)
		findings[f.Check] = f
	}
	return findings
}

// requireFinding also says what was found instead.
func requireFinding(t *testing.T, findings map[string]doctor.Finding, check string, status doctor.Status, seen, mend string) {
	t.Helper()
	f, found := findings[check]
	require.True(t, found, "%s: no such finding in %+v", check, findings)
	require.Equal(t, status, f.Status, "%+v", f)
	require.Contains(t, f.Seen, seen)
	require.Contains(t, f.Mend, mend)
}

// bad returns the checks that are not ok.
func bad(findings map[string]doctor.Finding) []string {
	var checks []string
	for check, f := range findings {
		if f.Status != doctor.OK {
			checks = append(checks, check)
		}
	}
	return checks
}

func execute(t *testing.T, databaseURL, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), databaseURL)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.Background())) }()
	_, err = conn.Exec(t.Context(), sql)
	require.NoError(t, err, sql)
}

// atCleanup runs a statement when the test ends.
func atCleanup(t *testing.T, databaseURL, sql string) {
	t.Helper()
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), databaseURL)
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close(context.Background())) }()
		_, err = conn.Exec(context.Background(), sql)
		require.NoError(t, err, sql)
	})
}

// change returns the URL with something else in it.
func change(t *testing.T, databaseURL string, edit func(u *url.URL)) string {
	t.Helper()
	u, err := url.Parse(databaseURL)
	require.NoError(t, err)
	edit(u)
	return u.String()
}

// startNATS starts a nats-server with the text of a configuration.
func startNATS(t *testing.T, cfg devstack.NATSConfig, text string) string {
	t.Helper()
	cfg.ConfigFile = filepath.Join(t.TempDir(), "nats-server.conf")
	require.NoError(t, os.WriteFile(cfg.ConfigFile, []byte(text), 0o600))
	server, err := devstack.StartNATS(cfg)
	require.NoError(t, err)
	t.Cleanup(server.Shutdown)
	return server.URL()
}
