package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/stretchr/testify/require"
)

// devPatience is for the start of PostgreSQL, initdb included, on a machine with other things to do.
const devPatience = 2 * time.Minute

// TestDev runs the program as its user does. The subtests share one build of it.
func TestDev(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "morello")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	for name, test := range map[string]func(t *testing.T, program string){
		"ephemeral": testDevEphemeral, "kept": testDevKept, "mistakes": testDevMistakes, "closed folder": testDevClosedFolder,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, program)
		})
	}
}

// dev is a running morello dev.
type dev struct {
	cmd    *exec.Cmd
	dir    string
	lines  chan string // of standard output; closed at its end
	errors bytes.Buffer
}

// command prepares the program, as the leader of a process group as a shell makes it. Settings that would lead elsewhere
// stand in its environment, to be ignored.
func command(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Env = append(os.Environ(), "MORELLO_DATABASE_URL=postgres://127.0.0.1:1/elsewhere", "MORELLO_NATS_URL=nats://127.0.0.1:1",
		"MORELLO_HTTP_ADDR=127.0.0.1:1", "MORELLO_HTTP_TOKEN=secret", "MORELLO_HEALTH_ADDR=127.0.0.1:1")
	return cmd
}

func startDev(t *testing.T, program, dir string, args ...string) *dev {
	t.Helper()
	d := &dev{dir: dir, lines: make(chan string, 100)}
	d.cmd = command(t, program, append([]string{"dev", "--nats-port", "0", "--http-port", "0", "--data-dir", dir}, args...)...)
	d.cmd.Stderr = &d.errors
	stdout, err := d.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, d.cmd.Start())
	go func() {
		defer close(d.lines)
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			d.lines <- scanner.Text()
		}
	}()
	t.Cleanup(func() {
		if d.cmd.ProcessState == nil { // the test has failed, and with its context the process was killed
			_ = d.cmd.Wait()
		}
	})
	return d
}

// read returns the lines up to one that begins with the text.
func (d *dev) read(t *testing.T, until string) []string {
	t.Helper()
	var lines []string
	timeout := time.After(devPatience)
	for {
		select {
		case line, more := <-d.lines:
			if !more {
				_ = d.cmd.Wait()
				require.FailNow(t, "morello dev ended", "%v\n%s\n%s", d.cmd.ProcessState, strings.Join(lines, "\n"), d.errors.String())
			}
			lines = append(lines, line)
			if strings.HasPrefix(line, until) {
				return lines
			}
		case <-timeout:
			require.FailNow(t, "morello dev does not print "+until, "%s", strings.Join(lines, "\n"))
		}
	}
}

// stack reads dev.json.
func (d *dev) stack(t *testing.T) devStack {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(d.dir, devFile))
	require.NoError(t, err)
	var stack devStack
	require.NoError(t, json.Unmarshal(text, &stack, json.RejectUnknownMembers(true)))
	return stack
}

// stop presses Ctrl-C, which the terminal sends to the whole process group, and requires a clean end.
func (d *dev) stop(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(d.dir, "postgres", "postmaster.pid"))
	require.NoError(t, err)
	line, _, _ := strings.Cut(string(text), "\n")
	postgres, err := strconv.Atoi(line)
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(postgres, 0), "PostgreSQL runs")

	require.NoError(t, syscall.Kill(-d.cmd.Process.Pid, syscall.SIGINT))
	for range d.lines { // reading to the end must come before Wait
	}
	require.NoError(t, d.cmd.Wait(), "exit code 0: %s", &d.errors)
	require.ErrorIs(t, syscall.Kill(postgres, 0), syscall.ESRCH, "PostgreSQL is gone")
	require.NotContains(t, d.errors.String(), "level=ERROR")
}

// openDir returns a folder that the user of PostgreSQL may enter: with t.TempDir alone he cannot when we are root.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o711))
	return filepath.Join(dir, "data")
}

// testDevEphemeral does what the program prints, and finds what it promises.
func testDevEphemeral(t *testing.T, program string) {
	d := startDev(t, program, openDir(t), "--ephemeral", "--workers", "2")
	require.Eventually(t, func() bool {
		_, err := os.Stat(filepath.Join(d.dir, devFile))
		return err == nil
	}, devPatience, 10*time.Millisecond)
	stack := d.stack(t)
	lines := d.read(t, "Ctrl-C stops everything.")
	require.Contains(t, lines, "ready")
	require.Contains(t, lines, "  NATS        "+stack.NATSURL)
	require.Contains(t, lines, "  HTTP        "+stack.HTTPURL)
	require.Contains(t, lines, "  PostgreSQL  "+stack.DatabaseURL)
	for _, address := range []string{stack.NATSURL, stack.HTTPURL, stack.DatabaseURL} {
		require.Contains(t, address, "127.0.0.1:")
	}

	tried := 0
	for i, line := range lines {
		if !strings.HasPrefix(line, "  go run") && !strings.HasPrefix(line, "  curl") {
			continue
		}
		tried++
		printed := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSpace(lines[i+1])), "…", `[^,}]+`)
		require.Regexp(t, "^"+printed+"$", try(t, program, strings.TrimSpace(line)), line)
	}
	require.Equal(t, 3, tried)
	d.stop(t)
	require.NoDirExists(t, d.dir)
}

var curl = regexp.MustCompile(`^curl -d '(.*)' (\S+)$`)

// try runs a printed command: that of a shell with the program in the place of "go run", that of curl as the request that
// it sends.
func try(t *testing.T, program, line string) string {
	t.Helper()
	if request := curl.FindStringSubmatch(line); request != nil {
		status, body := post(t, request[2], request[1])
		require.Equal(t, http.StatusOK, status, body)
		return body
	}
	line, found := strings.CutPrefix(line, "go run ./cmd/morello ")
	require.True(t, found, line)
	out, err := command(t, "/bin/sh", "-c", "exec "+program+" "+line).CombinedOutput()
	require.NoError(t, err, "%s", out)
	return strings.TrimSpace(string(out))
}

func post(t *testing.T, url, body string) (status int, answer string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded") // as curl does
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(text)
}

// testDevKept: without --ephemeral everything is there again after a clean stop, the unlogged cache included. With it, on
// the same folder, nothing is.
func testDevKept(t *testing.T, program string) {
	dir := openDir(t)
	stale := write(t, filepath.Join(dir, devFile))
	first := startDev(t, program, dir)
	first.read(t, "starting PostgreSQL and NATS in "+dir)
	if text, err := os.ReadFile(stale); err == nil {
		require.NotEqual(t, "{}", string(text), "the file of an earlier run is removed first")
	}
	first.read(t, "ready")
	status, _ := post(t, first.stack(t).HTTPURL+"/v1/acme/cache/set", `{"key":"kept","value":1.0,"no_expiry":true}`)
	require.Equal(t, http.StatusOK, status)

	second := command(t, program, "dev", "--nats-port", "0", "--http-port", "0", "--data-dir", dir, "--ephemeral")
	out, err := second.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "locked by another process", "the folder is in use")
	_, body := post(t, first.stack(t).HTTPURL+"/v1/acme/cache/get", `{"key":"kept"}`)
	require.Contains(t, body, `"value":1.0`, "and unharmed")
	first.stop(t)
	require.NoFileExists(t, filepath.Join(dir, "postgres", "postmaster.pid"), "PostgreSQL stopped cleanly")

	again := startDev(t, program, dir)
	again.read(t, "ready")
	_, body = post(t, again.stack(t).HTTPURL+"/v1/acme/cache/get", `{"key":"kept"}`)
	require.Contains(t, body, `"value":1.0`)
	again.stop(t)

	empty := startDev(t, program, dir, "--ephemeral")
	empty.read(t, "ready")
	_, body = post(t, empty.stack(t).HTTPURL+"/v1/acme/cache/get", `{"key":"kept"}`)
	require.Equal(t, `{"found":false}`, body)
	empty.stop(t)
	require.NoDirExists(t, dir)
}

// testDevMistakes: each ends at once, with its exit code and a text that says what to do, and touches nothing.
func testDevMistakes(t *testing.T, program string) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	taken := strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
	foreign := t.TempDir()
	thesis := write(t, filepath.Join(foreign, "thesis.tex"))
	none := filepath.Join(t.TempDir(), "none")
	for _, c := range []struct {
		name    string
		args    []string
		code    int
		message []string
	}{
		{"taken NATS port", []string{"--nats-port", taken, "--http-port", "0"}, 1, []string{taken, "address already in use", "--nats-port chooses another port"}},
		{"taken HTTP port", []string{"--nats-port", "0", "--http-port", taken}, 1, []string{taken, "address already in use", "--http-port chooses another port"}},
		{"no workers", []string{"--workers", "0"}, 2, []string{"--workers must be 1 to 64"}},
		{"unknown flag", []string{"--port", "1"}, 2, []string{"unknown flag: --port"}},
		{"argument too many", []string{"here"}, 2, []string{`unknown command "here"`}},
		{
			"folder of somebody",
			[]string{"--nats-port", "0", "--http-port", "0", "--ephemeral", "--data-dir", foreign},
			1,
			[]string{foreign, `"thesis.tex"`, "choose another folder"},
		},
	} {
		args := append([]string{"dev", "--data-dir", none}, c.args...)
		cmd := command(t, program, args...)
		var out, failure bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &failure
		_ = cmd.Run() // the exit code says more
		require.Equal(t, c.code, cmd.ProcessState.ExitCode(), "%s: %s", c.name, &failure)
		require.Regexp(t, `^morello: [^\n]+\n$`, failure.String(), c.name)
		for _, text := range c.message {
			require.Contains(t, failure.String(), text, c.name)
		}
		require.Empty(t, out.String(), c.name)
	}
	require.FileExists(t, thesis)
	require.NoDirExists(t, none)
}

// testDevClosedFolder: PostgreSQL runs as another user when we are root, who cannot enter our private folders. As an
// ordinary user there is no other.
func testDevClosedFolder(t *testing.T, program string) {
	private := t.TempDir()
	require.NoError(t, os.Chmod(private, 0o700))
	dir := filepath.Join(private, "data")
	if os.Geteuid() != 0 {
		d := startDev(t, program, dir, "--ephemeral")
		d.read(t, "ready")
		d.stop(t)
		return
	}
	out, err := command(t, program, "dev", "--nats-port", "0", "--http-port", "0", "--data-dir", dir, "--ephemeral").CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "may not enter "+dir)
	require.Contains(t, string(out), "elsewhere")
	require.NoDirExists(t, dir, "what was made is removed")
	info, err := os.Stat(private)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm(), "a folder that was there stays closed")
}
