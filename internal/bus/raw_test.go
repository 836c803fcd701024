package bus_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/messages"
)

const transferID = "0196f3c2-7b1e-7c3a-9f0e-0f6a3d1c2b4a"

func receivePart(_ context.Context, _ string, m messages.TransferPut) (messages.TransferPutReply, error) {
	return messages.TransferPutReply{ReceivedBytes: len(m.Data)}, nil
}

// repeatPart answers with the request as bytes.
func repeatPart(_ context.Context, tenant string, m messages.TransferGet) (messages.TransferGetReply, error) {
	return messages.TransferGetReply{Parts: 7, Data: fmt.Appendf(nil, "\x00\xff%s %s %d", tenant, m.TransferID, m.Part)}, nil
}

// TestRawBytes: bytes and headers pass as they are, in both directions.
func TestRawBytes(t *testing.T) {
	t.Parallel()
	puts := make(chan messages.TransferPut, 1)
	_, conn, url := serve(t, bus.ServerConfig{}, bus.Bind(messages.TransferGetEndpoint, repeatPart), bus.Bind(messages.TransferPutEndpoint,
		func(ctx context.Context, tenant string, m messages.TransferPut) (messages.TransferPutReply, error) {
			puts <- m
			return receivePart(ctx, tenant, m)
		}))
	put := messages.TransferPut{TransferID: transferID, Part: 3, Data: []byte("{\"not\": JSON \x00\xff")}
	received, err := bus.Call(t.Context(), conn, messages.TransferPutEndpoint, "acme", put)
	require.NoError(t, err)
	require.Equal(t, len(put.Data), received.ReceivedBytes)
	require.Equal(t, put, <-puts)
	got, err := bus.Call(t.Context(), conn, messages.TransferGetEndpoint, "acme", messages.TransferGet{TransferID: transferID, Part: 2})
	require.NoError(t, err)
	require.Equal(t, messages.TransferGetReply{Parts: 7, Data: []byte("\x00\xffacme " + transferID + " 2")}, got)

	reply, err := rawConn(t, url).Request("morello.v1.acme.transfer.get", []byte(`{"transfer_id":"`+transferID+`"}`), 5*time.Second)
	require.NoError(t, err)
	require.Equal(t, nats.Header{"Morello-Parts": {"7"}}, reply.Header)
}

// TestRawHeadersAreChecked: what is missing or malformed is invalid and names the header; a body over the limit is too_large.
func TestRawHeadersAreChecked(t *testing.T) {
	t.Parallel()
	_, conn, _ := serve(t, bus.ServerConfig{}, bus.Bind(messages.TransferPutEndpoint, receivePart))
	for _, c := range []struct {
		id, part string
		size     int
		code     messages.Code
		field    string
	}{
		{transferID, "0", messages.TransferPartBytes, "", ""},
		{transferID, "65535", 1, "", ""},
		{"", "0", 1, messages.CodeInvalid, "Morello-Transfer"},
		{"no-uuid", "0", 1, messages.CodeInvalid, "Morello-Transfer"},
		{"{" + transferID + "}", "0", 1, messages.CodeInvalid, "Morello-Transfer"},
		{transferID, "", 1, messages.CodeInvalid, "Morello-Part"},
		{transferID, "-1", 1, messages.CodeInvalid, "Morello-Part"},
		{transferID, "1.5", 1, messages.CodeInvalid, "Morello-Part"},
		{transferID, "one", 1, messages.CodeInvalid, "Morello-Part"},
		{transferID, "65536", 1, messages.CodeInvalid, "Morello-Part"},
		{transferID, "99999999999999999999", 1, messages.CodeInvalid, "Morello-Part"},
		{transferID, "0", 0, messages.CodeInvalid, ""},
		{transferID, "0", messages.TransferPartBytes + 1, messages.CodeTooLarge, ""},
	} {
		headers := bus.Headers{Raw: map[string]string{"Morello-Transfer": c.id, "Morello-Part": c.part}}
		_, err := conn.CallRaw(t.Context(), messages.TransferPutEndpoint.Info(), "acme", make([]byte, c.size), headers)
		if c.code == "" {
			require.NoError(t, err)
			continue
		}
		require.Equal(t, c.code, failure(t, err).Code, "%+v", c)
		require.Equal(t, c.field, failure(t, err).Details.Field, "%+v", c)
	}
}

// TestRawFingerprint: with an idempotency key, another part of the same bytes is another request.
func TestRawFingerprint(t *testing.T) {
	t.Parallel()
	prints := make(chan [32]byte, 1)
	_, conn, _ := serve(t, bus.ServerConfig{}, bus.Bind(messages.TransferPutEndpoint,
		func(ctx context.Context, tenant string, m messages.TransferPut) (messages.TransferPutReply, error) {
			prints <- messages.CallFrom(ctx).Fingerprint
			return receivePart(ctx, tenant, m)
		}))
	of := func(part, body string) [32]byte {
		headers := bus.Headers{IdempotencyKey: "once", Raw: map[string]string{"Morello-Transfer": transferID, "Morello-Part": part}}
		_, err := conn.CallRaw(t.Context(), messages.TransferPutEndpoint.Info(), "acme", []byte(body), headers)
		require.NoError(t, err)
		return <-prints
	}
	require.Equal(t, of("1", "same"), of("1", "same"))
	require.NotEqual(t, of("1", "same"), of("2", "same"))
	require.NotEqual(t, of("1", "same"), of("1", "other"))
}

// TestIdempotentChangesMayBeRepeated: a failure that leaves the outcome open says that an idempotent change may come again.
func TestIdempotentChangesMayBeRepeated(t *testing.T) {
	t.Parallel()
	_, _, url := serve(t, bus.ServerConfig{}, bus.Bind(messages.TransferDeleteEndpoint,
		func(context.Context, string, messages.TransferDelete) (messages.TransferDeleteReply, error) {
			return messages.TransferDeleteReply{}, messages.Unavailable("away", messages.OutcomeUnknown, nil)
		}))
	reply, err := rawConn(t, url).Request("morello.v1.acme.transfer.delete", []byte(`{"transfer_id":"`+transferID+`"}`), 5*time.Second)
	require.NoError(t, err)
	require.Contains(t, string(reply.Data), `"retryable":true`)
}
