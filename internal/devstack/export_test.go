package devstack

import (
	"context"
	"os/exec"
)

// What the tests look at from outside the package, where they may use devtest.
var (
	Alive      = alive
	ChildrenOf = childrenOf
	Poll       = poll
)

// EmbeddedCommand is the hidden subcommand of programs that call StartPostgres as root.
const (
	EmbeddedCommand = embeddedCommand
	EmbeddedVersion = embeddedVersion
)

// BinDir is the directory of the server's programs.
func (p *Postgres) BinDir() string { return p.bin.dir }

// Command prepares one of the server's programs, run as its user.
func (p *Postgres) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	return p.user.command(ctx, p.cfg.DataDir, p.bin.path(program), args...)
}
