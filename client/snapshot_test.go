package client_test

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/client"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/messages"
)

// scripted answers requests of a tenant with what answer returns.
func scripted[Req, Reply any](t *testing.T, natsURL string, endpoint messages.Endpoint[Req, Reply], answer func(Req) Reply) {
	t.Helper()
	nc, err := nats.Connect(natsURL)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	_, err = nc.Subscribe(endpoint.Info().WorkerSubject(), func(msg *nats.Msg) {
		var request Req
		if err := messages.UnpackRequest(msg.Data, msg.Header.Get, &request); err != nil {
			t.Error(err)
		}
		body, headers, err := messages.Pack(answer(request))
		if err != nil {
			t.Error(err)
		}
		reply := &nats.Msg{Subject: msg.Reply, Data: body, Header: nats.Header{}}
		for name, value := range headers {
			reply.Header.Set(name, value)
		}
		if err := nc.PublishMsg(reply); err != nil {
			t.Error(err)
		}
	})
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
}

// parts keeps transfers in memory.
type parts struct {
	mu      sync.Mutex
	stored  map[string]map[int][]byte
	deleted []string
}

func (p *parts) document(id string) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	var document []byte
	for i := range len(p.stored[id]) {
		document = append(document, p.stored[id][i]...)
	}
	return document
}

func startParts(t *testing.T, natsURL string) *parts {
	t.Helper()
	p := &parts{stored: map[string]map[int][]byte{}}
	scripted(t, natsURL, messages.TransferPutEndpoint, func(m messages.TransferPut) messages.TransferPutReply {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.stored[m.TransferID] == nil {
			p.stored[m.TransferID] = map[int][]byte{}
		}
		p.stored[m.TransferID][m.Part] = bytes.Clone(m.Data)
		return messages.TransferPutReply{ReceivedBytes: len(m.Data)}
	})
	scripted(t, natsURL, messages.TransferGetEndpoint, func(m messages.TransferGet) messages.TransferGetReply {
		p.mu.Lock()
		defer p.mu.Unlock()
		return messages.TransferGetReply{Parts: len(p.stored[m.TransferID]), Data: p.stored[m.TransferID][m.Part]}
	})
	scripted(t, natsURL, messages.TransferDeleteEndpoint, func(m messages.TransferDelete) messages.TransferDeleteReply {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.deleted = append(p.deleted, m.TransferID)
		return messages.TransferDeleteReply{Deleted: true}
	})
	return p
}

// TestSnapshotCreateUploads: data of up to 4 MiB go in the request, larger ones as a transfer that is deleted afterwards.
func TestSnapshotCreateUploads(t *testing.T) {
	t.Parallel()
	natsURL := devtest.NATS(t).URL()
	p := startParts(t, natsURL)
	var got []messages.SnapshotCreate
	var uploaded []byte
	scripted(t, natsURL, messages.SnapshotCreateEndpoint, func(m messages.SnapshotCreate) messages.SnapshotReply {
		got = append(got, m)
		if m.DataTransferID != "" {
			uploaded = p.document(m.DataTransferID)
		}
		return messages.SnapshotReply{Snapshot: messages.Snapshot{SnapshotID: "s"}}
	})
	c, ctx := connect(t, client.Config{URL: natsURL}).Snapshot(), t.Context()
	small := []byte(`"` + strings.Repeat("a", 4<<20-2) + `"`)
	large := []byte(`"` + strings.Repeat("b", 4<<20-1) + `"`)

	reply, err := c.Create(ctx, messages.SnapshotCreate{AgentID: "a", Data: small})
	require.NoError(t, err)
	require.Equal(t, "s", reply.Snapshot.SnapshotID)
	require.Len(t, got[0].Data, 4<<20)
	require.Empty(t, p.stored)

	for range 2 {
		_, err = c.Create(ctx, messages.SnapshotCreate{AgentID: "a", Label: "l", Data: large})
		require.NoError(t, err)
		require.True(t, bytes.Equal(large, uploaded))
	}
	_, err = c.Create(client.WithIdempotencyKey(ctx, "k"), messages.SnapshotCreate{AgentID: "a", Data: large})
	require.NoError(t, err)
	_, err = c.Create(client.WithIdempotencyKey(ctx, "k"), messages.SnapshotCreate{AgentID: "a", Data: large})
	require.NoError(t, err)
	_, err = c.Create(client.WithIdempotencyKey(ctx, "l"), messages.SnapshotCreate{AgentID: "a", Data: large})
	require.NoError(t, err)
	require.Len(t, got, 6)
	require.Empty(t, got[1].Data)
	require.Equal(t, "l", got[1].Label)
	require.NotEqual(t, got[1].DataTransferID, got[2].DataTransferID)
	require.Equal(t, got[3], got[4], "the same key, the same request")
	require.NotEqual(t, got[4].DataTransferID, got[5].DataTransferID)
	var sent []string
	for _, m := range got[1:] {
		sent = append(sent, m.DataTransferID)
	}
	require.Equal(t, sent, p.deleted)

	_, err = c.Create(ctx, messages.SnapshotCreate{Data: large})
	requireCode(t, messages.CodeInvalid, err)
	require.Len(t, p.deleted, 5, "what is invalid is not uploaded")
}

// TestSnapshotGetDownloads: data that are too large for the reply look like data that are not.
func TestSnapshotGetDownloads(t *testing.T) {
	t.Parallel()
	natsURL := devtest.NATS(t).URL()
	p := startParts(t, natsURL)
	document := []byte(`"` + strings.Repeat("c", 1<<20) + `"`)
	for i, part := range slices.Collect(slices.Chunk(document, messages.TransferPartBytes)) {
		if i == 0 {
			p.stored[snapshotTransfer] = map[int][]byte{}
		}
		p.stored[snapshotTransfer][i] = part
	}
	offered := offer(snapshotTransfer, document)
	scripted(t, natsURL, messages.SnapshotGetEndpoint, func(m messages.SnapshotGet) messages.SnapshotDataReply {
		if m.Path != "" {
			return messages.SnapshotDataReply{Data: []byte("1.0")}
		}
		return messages.SnapshotDataReply{Snapshot: messages.Snapshot{SnapshotID: m.SnapshotID}, DataTransfer: &offered}
	})
	scripted(t, natsURL, messages.SnapshotLatestEndpoint, func(m messages.SnapshotLatest) messages.SnapshotDataReply {
		broken := offered
		broken.SHA256 = strings.Repeat("0", 64)
		if m.AgentID == "damaged" {
			return messages.SnapshotDataReply{DataTransfer: &broken}
		}
		return messages.SnapshotDataReply{DataTransfer: &offered}
	})
	c, ctx := connect(t, client.Config{URL: natsURL}).Snapshot(), t.Context()
	reply, err := c.Get(ctx, messages.SnapshotGet{SnapshotID: snapshotTransfer})
	require.NoError(t, err)
	require.True(t, bytes.Equal(document, reply.Data))
	require.Nil(t, reply.DataTransfer)
	require.Equal(t, snapshotTransfer, reply.Snapshot.SnapshotID)
	require.Equal(t, []string{snapshotTransfer}, p.deleted)
	reply, err = c.Get(ctx, messages.SnapshotGet{SnapshotID: snapshotTransfer, Path: "/a"})
	require.NoError(t, err)
	require.Equal(t, "1.0", string(reply.Data))
	reply, err = c.Latest(ctx, messages.SnapshotLatest{AgentID: "a"})
	require.NoError(t, err)
	require.True(t, bytes.Equal(document, reply.Data))
	reply, err = c.Latest(ctx, messages.SnapshotLatest{AgentID: "damaged"})
	requireCode(t, messages.CodeInternal, err)
	require.Zero(t, reply, "never half an answer")
}

const snapshotTransfer = "019a52f0-1bff-7ddd-9f0e-0f6a3d1c2b4a"

// TestSnapshotOfAnySize goes through a real worker: what is stored comes back.
func TestSnapshotOfAnySize(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t, client.Config{URL: startStack(t)}), t.Context()
	for _, size := range []int{10, 5 << 20, 9 << 20} {
		data := []byte(`{"n":1.0,"text":"` + strings.Repeat("x", size) + `"}`)
		made, err := c.Snapshot().Create(ctx, messages.SnapshotCreate{AgentID: "a", Data: data})
		require.NoError(t, err)
		require.EqualValues(t, len(data), made.Snapshot.SizeBytes)
		got, err := c.Snapshot().Get(ctx, messages.SnapshotGet{SnapshotID: made.Snapshot.SnapshotID})
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, got.Data))
		got, err = c.Snapshot().Latest(ctx, messages.SnapshotLatest{AgentID: "a"})
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, got.Data))
		got, err = c.Snapshot().Get(ctx, messages.SnapshotGet{SnapshotID: made.Snapshot.SnapshotID, Path: "/n"})
		require.NoError(t, err)
		require.Equal(t, "1.0", string(got.Data))
	}
}
