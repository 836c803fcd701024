package devstack_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
)

// As root this goes through the hidden subcommand, which devtest.Main offers; otherwise it happens in this process.
func TestDownloadedPostgres(t *testing.T) {
	t.Parallel()
	archive := postgresArchive(t, devtest.Server(t).BinDir())
	var downloads atomic.Int32
	repository := serveRepository(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, string(devstack.EmbeddedVersion)+".jar") {
			http.NotFound(w, r)
			return
		}
		downloads.Add(1)
		_, _ = w.Write(archive)
	})
	cacheDir := filepath.Join(openDir(t), "cache")

	// Two that want it at once, and one that finds the cache filled and needs no repository.
	var starting sync.WaitGroup
	var errs [2]error
	for i := range errs {
		cfg := downloading(openDir(t), cacheDir, repository.URL)
		starting.Go(func() { errs[i] = startAndStop(t.Context(), cfg) })
	}
	starting.Wait()
	require.NoError(t, errors.Join(errs[:]...))
	require.EqualValues(t, 1, downloads.Load())
	requireEntries(t, cacheDir, "lock", "postgres-"+string(devstack.EmbeddedVersion))

	repository.Close()
	server := start(t, downloading(openDir(t), cacheDir, repository.URL))
	require.Equal(t, 1, query[int](t, server.URL("postgres"), `SELECT 1`))
	require.True(t, strings.HasPrefix(server.BinDir(), cacheDir))
}

func TestDownloadErrors(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"absent":         {http.NotFound, ".jar: 404 Not Found"},
		"wrong checksum": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("text")) }, "checksums do not match"},
		"no archive": {func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, ".sha256") {
				http.NotFound(w, r)
				return
			}
			_, _ = w.Write([]byte("text"))
		}, "not a valid zip file"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			repository := serveRepository(t, test.answer)
			cacheDir := filepath.Join(openDir(t), "cache")
			_, err := devstack.StartPostgres(t.Context(), downloading(openDir(t), cacheDir, repository.URL))
			require.ErrorContains(t, err, test.want)
			require.ErrorContains(t, err, "apt-get install postgresql")
			requireEntries(t, cacheDir, "lock")
		})
	}
}

func TestDownloadFromNowhere(t *testing.T) {
	t.Parallel()
	repository := serveRepository(t, http.NotFound)
	repository.Close()
	_, err := devstack.StartPostgres(t.Context(), downloading(openDir(t), filepath.Join(openDir(t), "cache"), repository.URL))
	require.ErrorContains(t, err, "GET "+repository.URL)
	require.ErrorContains(t, err, "connection refused")
}

func TestDownloadEndsWithContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	repository := serveRepository(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done() // until the client has gone
	})
	cacheDir := filepath.Join(openDir(t), "cache")
	_, err := devstack.StartPostgres(ctx, downloading(openDir(t), cacheDir, repository.URL))
	require.ErrorIs(t, err, context.Canceled)
	requireEntries(t, cacheDir, "lock")
}

func TestDownloadToCacheThatServerMayNotEnter(t *testing.T) {
	t.Parallel()
	closed := filepath.Join(openDir(t), "closed")
	require.NoError(t, os.Mkdir(closed, 0o700))
	if os.Geteuid() != 0 {
		require.NoError(t, os.Chmod(closed, 0))
		t.Cleanup(func() { require.NoError(t, os.Chmod(closed, 0o700)) })
	}
	_, err := devstack.StartPostgres(t.Context(), downloading(openDir(t), closed, "http://127.0.0.1:1"))
	require.ErrorIs(t, err, os.ErrPermission)
	require.ErrorContains(t, err, closed)
}

func TestRunEmbeddedPostgresArguments(t *testing.T) {
	t.Parallel()
	require.ErrorContains(t, devstack.RunEmbeddedPostgres(t.Context(), "only one"), "needs a directory and a repository URL")
}

func serveRepository(t *testing.T, answer http.HandlerFunc) *httptest.Server {
	t.Helper()
	repository := httptest.NewServer(answer)
	t.Cleanup(repository.Close)
	return repository
}

func downloading(dir, cacheDir, repositoryURL string) devstack.PostgresConfig {
	cfg := quick(filepath.Join(dir, "data"))
	cfg.BinDir, cfg.CacheDir, cfg.RepositoryURL = "none", cacheDir, repositoryURL
	return cfg
}

func startAndStop(ctx context.Context, cfg devstack.PostgresConfig) error {
	server, err := devstack.StartPostgres(ctx, cfg)
	if err != nil {
		return err
	}
	return server.Stop(ctx)
}

func requireEntries(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	names := make([]string, 0, len(entries))
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	require.Equal(t, want, names)
}
