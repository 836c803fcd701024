package devtest

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/ai-cherry/morello/internal/devstack"
)

const (
	folderPrefix  = "morello-test-"
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
	fresh, err := os.MkdirTemp(base, "morello-new-")
	if err != nil {
		return nil, fmt.Errorf("test folder: %w", err)
	}
	unlock, err := devstack.TryLockFile(filepath.Join(fresh, "lock"))
	if err != nil {
		return nil, fmt.Errorf("test folder: %w", err)
	}
	f := &folder{dir: filepath.Join(base, folderPrefix+filepath.Base(fresh)), unlock: unlock}
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
	if uint64(stat.Bavail)*uint64(stat.Bsize) < minFreeMemory {
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
		_ = os.RemoveAll(dir)
		unlock()
	}
}
