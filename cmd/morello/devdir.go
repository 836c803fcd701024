package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// devFiles is what lies in the data folder of morello dev.
var devFiles = []string{"postgres", "nats", devFile, "." + devFile}

// prepareDataDir makes the folder, or empties it if nothing is to be kept, and removes a dev.json of an earlier run.
// clean is called at the end.
func prepareDataDir(flags devFlags) (dir string, clean func() error, err error) {
	keep := func() error { return nil }
	switch {
	case flags.dataDir != "":
		if dir, err = filepath.Abs(flags.dataDir); err != nil {
			return "", nil, err
		}
	case flags.ephemeral:
		if dir, err = os.MkdirTemp("", "morello-dev-"); err != nil {
			return "", nil, err
		}
	default:
		dir = defaultDataDir()
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, fmt.Errorf("data folder: %w (--data-dir chooses another one)", err)
	}
	// PostgreSQL runs as another user when we are root, and must be able to walk through.
	if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o011 != 0o011 && os.Geteuid() == 0 {
		if err := os.Chmod(dir, info.Mode().Perm()|0o011); err != nil {
			return "", nil, err
		}
	}
	if !flags.ephemeral {
		return dir, keep, removeIfThere(filepath.Join(dir, devFile))
	}
	return dir, func() error { return os.RemoveAll(dir) }, emptyDataDir(dir)
}

// emptyDataDir removes what an earlier run left. A folder that holds anything else is somebody's, and stays.
func emptyDataDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !slices.Contains(devFiles, entry.Name()) {
			return fmt.Errorf("--ephemeral would empty %s, but it holds %q, which is not of morello dev: choose another folder", dir, entry.Name())
		}
	}
	for _, entry := range entries {
		if err := os.RemoveAll(filepath.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

func removeIfThere(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
