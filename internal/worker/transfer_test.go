package worker_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/client"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/messages"
)

// TestLargeDocuments: two tenants each send a document of 64 MiB and read it back, at once, through a worker of 256 MiB.
func TestLargeDocuments(t *testing.T) {
	t.Parallel()
	const size, limit = 64 << 20, 256 << 20
	natsURL := devtest.NATS(t).URL()
	p := startProcess(t, devtest.Database(t), natsURL, "GOMEMLIMIT="+strconv.Itoa(limit))
	document := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(document) // it never fails
	hash := sha256.Sum256(document)
	offered := messages.DataTransfer{Parts: 128, SizeBytes: size, SHA256: hex.EncodeToString(hash[:])}
	var all sync.WaitGroup
	for _, tenant := range []string{"a", "b"} {
		c, err := client.Connect(t.Context(), client.Config{URL: natsURL, Tenant: tenant, Log: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		all.Go(func() {
			offered := offered
			if offered.TransferID, err = c.Transfer().Upload(t.Context(), bytes.NewReader(document)); err != nil {
				t.Error(err)
			}
			got, err := c.Transfer().Download(t.Context(), offered)
			if err != nil || !bytes.Equal(document, got) {
				t.Errorf("another document came back: %v", err)
			}
			if err := c.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	t.Logf("peak %d MiB", p.peak(t)>>20)
	require.Less(t, p.peak(t), int64(limit))
	require.NoError(t, p.command.Process.Signal(syscall.SIGTERM))
	require.NoError(t, <-p.ended)
}
