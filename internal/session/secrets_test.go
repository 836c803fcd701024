package session_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/bus/bustest"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/session"
	"github.com/ai-cherry/morello/messages"
)

// events is a service whose events are kept in a stream of its own.
type events struct {
	fixture
	*bustest.Events
}

func newEvents(t *testing.T, log *slog.Logger) events {
	t.Helper()
	published, database := bustest.NewEvents(t, log), devtest.Database(t)
	return events{fixture{newService(t, database, session.Config{Events: published.Publisher}), database, connect(t, database)}, published}
}

// TestEvents: each change is told once, by ids; a repetition and a change of nothing are not.
func TestEvents(t *testing.T) {
	t.Parallel()
	e := newEvents(t, slog.New(slog.DiscardHandler))
	create := messages.SessionCreate{UserID: "u", AgentID: "a", Data: []byte(`{"secret":"data"}`), MaxPerUser: new(2)}
	var ids []string
	var last messages.SessionCreateReply
	for range 2 {
		var err error
		last, err = e.Create(keyed(t.Context(), "k", 1), tenant, create)
		require.NoError(t, err)
	}
	ids = append(ids, last.Session.SessionID)
	for range 2 { // the second evicts the first session
		last = e.create(t, create)
		ids = append(ids, last.Session.SessionID)
	}
	next := e.rotate(t, last.Token, 0)
	e.update(t, messages.SessionUpdate{SessionID: ids[1]})
	for range 2 {
		_, err := e.BulkDelete(t.Context(), tenant, messages.SessionBulkDelete{SessionIDs: ids[:2]})
		require.NoError(t, err)
	}
	_, err := e.open(t, next)
	require.NoError(t, err)
	for range 2 {
		_, err = e.open(t, last.Token)
		requireGone(t, err)
	}
	bare := e.create(t, messages.SessionCreate{TTLSeconds: new(1.0)}).Session.SessionID
	e.age(t, bare, 2*time.Second)
	for range 2 {
		_, err = e.CleanupInactive(t.Context(), tenant, messages.SessionCleanupInactive{})
		require.NoError(t, err)
	}
	one := func(i int) string { return `{"session_id":"` + ids[i] + `","user_id":"u","agent_id":"a"}` }
	const prefix = "morello.events.v1.acme.session."
	require.Equal(t, []string{
		prefix + "created " + one(0), prefix + "created " + one(1),
		prefix + `deleted {"sessions":[` + one(0) + `]}`, prefix + "created " + one(2),
		prefix + "rotated " + one(2),
		prefix + `deleted {"sessions":[` + one(1) + `]}`,
		prefix + "token_reused " + one(2),
		prefix + `created {"session_id":"` + bare + `"}`,
		prefix + `expired {"sessions":[{"session_id":"` + bare + `"}]}`,
	}, e.All(t))
}

// lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// TestTokensAreNowhere: after everything that is done with tokens, and goes wrong with them, they are in no row of any table, no
// event, no log and no error, neither as sent nor as bytes.
func TestTokensAreNowhere(t *testing.T) {
	t.Parallel()
	log := &lockedBuffer{}
	e := newEvents(t, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	var tokens []string
	var errs []string
	made, err := e.Create(keyed(t.Context(), "create", 1), tenant, messages.SessionCreate{UserID: "u"})
	require.NoError(t, err)
	rotated, err := e.Rotate(keyed(t.Context(), "rotate", 1), tenant, messages.SessionRotate{Token: made.Token})
	require.NoError(t, err)
	tokens = append(tokens, made.Token, rotated.Token, e.rotate(t, rotated.Token, 0))
	for _, token := range append(tokens, tokens[0], "A"+tokens[1]) {
		_, err := e.open(t, token)
		_, err2 := e.Rotate(t.Context(), tenant, messages.SessionRotate{Token: token})
		for _, err := range []error{err, err2} {
			if err != nil {
				errs = append(errs, err.Error())
			}
		}
	}
	require.NotEmpty(t, errs)
	haystack := strings.Join(append(append(e.All(t), errs...), log.text.String(), dump(t, e.db)), "\n")
	for _, token := range tokens {
		secret, err := base64.RawURLEncoding.DecodeString(token)
		require.NoError(t, err)
		for _, needle := range []string{token, token[:20], hex.EncodeToString(secret), hex.EncodeToString([]byte(token)), base64.StdEncoding.EncodeToString(secret)} {
			require.NotContains(t, haystack, needle)
		}
	}
	hash := sha256.Sum256([]byte(made.Token))
	require.Contains(t, haystack, hex.EncodeToString(hash[:]), "the dump shows what is stored")
	require.Contains(t, haystack, "session.rotated", "events are looked at")
}

// dump returns every row of every table of ours as text.
func dump(t *testing.T, db *pgx.Conn) string {
	t.Helper()
	rows, err := db.Query(t.Context(), `SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('morello', 'river')`)
	require.NoError(t, err)
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	var text strings.Builder
	for _, table := range tables {
		rows, err := db.Query(t.Context(), `SELECT t::text FROM `+table+` AS t`)
		require.NoError(t, err)
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		text.WriteString(table + "\n" + strings.Join(lines, "\n") + "\n")
	}
	return text.String()
}
