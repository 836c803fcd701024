package worker_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/client"
	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/messages"
)

// conversation makes a document of a size, of turns with words in them.
func conversation(size int) []byte {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same document each time
	words := make([]string, 5000)
	for i := range words {
		words[i] = strconv.FormatUint(random.Uint64N(36*36*36*36*36), 36)
	}
	document := append(make([]byte, 0, size), `{"turns":[`...)
	for turn := 0; len(document) < size-8<<10; turn++ {
		document = fmt.Appendf(document, `{"turn":%d,"role":"agent","score":%d.50,"text":"`, turn, random.IntN(10))
		for range 5 + random.IntN(400) {
			document = append(append(document, words[random.IntN(len(words))]...), ' ')
		}
		document = append(document, `"},`...)
	}
	document = append(document, `{}],"rest":"`...)
	document = append(document, bytes.Repeat([]byte{'x'}, size-len(document)-2)...)
	return append(document, `"}`...)
}

// vectors makes a document of a size that is all numbers.
func vectors(size int) []byte {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same document each time
	document := append(make([]byte, 0, size), `{"vectors":[[`...)
	for i := 1; len(document) < size-1<<10; i++ {
		document = strconv.AppendFloat(document, random.NormFloat64(), 'f', 7, 64)
		if i%384 == 0 {
			document = append(document, ']', ',', '[')
			continue
		}
		document = append(document, ',')
	}
	document = append(document, `1.0]],"rest":"`...)
	document = append(document, bytes.Repeat([]byte{'x'}, size-len(document)-2)...)
	return append(document, `"}`...)
}

// TestLargestSnapshot: a document of 64 MiB goes in and out, equal to the byte, through a worker that has the memory for requests of
// one in 256 MiB, and needs less than four times the document. GOGC has little garbage left to be taken for need.
func TestLargestSnapshot(t *testing.T) {
	t.Parallel()
	const size, limit = messages.MaxSnapshotBytes, 256 << 20
	natsURL := devtest.NATS(t).URL()
	p := startProcess(t, devtest.Database(t), natsURL, "GOMEMLIMIT="+strconv.Itoa(limit/10*9), "GOGC=15")
	idle := p.peak(t)
	for _, round := range []struct {
		name     string
		document []byte
		send     func(t *testing.T, natsURL string, document []byte) []byte
	}{
		{"client", conversation(size), throughClient},
		{"plain", vectors(size), throughNATS},
	} {
		require.Len(t, round.document, size)
		begin := time.Now()
		got := round.send(t, natsURL, round.document)
		require.True(t, bytes.Equal(round.document, got))
		t.Logf("%s: %s, peak %d MiB above %d MiB", round.name, time.Since(begin).Round(time.Millisecond), (p.peak(t)-idle)>>20, idle>>20)
	}
	require.Less(t, p.peak(t)-idle, int64(4*size))
	require.NoError(t, p.command.Process.Signal(syscall.SIGTERM))
	require.NoError(t, <-p.ended)
}

// largeTimeout is for a document of 64 MiB on a machine that is busy with other tests.
const largeTimeout = time.Minute

func throughClient(t *testing.T, natsURL string, document []byte) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*largeTimeout)
	defer cancel()
	c, err := client.Connect(ctx, client.Config{URL: natsURL, Tenant: "acme", Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close(ctx)) }()
	made, err := c.Snapshot().Create(ctx, messages.SnapshotCreate{AgentID: "a", Data: document})
	require.NoError(t, err)
	require.EqualValues(t, len(document), made.Snapshot.SizeBytes)
	got, err := c.Snapshot().Latest(ctx, messages.SnapshotLatest{AgentID: "a"})
	require.NoError(t, err)
	return got.Data
}

// throughNATS does what docs/transfer.md says, with nothing but a NATS client.
func throughNATS(t *testing.T, natsURL string, document []byte) []byte {
	t.Helper()
	nc, err := nats.Connect(natsURL)
	require.NoError(t, err)
	defer nc.Close()
	request := func(operation string, headers nats.Header, body []byte) *nats.Msg {
		if headers == nil {
			headers = nats.Header{}
		}
		headers.Set("Morello-Timeout-Ms", strconv.FormatInt(largeTimeout.Milliseconds(), 10))
		reply, err := nc.RequestMsg(&nats.Msg{Subject: "morello.v1.acme." + operation, Header: headers, Data: body}, largeTimeout)
		require.NoError(t, err)
		require.Empty(t, reply.Header.Get("Nats-Service-Error-Code"), string(reply.Data))
		return reply
	}
	id := uuid.NewString()
	const part = 524288
	for i := 0; i*part < len(document); i++ {
		headers := nats.Header{"Morello-Transfer": {id}, "Morello-Part": {strconv.Itoa(i)}}
		request("transfer.put", headers, document[i*part:min((i+1)*part, len(document))])
	}
	request("snapshot.create", nil, fmt.Appendf(nil, `{"agent_id":"b","data_transfer_id":%q}`, id))
	request("transfer.delete", nil, fmt.Appendf(nil, `{"transfer_id":%q}`, id))
	var reply struct {
		Transfer struct {
			ID     string `json:"transfer_id"`
			Parts  int    `json:"parts"`
			SHA256 string `json:"sha256"`
		} `json:"data_transfer"`
	}
	require.NoError(t, json.Unmarshal(request("snapshot.latest", nil, []byte(`{"agent_id":"b"}`)).Data, &reply))
	got := make([]byte, 0, len(document))
	for i := range reply.Transfer.Parts {
		data := request("transfer.get", nil, fmt.Appendf(nil, `{"transfer_id":%q,"part":%d}`, reply.Transfer.ID, i))
		require.Equal(t, strconv.Itoa(reply.Transfer.Parts), data.Header.Get("Morello-Parts"))
		got = append(got, data.Data...)
	}
	hash := sha256.Sum256(got)
	require.Equal(t, reply.Transfer.SHA256, hex.EncodeToString(hash[:]))
	return got
}

// journal is the state of an agent that notes its turns.
type journal struct {
	Turns []string `json:"turns"`
	Rest  string   `json:"rest"`
}

// encoded is more than what goes into one chunk.
func (j journal) encoded(t *testing.T) []byte {
	t.Helper()
	j.Rest = "what the agent knows, which is the same in every state of its memory, and long enough to be a chunk of its own"
	data, err := json.Marshal(j)
	require.NoError(t, err)
	return data
}

// TestCompareAndSetLosesNoTurn: 20 writers, through two workers, each append turns of their own to one state by if_head. Of those
// that saw the same head exactly one goes on, the others are told which head there is, and no turn is lost.
func TestCompareAndSetLosesNoTurn(t *testing.T) {
	t.Parallel()
	const writers, rounds, turns = 20, 10, 10
	cfg := config.Config{DatabaseURL: devtest.Database(t), NATSURL: devtest.NATS(t).URL()}
	start(t, cfg)
	start(t, cfg)
	conn, ctx := connect(t, cfg.NATSURL), t.Context()
	create := func(head string, j journal) (messages.SnapshotReply, error) {
		request := messages.SnapshotCreate{AgentID: "a", Data: j.encoded(t), IfHead: head}
		return bus.Call(ctx, conn, messages.SnapshotCreateEndpoint, "acme", request)
	}
	// Rounds: all want the same head.
	head, state := messages.NoSnapshot, journal{}
	for round := range rounds {
		var winners sync.Map
		var won atomic.Int64
		told := make([]string, writers)
		var all sync.WaitGroup
		for writer := range writers {
			all.Go(func() {
				mine := journal{Turns: append(state.Turns[:len(state.Turns):len(state.Turns)], fmt.Sprint(round, "-", writer))}
				reply, err := create(head, mine)
				var failure *messages.Error
				switch {
				case err == nil:
					won.Add(1)
					winners.Store(reply.Snapshot.SnapshotID, mine)
				case errors.As(err, &failure) && failure.Code == messages.CodeConflict && failure.Details.Field == "if_head":
					told[writer] = failure.Details.SnapshotID
				default:
					t.Error(err)
				}
			})
		}
		all.Wait()
		require.EqualValues(t, 1, won.Load())
		winners.Range(func(id, mine any) bool { head, state = id.(string), mine.(journal); return true })
		for _, winner := range told {
			require.Contains(t, []string{head, ""}, winner)
		}
	}
	require.Len(t, state.Turns, rounds)

	// Loops: each reads, appends and tries again.
	latest := func() (string, journal) {
		reply, err := bus.Call(ctx, conn, messages.SnapshotLatestEndpoint, "acme", messages.SnapshotLatest{AgentID: "a"})
		require.NoError(t, err)
		var j journal
		require.NoError(t, json.Unmarshal(reply.Data, &j))
		return reply.Snapshot.SnapshotID, j
	}
	var all sync.WaitGroup
	var conflicts atomic.Int64
	for writer := range writers {
		all.Go(func() {
			for turn := range turns {
				for {
					head, j := latest()
					j.Turns = append(j.Turns, fmt.Sprint(rounds+turn, "-", writer))
					_, err := create(head, j)
					if err == nil {
						break
					}
					if messages.AsError(err).Code != messages.CodeConflict {
						t.Error(err)
						return
					}
					conflicts.Add(1)
				}
			}
		})
	}
	all.Wait()
	_, state = latest()
	require.Len(t, state.Turns, rounds+writers*turns)
	next := map[string]int{} // by writer
	for _, noted := range state.Turns[rounds:] {
		var turn int
		var writer string
		_, err := fmt.Sscanf(noted, "%d-%s", &turn, &writer)
		require.NoError(t, err)
		require.Equal(t, rounds+next[writer], turn, "writer %s", writer)
		next[writer]++
	}
	require.Len(t, next, writers)
	require.Positive(t, conflicts.Load(), "nobody met another")
	t.Logf("%d turns, %d conflicts", writers*turns, conflicts.Load())
}

// TestKilledPostgresLosesNoSnapshot: PostgreSQL, which writes to the disk before it answers, is killed at random moments under
// creations. Each that was acknowledged reads back afterwards, and so does the head of every agent: it is the last that was
// acknowledged, or a later one of which the answer was lost.
func TestKilledPostgresLosesNoSnapshot(t *testing.T) {
	t.Parallel()
	const snapshots, kills, agents = 3000, 3, 32
	server := devtest.ServerWithSettings(t, map[string]string{"fsync": "on", "synchronous_commit": "on"})
	cfg := config.Config{DatabaseURL: server.URL("morello"), NATSURL: devtest.NATS(t).URL()}
	start(t, cfg)
	conn, ctx := connect(t, cfg.NATSURL), t.Context()
	type acknowledged struct {
		id string
		messages.SnapshotCreate
	}
	known := make([][]acknowledged, agents) // of each agent, in their order
	tried := make([]string, agents)         // the last state that each agent sent
	var count, failed atomic.Int64
	var crowd sync.WaitGroup
	for agent := range agents {
		crowd.Go(func() {
			state := journal{}
			for turn := 0; count.Load() < snapshots; turn++ {
				state.Turns = append(state.Turns, fmt.Sprintf("agent %d, turn %d, %064d", agent, turn, rand.Uint64()))
				request := messages.SnapshotCreate{AgentID: fmt.Sprint(agent), Data: state.encoded(t)}
				tried[agent] = string(request.Data)
				reply, err := bus.Call(ctx, conn, messages.SnapshotCreateEndpoint, "acme", request)
				if err != nil {
					if messages.AsError(err).Code != messages.CodeUnavailable {
						t.Error(err)
					}
					failed.Add(1)
					continue
				}
				known[agent] = append(known[agent], acknowledged{reply.Snapshot.SnapshotID, request})
				count.Add(1)
			}
		})
	}
	for kill := range kills {
		at := int64(snapshots/(kills+1)*kill + rand.IntN(snapshots/(kills+1)))
		require.Eventually(t, func() bool { return count.Load() >= at }, time.Minute, time.Millisecond)
		require.NoError(t, server.Kill())
		require.NoError(t, server.Restart(ctx))
	}
	crowd.Wait()
	require.Positive(t, failed.Load(), "no creation met a kill")
	read := func(endpoint func() (messages.SnapshotDataReply, error)) messages.SnapshotDataReply {
		reply, err := endpoint()
		for err != nil && messages.AsError(err).Code == messages.CodeUnavailable { // a connection from before the last kill
			reply, err = endpoint()
		}
		if err != nil {
			t.Error(err)
		}
		return reply
	}
	for agent := range agents {
		crowd.Go(func() {
			for _, made := range known[agent] {
				got := read(func() (messages.SnapshotDataReply, error) {
					return bus.Call(ctx, conn, messages.SnapshotGetEndpoint, "acme", messages.SnapshotGet{SnapshotID: made.id})
				})
				if !bytes.Equal(made.Data, got.Data) {
					t.Errorf("agent %d: %s came back as another", agent, made.id)
				}
			}
			got := read(func() (messages.SnapshotDataReply, error) {
				return bus.Call(ctx, conn, messages.SnapshotLatestEndpoint, "acme", messages.SnapshotLatest{AgentID: fmt.Sprint(agent)})
			})
			last := known[agent][len(known[agent])-1]
			if got.Snapshot.SnapshotID != last.id && string(got.Data) != tried[agent] && len(got.Data) <= len(last.Data) {
				t.Errorf("agent %d: the head is %s, not %s", agent, got.Snapshot.SnapshotID, last.id)
			}
		})
	}
	crowd.Wait()
	t.Logf("%d acknowledged, %d failed", count.Load(), failed.Load())
}
