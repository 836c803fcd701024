package messages_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/messages"
)

func TestTransfersAreValidated(t *testing.T) {
	t.Parallel()
	const id = "0196f3c2-7b1e-7c3a-9f0e-0f6a3d1c2b4a"
	for _, c := range []struct {
		request interface{ Validate() error }
		field   string
	}{
		{messages.TransferPut{TransferID: id, Part: -1, Data: []byte("x")}, "Morello-Part"},
		{messages.TransferPut{TransferID: id, Part: messages.MaxTransferParts, Data: []byte("x")}, "Morello-Part"},
		{messages.TransferGet{}, "transfer_id"},
		{messages.TransferGet{TransferID: "x"}, "transfer_id"},
		{messages.TransferGet{TransferID: id, Part: -1}, "part"},
		{messages.TransferGet{TransferID: id, Part: messages.MaxTransferParts}, "part"},
		{messages.TransferDelete{}, "transfer_id"},
		{messages.TransferDelete{TransferID: "x"}, "transfer_id"},
		{messages.SystemJobGet{}, "job_id"},
		{messages.SystemJobCancel{JobRef: messages.JobRef{JobID: -1}}, "job_id"},
		{messages.SystemJobList{Tenant: "A"}, "tenant"},
		{messages.SystemJobList{Kind: "\x00"}, "kind"},
	} {
		known := messages.AsError(c.request.Validate())
		require.Equal(t, messages.CodeInvalid, known.Code, "%+v", c.request)
		require.Equal(t, c.field, known.Details.Field, "%+v", c.request)
	}
}

// TestRawTable: the table knows the headers of raw bytes, and of nothing else.
func TestRawTable(t *testing.T) {
	t.Parallel()
	raw := map[string][2][]string{
		"transfer.put": {{"Morello-Part", "Morello-Transfer"}, nil},
		"transfer.get": {nil, {"Morello-Parts"}},
	}
	for _, e := range messages.Endpoints() {
		require.Equal(t, raw[e.Name], [2][]string{e.RawRequest, e.RawReply}, e.Name)
		require.True(t, e.Mutates || !e.Idempotent, "%s: what changes nothing is idempotent anyway", e.Name)
	}
}

func TestRepeatable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		endpoint     messages.EndpointInfo
		plain, keyed bool
	}{
		{messages.EndpointInfo{}, true, true},
		{messages.EndpointInfo{Mutates: true}, false, true},
		{messages.EndpointInfo{Mutates: true, Idempotent: true}, true, true},
	} {
		require.Equal(t, c.plain, c.endpoint.Repeatable(false))
		require.Equal(t, c.keyed, c.endpoint.Repeatable(true))
	}
}
