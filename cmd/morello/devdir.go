package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ai-cherry/morello/internal/devstack"
)

const (
	devPostgres = "postgres"
	devNATS     = "nats"
	devLock     = ".lock"
	// devInitdb begins the name of a cluster that was interrupted in the making.
	devInitdb = "." + devPostgres + ".initdb-"
)

// devFiles is what lies in the data folder of morello dev.
var devFiles = []string{devPostgres, devNATS, devLock, devFile, "." + devFile}

// prepareDataDir makes the folder and locks it, empties it if nothing is to be kept, and removes a dev.json of an earlier
// run. clean is called at the end.
func prepareDataDir(flags devFlags) (dir string, clean func() error, err error) {
	if dir, err = dataDir(flags); err != nil {
		return "", nil, fmt.Errorf("data folder: %w (--data-dir chooses another one)", err)
	}
	if flags.ephemeral {
		if err := checkDataDir(dir); err != nil {
			return "", nil, err
		}
	}
	unlock, err := devstack.TryLockFile(filepath.Join(dir, devLock))
	if err != nil {
		return "", nil, fmt.Errorf("cannot have the data folder for itself (--data-dir chooses another one): %w", err)
	}
	keep := func() error { unlock(); return nil }
	remove := func() error { defer unlock(); return os.RemoveAll(dir) }
	if err := errors.Join(openDataDir(dir), removeIfThere(filepath.Join(dir, devFile))); err != nil {
		return "", nil, errors.Join(err, keep())
	}
	if !flags.ephemeral {
		return dir, keep, nil
	}
	if err := emptyDataDir(dir); err != nil {
		return "", nil, errors.Join(err, keep())
	}
	return dir, remove, nil
}

// dataDir returns the folder that the flags name, and makes it.
func dataDir(flags devFlags) (string, error) {
	switch {
	case flags.dataDir != "":
		dir, err := filepath.Abs(flags.dataDir)
		if err != nil {
			return "", err
		}
		return dir, os.MkdirAll(dir, 0o755)
	case flags.ephemeral:
		return os.MkdirTemp("", "morello-dev-")
	default:
		return defaultDataDir(), os.MkdirAll(defaultDataDir(), 0o755)
	}
}

// openDataDir lets PostgreSQL walk through the folder: it runs as another user when we are root.
func openDataDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil || os.Geteuid() != 0 || info.Mode().Perm()&0o011 == 0o011 {
		return err
	}
	return os.Chmod(dir, info.Mode().Perm()|0o011)
}

// checkDataDir refuses to empty a folder that holds anything that is not of an earlier run: it is somebody's.
func checkDataDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !slices.Contains(devFiles, entry.Name()) && !strings.HasPrefix(entry.Name(), devInitdb) {
			return fmt.Errorf("--ephemeral would empty %s, but it holds %q, which is not of morello dev: choose another folder", dir, entry.Name())
		}
	}
	return nil
}

// emptyDataDir removes what an earlier run left, but for the lock that this one holds.
func emptyDataDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		if entry.Name() != devLock {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, entry.Name())))
		}
	}
	return errors.Join(errs...)
}

func removeIfThere(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
