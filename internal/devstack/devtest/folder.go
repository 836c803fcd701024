package devtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/ai-cherry/morello/internal/devstack"
)

const (
	folderPrefix  = "morello-test-"
	freshPrefix   = "morello-new-"
	minFreeMemory = 1 << 30 // bytes that /dev/shm must have free to be used
)

// folder holds the files of the shared and the private servers of one test process.
type folder struct {
	dir    string
	unlock func()
}

// newFolder makes a folder that the servers' user may enter, in memory when there is room. It first removes folders whose
// process was killed; a living process holds a lock in its own.
func newFolder() (*folder, error) {
	base := os.TempDir()
	if roomInMemory() {
		base = "/dev/shm"
	}
	removeAbandoned(base)

	// The folder gets the name that removeAbandoned looks for only once it is locked.
	fresh, err := os.MkdirTemp(base, freshPrefix)
	if err != nil {
		return nil, fmt.Errorf("test folder: %w", err)
	}
	unlock, err := devstack.TryLockFile(filepath.Join(fresh, "lock"))
	if err != nil {
		return nil, fmt.Errorf("test folder: %w", err)
	}
	f := &folder{dir: filepath.Join(base, folderPrefix+strings.TrimPrefix(filepath.Base(fresh), freshPrefix)), unlock: unlock}
	if err := os.Chmod(fresh, 0o711); err != nil {
		return nil, fmt.Errorf("test folder: %w", err)
	}
	if err := os.Rename(fresh, f.dir); err != nil {
		return nil, fmt.Errorf("test folder: %w", err)
	}
	return f, nil
}

func (f *folder) path(name string) string { return filepath.Join(f.dir, name) }

func (f *folder) remove() error {
	defer f.unlock()
	return os.RemoveAll(f.dir)
}

func roomInMemory() bool {
	var stat syscall.Statfs_t
	if err := syscall.Statfs("/dev/shm", &stat); err != nil {
		return false
	}
	if stat.Bavail*uint64(stat.Bsize) < minFreeMemory {
		return false
	}
	probe, err := os.MkdirTemp("/dev/shm", "morello-probe-")
	if err != nil {
		return false
	}
	return os.Remove(probe) == nil
}

// removeAbandoned does what it can: another user's folders stay.
func removeAbandoned(base string) {
	dirs, _ := filepath.Glob(filepath.Join(base, folderPrefix+"*")) // the pattern is well-formed
	for _, dir := range dirs {
		unlock, err := devstack.TryLockFile(filepath.Join(dir, "lock"))
		if err != nil {
			continue
		}
		if !serving(dir) {
			_ = os.RemoveAll(dir)
		}
		unlock()
	}
}

// serving reports whether a server still runs in a folder: one that outlived its process by the time it takes to stop would
// crash if its files went, and leave its shared memory behind.
func serving(dir string) bool {
	locks, _ := filepath.Glob(filepath.Join(dir, "*", "postmaster.pid")) // the pattern is well-formed
	for _, lock := range locks {
		content, err := os.ReadFile(lock)
		if err != nil {
			continue
		}
		line, _, _ := strings.Cut(string(content), "\n")
		pid, err := strconv.Atoi(line)
		if err == nil && pid > 0 && !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			return true
		}
	}
	return false
}
