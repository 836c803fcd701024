package devstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// process is a child of this process, and the means to wait for its end.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the child has been reaped
}

// startProcess starts cmd from a goroutine that keeps its OS thread until the child has ended: Linux sends Pdeathsig when
// the thread that forked ends, not when its process does.
func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		defer close(p.done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended stands in cmd.ProcessState
		}
	}()
	return p, <-started
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// signal sends a signal; a process that has ended is no error.
func (p *process) signal(signal syscall.Signal) error {
	err := p.cmd.Process.Signal(signal)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// kill ends a server at once and waits: by SIGQUIT, upon which a postmaster takes its backends along, then by SIGKILL.
func (p *process) kill() {
	_ = p.signal(syscall.SIGQUIT)
	timer := time.NewTimer(quitTimeout)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		_ = p.killTree()
	}
}

// killTree ends a process and its children with SIGKILL and waits until all are gone. The parent is stopped while its
// children are listed, so that it cannot fork one that is missed.
func (p *process) killTree() error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), quitTimeout, fmt.Errorf("kill timeout (%s) exceeded", quitTimeout))
	defer cancel()
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	if err := poll(ctx, func() bool { return p.ended() || stopped(p.pid()) }); err != nil {
		return err
	}
	children := childrenOf(p.pid())
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	for _, pid := range children {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("process %d: %w", pid, err)
		}
	}
	return poll(ctx, func() bool { return p.ended() && !anyAlive(children) })
}

func anyAlive(pids []int) bool {
	for _, pid := range pids {
		if alive(pid) {
			return true
		}
	}
	return false
}

// poll waits until a condition holds that nothing announces, such as the end of a process that is not our child.
func poll(ctx context.Context, holds func() bool) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
	return nil
}
