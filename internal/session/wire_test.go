package session_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/session"
	"github.com/ai-cherry/morello/messages"
)

// TestWrongTokensRunTheSameStatements: whatever is wrong with a token, what is sent to PostgreSQL is one execution of the statement
// for current tokens and one of that for any, of the same length. The current token of a live session needs the first alone.
func TestWrongTokensRunTheSameStatements(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	wire := newWire(t, f.url)
	service := newService(t, wire.url, session.Config{})
	login := func(of string) messages.SessionCreateReply {
		reply, err := f.Create(t.Context(), of, messages.SessionCreate{UserID: "u"})
		require.NoError(t, err)
		return reply
	}
	live, expired, marked, deleted, rotated, foreign := login(tenant), login(tenant), login(tenant), login(tenant), login(tenant), login("evil")
	f.age(t, expired.Session.SessionID, 48*time.Hour)
	f.age(t, marked.Session.SessionID, 48*time.Hour)
	f.exec(t, `UPDATE morello.session SET ended_at = expires_at WHERE session_id = $1`, marked.Session.SessionID)
	_, err := f.Delete(t.Context(), tenant, messages.SessionDelete{SessionID: deleted.Session.SessionID})
	require.NoError(t, err)
	replaced := f.rotate(t, rotated.Token, 30)
	f.rotate(t, rotated.Token, 30)

	look := func(token string) ([]string, error) {
		before := len(wire.sent())
		_, err := service.GetByToken(t.Context(), tenant, messages.SessionGetByToken{Token: token})
		return wire.sent()[before:], err
	}
	_, err = look("the first prepares the statements")
	requireGone(t, err)
	right, err := look(live.Token)
	require.NoError(t, err)
	require.Len(t, right, 3, "bind, execute, sync")
	want, err := look(strings.Repeat("A", 43))
	requireGone(t, err)
	require.Len(t, want, 6, "twice")
	require.Equal(t, right, want[:3])
	require.NotEqual(t, right[0], want[3])
	for name, token := range map[string]string{
		"unknown": live.Token[1:] + "A", "malformed": "'; DROP TABLE", "expired": expired.Token, "expired and marked": marked.Token,
		"deleted": deleted.Token, "replaced": replaced, "another tenant's": foreign.Token, "long": fmt.Sprintf("%0100000d", 7),
	} {
		sent, err := look(token)
		requireGone(t, err)
		require.Equal(t, want, sent, name)
	}
}

// wire is a way to PostgreSQL on which each message is noted before it is passed on.
type wire struct {
	url   string
	mu    sync.Mutex
	noted []string
}

func newWire(t *testing.T, databaseURL string) *wire {
	t.Helper()
	server, err := url.Parse(databaseURL)
	require.NoError(t, err)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	through := *server
	through.Host = listener.Addr().String()
	w := &wire{url: through.String()}
	var passing sync.WaitGroup
	passing.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return // closed, at the end of the test
			}
			passing.Go(func() { w.pass(t.Context(), client, server.Host) })
		}
	})
	t.Cleanup(func() {
		require.NoError(t, listener.Close())
		passing.Wait()
	})
	return w
}

// pass passes on what one connection says until an end of it closes.
func (w *wire) pass(ctx context.Context, client net.Conn, address string) {
	defer func() { _ = client.Close() }()
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return
	}
	var answers sync.WaitGroup
	answers.Go(func() {
		_, _ = client.(*net.TCPConn).ReadFrom(server)
		_ = client.Close()
	})
	defer answers.Wait()
	defer func() { _ = server.Close() }()
	backend := pgproto3.NewBackend(client, client)
	startup, err := backend.ReceiveStartupMessage()
	if err != nil || send(server, startup) != nil {
		return
	}
	for {
		message, err := backend.Receive()
		if err != nil {
			return
		}
		w.note(message)
		if send(server, message) != nil {
			return
		}
	}
}

func send(server net.Conn, message pgproto3.FrontendMessage) error {
	bytes, err := message.Encode(nil)
	if err == nil {
		_, err = server.Write(bytes)
	}
	return err
}

// note notes the kind of a message, its length, and the statement that it names.
func (w *wire) note(message pgproto3.FrontendMessage) {
	bytes, _ := message.Encode(nil)
	text := fmt.Sprintf("%T of %d bytes", message, len(bytes))
	if bind, ok := message.(*pgproto3.Bind); ok {
		text += " of " + bind.PreparedStatement
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noted = append(w.noted, text)
}

func (w *wire) sent() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.noted...)
}
