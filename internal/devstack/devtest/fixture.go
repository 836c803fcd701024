package devtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/ai-cherry/morello/internal/devstack"
)

// migrated is the database that migrate ran on: the template of the shared server, the database of a private one.
const migrated = "morello"

// fixture makes what the tests of a process need when the first of them asks.
type fixture struct {
	migrate func(ctx context.Context, databaseURL string) error

	mu      sync.Mutex // held while a database is cloned too: nobody else may be connected to the template
	folder  *folder
	shared  lazy[*devstack.Postgres]
	model   lazy[string] // data directory of a stopped, migrated server that private ones are copies of
	counter int
}

// lazy is a value that is made once; a failure is kept too, so that not every test waits for the same one.
type lazy[T any] struct {
	made  bool
	value T
	err   error
}

func (l *lazy[T]) get(produce func() (T, error)) (T, error) {
	if !l.made {
		l.made = true
		l.value, l.err = produce()
	}
	return l.value, l.err
}

// newDatabase clones the template on the shared server.
func (f *fixture) newDatabase() (*devstack.Postgres, string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	server, err := f.shared.get(func() (*devstack.Postgres, error) { return f.startMigrated("shared") })
	if err != nil {
		return nil, "", err
	}
	source := migrated
	if f.migrate == nil {
		source = ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), statementTimeout)
	defer cancel()
	name := "test_" + f.next()
	return server, name, server.CreateDatabase(ctx, name, source)
}

// newServer starts a server on a copy of the model: far quicker than initdb and the migrations.
func (f *fixture) newServer(settings map[string]string) (server *devstack.Postgres, remove func() error, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	model, err := f.model.get(f.makeModel)
	if err != nil {
		return nil, nil, err
	}
	dataDir := f.folder.path("private-" + f.next())
	if err := copyCluster(dataDir, model); err != nil {
		return nil, nil, err
	}
	if server, err = f.start(dataDir, settings); err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dataDir))
	}
	return server, func() error { return errors.Join(reclaim(server), stop(server), os.RemoveAll(dataDir)) }, nil
}

// reclaim starts a server that the test left killed, which is how its shared memory is freed.
func reclaim(server *devstack.Postgres) error {
	if server.PID() != 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	return server.Restart(ctx)
}

func (f *fixture) makeModel() (string, error) {
	server, err := f.startMigrated("model")
	if err != nil {
		return "", err
	}
	return f.folder.path("model"), stop(server)
}

// startMigrated starts a server on a new cluster with the migrated database.
func (f *fixture) startMigrated(name string) (*devstack.Postgres, error) {
	if f.folder == nil {
		folder, err := newFolder()
		if err != nil {
			return nil, err
		}
		f.folder = folder
	}
	server, err := f.start(f.folder.path(name), nil)
	if err != nil {
		return nil, err
	}
	if err := f.createMigrated(server); err != nil {
		return nil, errors.Join(err, stop(server))
	}
	return server, nil
}

func (f *fixture) createMigrated(server *devstack.Postgres) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := server.CreateDatabase(ctx, migrated, ""); err != nil {
		return err
	}
	if f.migrate == nil {
		return nil
	}
	if err := f.migrate(ctx, server.URL(migrated)); err != nil {
		return fmt.Errorf("migrate the template: %w", err)
	}
	return nil
}

func (f *fixture) start(dataDir string, settings map[string]string) (*devstack.Postgres, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	all := map[string]string{
		"fsync":              "off",
		"full_page_writes":   "off",
		"synchronous_commit": "on",
		"max_connections":    "300",
		// In the data directory instead of /dev/shm, where a killed server would leave it.
		"dynamic_shared_memory_type": "mmap",
	}
	maps.Copy(all, settings)
	return devstack.StartPostgres(ctx, devstack.PostgresConfig{DataDir: dataDir, Settings: all})
}

// next numbers databases and servers.
func (f *fixture) next() string {
	f.counter++
	return strconv.Itoa(f.counter)
}

// close stops the shared server and removes all files.
func (f *fixture) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	if f.shared.value != nil {
		errs = append(errs, stop(f.shared.value))
	}
	if f.folder != nil {
		errs = append(errs, f.folder.remove())
	}
	return errors.Join(errs...)
}

func stop(server *devstack.Postgres) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	return server.Stop(ctx)
}

// copyCluster copies the data directory of a stopped server. PostgreSQL insists on the mode of the top directory.
func copyCluster(target, source string) error {
	if err := os.CopyFS(target, os.DirFS(source)); err != nil {
		return fmt.Errorf("copy the cluster: %w", err)
	}
	if err := os.Chmod(target, 0o700); err != nil {
		return fmt.Errorf("copy the cluster: %w", err)
	}
	return os.Remove(filepath.Join(target, "server.log"))
}
