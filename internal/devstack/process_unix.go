//go:build unix && !linux

package devstack

import (
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// diesWithParent does nothing: only Linux can. A server left behind is stopped at the next start in its data directory.
func diesWithParent(*exec.Cmd) {}

func alive(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func stopped(int) bool { return true }

func parentOf(pid int) int {
	parent, _ := strconv.Atoi(strings.TrimSpace(ps("ppid", pid)))
	return parent
}

func childrenOf(pid int) []int {
	out, err := exec.Command("pgrep", "-P", strconv.Itoa(pid)).Output()
	if err != nil {
		return nil
	}
	var children []int
	for _, field := range strings.Fields(string(out)) {
		if child, err := strconv.Atoi(field); err == nil {
			children = append(children, child)
		}
	}
	return children
}

// commandLine returns the arguments of a process, nil when there is no such process.
func commandLine(pid int) []string { return strings.Fields(ps("command", pid)) }

func ps(column string, pid int) string {
	out, err := exec.Command("ps", "-o", column+"=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return ""
	}
	return string(out)
}
