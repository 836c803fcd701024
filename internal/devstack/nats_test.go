package devstack_test

import (
	"bytes"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
)

func connectNATS(t *testing.T, server *devstack.NATS, options ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(server.URL(), options...)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	return nc
}

func TestNATSDefaults(t *testing.T) {
	t.Parallel()
	server, err := devstack.StartNATS(devstack.NATSConfig{})
	require.NoError(t, err)
	t.Cleanup(server.Shutdown)

	address, err := url.Parse(server.URL())
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1", address.Hostname())
	nc := connectNATS(t, server)
	require.EqualValues(t, 8<<20, nc.MaxPayload())

	storeDir := server.Server().StoreDir()
	require.DirExists(t, storeDir)
	server.Shutdown()
	require.NoDirExists(t, storeDir)
	require.False(t, server.Server().Running())
	server.Shutdown()
}

func TestNATSKeepsStreamsInStoreDir(t *testing.T) {
	t.Parallel()
	storeDir := t.TempDir()
	first, err := devstack.StartNATS(devstack.NATSConfig{StoreDir: storeDir})
	require.NoError(t, err)
	t.Cleanup(first.Shutdown)
	js, err := jetstream.New(connectNATS(t, first))
	require.NoError(t, err)
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "EVENTS", Subjects: []string{"events.>"}})
	require.NoError(t, err)
	_, err = js.Publish(t.Context(), "events.a", []byte("kept"))
	require.NoError(t, err)
	first.Shutdown()

	second, err := devstack.StartNATS(devstack.NATSConfig{StoreDir: storeDir})
	require.NoError(t, err)
	t.Cleanup(second.Shutdown)
	js, err = jetstream.New(connectNATS(t, second))
	require.NoError(t, err)
	stream, err := js.Stream(t.Context(), "EVENTS")
	require.NoError(t, err)
	message, err := stream.GetLastMsgForSubject(t.Context(), "events.a")
	require.NoError(t, err)
	require.Equal(t, "kept", string(message.Data))
}

func TestNATSTakenPort(t *testing.T) {
	t.Parallel()
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = taken.Close() })
	port := taken.Addr().(*net.TCPAddr).Port
	_, err = devstack.StartNATS(devstack.NATSConfig{Port: port})
	require.ErrorContains(t, err, "port "+strconv.Itoa(port)+" of 127.0.0.1 is taken")
}

func TestNATSPort(t *testing.T) {
	t.Parallel()
	first := devtest.NATS(t)
	address, err := url.Parse(first.URL())
	require.NoError(t, err)
	port, err := strconv.Atoi(address.Port())
	require.NoError(t, err)
	first.Shutdown()
	second, err := devstack.StartNATS(devstack.NATSConfig{Port: port})
	require.NoError(t, err)
	t.Cleanup(second.Shutdown)
	require.Equal(t, first.URL(), second.URL())
}

func TestNATSConfigFile(t *testing.T) {
	t.Parallel()
	// All of these listen or write somewhere; two servers of the same file would collide.
	file := writeFile(t, `
		listen: "0.0.0.0:4222"
		http: 8222
		max_payload: 1MB
		server_name: configured
		pid_file: "/nonexistent/nats.pid"
		log_file: "/nonexistent/nats.log"
		jetstream { store_dir: "/nonexistent" }
		cluster { name: prod, listen: "0.0.0.0:6222", routes: ["nats://127.0.0.1:6223"] }
		leafnodes { listen: "0.0.0.0:7422" }
		websocket { listen: "0.0.0.0:8080", no_tls: true }
		authorization { users: [
			{ user: acme, password: secret, permissions: { publish: "morello.v1.acme.>", subscribe: "_INBOX.acme.>" } }
		] }`)
	server := devtest.NATSWithConfig(t, file)
	devtest.NATSWithConfig(t, file)

	_, err := nats.Connect(server.URL())
	require.ErrorIs(t, err, nats.ErrAuthorization)
	nc := connectNATS(t, server, nats.UserInfo("acme", "secret"))
	require.EqualValues(t, 1<<20, nc.MaxPayload())
	require.Equal(t, "configured", nc.ConnectedServerName())
	require.Nil(t, server.Server().MonitorAddr())
	require.Nil(t, server.Server().ClusterAddr())
	require.True(t, server.Server().JetStreamEnabled())
}

func TestNATSErrors(t *testing.T) {
	t.Parallel()
	_, err := devstack.StartNATS(devstack.NATSConfig{ConfigFile: writeFile(t, `max_payload: {`)})
	require.ErrorContains(t, err, "NATS configuration")

	occupied := writeFile(t, "a file where the store directory should be")
	_, err = devstack.StartNATS(devstack.NATSConfig{StoreDir: occupied})
	require.ErrorContains(t, err, "JetStream")
}

func TestNATSLog(t *testing.T) {
	t.Parallel()
	var text bytes.Buffer
	server, err := devstack.StartNATS(devstack.NATSConfig{Log: slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	require.NoError(t, err)
	server.Shutdown()
	require.Contains(t, text.String(), "Server is ready")
}

func writeFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nats.conf")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}
