package worker_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/messages"
)

// process is the program cmd/worker in a process of its own.
type process struct {
	command *exec.Cmd
	ended   chan error
}

// startProcess builds the program, without the race detector, whose own memory would be all that is seen, and starts it.
func startProcess(t *testing.T, databaseURL, natsURL string, env ...string) *process {
	t.Helper()
	program := filepath.Join(t.TempDir(), "worker")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../cmd/worker").CombinedOutput()
	require.NoError(t, err, string(out))
	p := &process{command: exec.CommandContext(t.Context(), program), ended: make(chan error, 1)}
	p.command.Env = append(os.Environ(), "MORELLO_DATABASE_URL="+databaseURL, "MORELLO_NATS_URL="+natsURL, "MORELLO_HEALTH_ADDR=off")
	p.command.Env = append(p.command.Env, env...)
	stderr, err := p.command.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, p.command.Start())
	ready := make(chan struct{})
	go func() {
		var once sync.Once
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if strings.Contains(lines.Text(), "worker is ready") {
				once.Do(func() { close(ready) })
			}
		}
		p.ended <- p.command.Wait()
	}()
	select {
	case <-ready:
	case err := <-p.ended:
		require.NoError(t, err, "the worker ended before it was ready")
	}
	return p
}

// peak returns the most memory that the process has had so far (VmHWM of proc(5)).
func (p *process) peak(t *testing.T) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid))
	require.NoError(t, err)
	_, after, found := strings.Cut(string(status), "VmHWM:")
	require.True(t, found)
	kib, err := strconv.ParseInt(strings.Fields(after)[0], 10, 64)
	require.NoError(t, err)
	return kib << 10
}

// TestMemoryIsBounded: with 256 MiB, 256 callers at once read values of 4 MiB, a gigabyte, and ask for more than fits into a
// reply; 32 write such values. Each gets a correct answer or a clear refusal, and the worker neither dies nor grows from
// round to round.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	const limit, keys, callers, patience = 256 << 20, 8, 256, 20 * time.Second
	databaseURL, natsURL := devtest.Database(t), devtest.NATS(t).URL()
	p := startProcess(t, databaseURL, natsURL, "GOMEMLIMIT="+strconv.Itoa(limit))
	conns := make([]*bus.Conn, 16) // so that the server finds none of them too slow
	for i := range conns {
		conns[i] = connect(t, natsURL)
	}
	values := make([][]byte, keys)
	key := func(i int) string { return fmt.Sprint("large-", i%keys) }
	ctx := t.Context()
	for i := range keys {
		values[i] = []byte(`"` + strings.Repeat(string(rune('a'+i)), 4<<20-2) + `"`)
		_, err := bus.Call(ctx, conns[0], messages.CacheSetEndpoint, "acme", messages.CacheSet{Key: key(i), Value: values[i]})
		require.NoError(t, err)
	}
	var answered, refused atomic.Int64
	get, set, getMany := messages.CacheGetEndpoint.Info(), messages.CacheSetEndpoint.Info(), messages.CacheGetManyEndpoint.Info()
	crowd := func(n int, call func(ctx context.Context, conn *bus.Conn, i int) error) {
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				err := call(ctx, conns[i%len(conns)], i)
				var failure *messages.Error
				switch {
				case err == nil:
					answered.Add(1)
				case errors.As(err, &failure) && failure.Retryable(true):
					refused.Add(1)
				default:
					t.Errorf("caller %d: %v", i, err)
				}
			})
		}
		all.Wait()
	}
	round := func() {
		crowd(callers, func(ctx context.Context, conn *bus.Conn, i int) error {
			reply, err := conn.CallRaw(ctx, get, "acme", fmt.Appendf(nil, `{"key":%q}`, key(i)), bus.Headers{})
			if err == nil && !bytes.Contains(reply, values[i%keys]) {
				t.Errorf("caller %d got another value", i)
			}
			return err
		})
		crowd(callers/8, func(ctx context.Context, conn *bus.Conn, i int) error { // 128 MiB: four times what is let in at once
			_, err := conn.CallRaw(ctx, set, "acme", fmt.Appendf(nil, `{"key":%q,"value":%s}`, key(i), values[i%keys]), bus.Headers{})
			return err
		})
		crowd(callers, func(ctx context.Context, conn *bus.Conn, i int) error {
			_, err := conn.CallRaw(ctx, getMany, "acme", fmt.Appendf(nil, `{"keys":[%q,%q]}`, key(i), key(i+1)), bus.Headers{})
			if failure := messages.AsError(err); err == nil || failure.Code != messages.CodeTooLarge || !strings.Contains(failure.Message, "8388608 bytes") {
				return err
			}
			return nil // as it should be
		})
	}
	round()
	first := p.peak(t)
	round()
	last := p.peak(t)
	t.Logf("peak %d MiB after one round, %d MiB after two; %d answered, %d refused", first>>20, last>>20, answered.Load(), refused.Load())
	require.Less(t, last, int64(limit*3/2))
	require.Less(t, last-first, int64(limit/4))
	require.Greater(t, answered.Load(), int64(callers))
	select {
	case err := <-p.ended:
		require.NoError(t, err, "the worker died")
	default:
	}
	require.NoError(t, p.command.Process.Signal(syscall.SIGTERM))
	require.NoError(t, <-p.ended)
}
