package devstack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// account is the operating-system user that server processes run as: the caller, or as root an unprivileged one, because
// PostgreSQL refuses to run as root.
type account struct {
	name       string
	credential *syscall.Credential // nil: the caller
}

func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		return account{name: "uid " + strconv.Itoa(os.Geteuid())}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(found.Uid, 10, 32)
		if err != nil {
			continue
		}
		gid, err := strconv.ParseUint(found.Gid, 10, 32)
		if err != nil {
			continue
		}
		return account{name: name, credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
	}
	return account{}, errors.New("devstack: PostgreSQL does not run as root, and there is neither a user postgres nor a user nobody to run it as")
}

// command prepares a program that runs as the account, in dir and in a session of its own: a terminal's Ctrl-C does not
// reach it. When ctx ends, it and its children are killed.
func (a account) command(ctx context.Context, dir, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = dir
	cmd.Env = withoutLibpq(os.Environ())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: a.credential}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// withoutLibpq removes PGDATA, PGPORT, PGOPTIONS and the like, which would change what the programs do.
func withoutLibpq(environment []string) []string {
	var kept []string
	for _, variable := range environment {
		if !strings.HasPrefix(variable, "PG") {
			kept = append(kept, variable)
		}
	}
	return kept
}

// own makes the account the owner of a directory tree that it does not own yet.
func (a account) own(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("devstack: %w", err)
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	if a.credential == nil {
		if int(owner) != os.Geteuid() {
			return fmt.Errorf("devstack: %s belongs to uid %d, the server would run as %s", dir, owner, a.name)
		}
		return nil
	}
	if owner == a.credential.Uid {
		return nil
	}
	err = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(a.credential.Uid), int(a.credential.Gid))
	})
	if err != nil {
		return fmt.Errorf("devstack: hand %s to %s: %w", dir, a.name, err)
	}
	return nil
}
