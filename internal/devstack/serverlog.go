package devstack

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	maxServerLog = 16 << 20 // a larger log is started afresh when the server starts
	maxLogTail   = 4 << 10
)

// serverLog is DataDir/server.log, opened for one run of the server.
type serverLog struct {
	file  *os.File
	begin int64 // where this run's lines begin
}

func openServerLog(dataDir string, user account) (*serverLog, error) {
	// The directory is the unprivileged user's: as root, do not follow a link that somebody put there.
	file, err := os.OpenFile(filepath.Join(dataDir, "server.log"), os.O_RDWR|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("devstack: server log: %w", err)
	}
	l := &serverLog{file: file}
	if err := l.prepare(user); err != nil {
		l.close()
		return nil, fmt.Errorf("devstack: server log: %w", err)
	}
	return l, nil
}

func (l *serverLog) prepare(user account) error {
	if user.credential != nil {
		if err := l.file.Chown(int(user.credential.Uid), int(user.credential.Gid)); err != nil {
			return err
		}
	}
	info, err := l.file.Stat()
	if err != nil {
		return err
	}
	l.begin = info.Size()
	if l.begin > maxServerLog {
		l.begin = 0
		return l.file.Truncate(0)
	}
	return nil
}

func (l *serverLog) close() { _ = l.file.Close() }

// tail returns the last lines that this run of the server wrote.
func (l *serverLog) tail() string {
	info, err := l.file.Stat()
	if err != nil {
		return ""
	}
	begin := max(l.begin, info.Size()-maxLogTail)
	text, err := io.ReadAll(io.NewSectionReader(l.file, begin, info.Size()-begin))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// startError is a start that failed, with what the server said about it.
type startError struct {
	cause error
	log   string
}

func (e *startError) Error() string {
	if e.log == "" {
		return fmt.Sprintf("devstack: start PostgreSQL: %v", e.cause)
	}
	return fmt.Sprintf("devstack: start PostgreSQL: %v\nserver.log:\n%s", e.cause, e.log)
}

func (e *startError) Unwrap() error { return e.cause }

func (e *startError) logged(text string) bool { return strings.Contains(e.log, text) }
