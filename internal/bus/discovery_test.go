package bus_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"testing"
	"time"

	"github.com/nats-io/jsm.go/registry"
	"github.com/nats-io/nats.go/micro"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/messages"
)

const natsCLI = "github.com/nats-io/natscli/nats@v0.5.1"

// discoverable serves one good and one bad operation, and calls each: 3 answers, 1 of them an error.
func discoverable(t *testing.T) (url string) {
	t.Helper()
	_, conn, url := serve(t, bus.ServerConfig{},
		bus.Bind(messages.CacheGetEndpoint, echoGet),
		bus.Bind(messages.CacheDeleteEndpoint, func(context.Context, string, messages.CacheDelete) (messages.CacheDeleteReply, error) {
			return messages.CacheDeleteReply{}, messages.Invalid("key", "is not to my liking")
		}))
	for range 2 {
		_, err := bus.Call(t.Context(), conn, messages.CacheGetEndpoint, "acme", messages.CacheGet{Key: "k"})
		require.NoError(t, err)
	}
	_, err := bus.Call(t.Context(), conn, messages.CacheDeleteEndpoint, "acme", messages.CacheDelete{Key: "k"})
	require.Error(t, err)
	return url
}

func TestDiscoveryRepliesAreValid(t *testing.T) {
	t.Parallel()
	nc := rawConn(t, discoverable(t))
	for _, subject := range []string{
		"$SRV.PING", "$SRV.PING.morello", "$SRV.PING.morello.one",
		"$SRV.INFO", "$SRV.INFO.morello", "$SRV.INFO.morello.one",
		"$SRV.STATS", "$SRV.STATS.morello", "$SRV.STATS.morello.one",
	} {
		reply, err := nc.Request(subject, nil, 5*time.Second)
		require.NoError(t, err, subject)
		kind, _, err := registry.ParseAndValidateMessage(reply.Data, rawValidator(reply.Data))
		require.NoError(t, err, "%s: %s", subject, reply.Data)
		require.Contains(t, kind, "io.nats.micro.v1.")
	}
}

// rawValidator holds a message, as it travelled, against NATS's own schema of its type.
type rawValidator []byte

func (raw rawValidator) ValidateStruct(_ any, kind string) (bool, []string) {
	schema, err := registry.Schema(kind)
	if err != nil {
		return false, []string{err.Error()}
	}
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		return false, []string{err.Error()}
	}
	message, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return false, []string{err.Error()}
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource(kind, parsed); err != nil {
		return false, []string{err.Error()}
	}
	compiled, err := compiler.Compile(kind)
	if err != nil {
		return false, []string{err.Error()}
	}
	if err := compiled.Validate(message); err != nil {
		return false, []string{err.Error()}
	}
	return true, nil
}

func TestDiscoveryIsTrue(t *testing.T) {
	t.Parallel()
	nc := rawConn(t, discoverable(t))
	reply, err := nc.Request("$SRV.STATS.morello.one", nil, 5*time.Second)
	require.NoError(t, err)
	var stats micro.Stats
	require.NoError(t, json.Unmarshal(reply.Data, &stats))
	require.Len(t, stats.Endpoints, 2)
	get, remove := stats.Endpoints[0], stats.Endpoints[1]
	require.Equal(t, "cache-get", get.Name)
	require.Equal(t, "morello.v1.*.cache.get", get.Subject)
	require.Equal(t, 2, get.NumRequests)
	require.Equal(t, 0, get.NumErrors)
	require.Positive(t, get.ProcessingTime)
	require.Equal(t, get.ProcessingTime/2, get.AverageProcessingTime)
	require.Equal(t, 1, remove.NumRequests)
	require.Equal(t, 1, remove.NumErrors)
	require.Equal(t, "invalid: key: is not to my liking", remove.LastError)

	reply, err = nc.Request("$SRV.INFO.morello.one", nil, 5*time.Second)
	require.NoError(t, err)
	var info micro.Info
	require.NoError(t, json.Unmarshal(reply.Data, &info))
	require.Equal(t, "1.2.3", info.Version)
	require.Equal(t, messages.QueueGroup, info.Endpoints[0].QueueGroup)
	require.JSONEq(t, messages.RequestSchema("cache.get"), info.Endpoints[0].Metadata["request_schema"])
	require.JSONEq(t, messages.ReplySchema("cache.get"), info.Endpoints[0].Metadata["reply_schema"])
	require.NotContains(t, info.Endpoints[0].Metadata, "request_content_type")
}

// TestDiscoveryOfRawBytes: the schemas are of the headers, so the content type stands beside them.
func TestDiscoveryOfRawBytes(t *testing.T) {
	t.Parallel()
	_, _, url := serve(t, bus.ServerConfig{}, bus.Bind(messages.TransferPutEndpoint, receivePart), bus.Bind(messages.TransferGetEndpoint, repeatPart))
	reply, err := rawConn(t, url).Request("$SRV.INFO.morello.one", nil, 5*time.Second)
	require.NoError(t, err)
	var info micro.Info
	require.NoError(t, json.Unmarshal(reply.Data, &info))
	put, get := info.Endpoints[0].Metadata, info.Endpoints[1].Metadata
	require.Equal(t, "application/octet-stream", put["request_content_type"])
	require.NotContains(t, put, "reply_content_type")
	require.Equal(t, "application/octet-stream", get["reply_content_type"])
	require.NotContains(t, get, "request_content_type")
}

func TestNATSCommandShowsTheService(t *testing.T) {
	t.Parallel()
	url, cli := discoverable(t), devtest.Tool(t, natsCLI)
	for _, test := range []struct {
		args []string
		want []string
	}{
		{[]string{"micro", "ls"}, []string{"morello", "1.2.3", "one"}},
		{[]string{"micro", "info", "morello"}, []string{"cache-get", "morello.v1.*.cache.get", "request_schema"}},
		{[]string{"micro", "stats", "morello"}, []string{"one", "cache-get", "cache-delete"}},
	} {
		command := exec.CommandContext(t.Context(), cli, append([]string{"--server", url}, test.args...)...)
		command.Env = append(command.Environ(), "HOME="+t.TempDir(), "XDG_CONFIG_HOME="+t.TempDir())
		output, err := command.CombinedOutput()
		require.NoError(t, err, string(output))
		for _, want := range test.want {
			require.Contains(t, string(output), want)
		}
	}
}

func TestControl(t *testing.T) {
	t.Parallel()
	_, conn, url := serve(t, bus.ServerConfig{Instance: "first"})
	startServer(t, url, bus.ServerConfig{Instance: "second", Program: "worker", Version: "1.2.3"})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()

	answers, err := conn.Control(ctx, messages.ControlAll, messages.ControlPing, 2)
	require.NoError(t, err)
	instances := map[string]bool{}
	for _, answer := range answers {
		var pong messages.ControlPong
		require.NoError(t, messages.DecodeReply(answer, &pong))
		instances[pong.Instance] = true
	}
	require.Equal(t, map[string]bool{"first": true, "second": true}, instances)

	answers, err = conn.Control(ctx, "second", messages.ControlPing, 1)
	require.NoError(t, err)
	require.Len(t, answers, 1)

	_, err = conn.Control(ctx, "second", "dance", 1)
	require.Equal(t, messages.CodeNotFound, failure(t, err).Code)

	short, cancelShort := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancelShort()
	answers, err = conn.Control(short, messages.ControlAll, messages.ControlPing, 3)
	require.ErrorContains(t, err, "2 of 3 workers answered")
	require.Len(t, answers, 2)
}
