package session_test

import (
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/session"
	"github.com/ai-cherry/morello/messages"
)

func (f fixture) requireOpens(t *testing.T, token, id string) {
	t.Helper()
	s, err := f.open(t, token)
	require.NoError(t, err)
	require.Equal(t, id, s.SessionID)
}

// requireCurrentTokens: each live session has the hash of its current token in its row: of the one used token that nothing ends.
func (f fixture) requireCurrentTokens(t *testing.T) {
	t.Helper()
	require.Zero(t, f.count(t, `
		SELECT count(*) FROM morello.session AS s WHERE s.ended_at IS NULL AND s.current_token IS DISTINCT FROM (
			SELECT t.token_hash FROM morello.session_token AS t
			WHERE t.tenant = s.tenant AND t.session_id = s.session_id AND t.used AND t.valid_until = 'infinity')`))
}

// TestRotation walks through the life of two tokens.
func TestRotation(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	made := f.create(t, messages.SessionCreate{UserID: "u"})
	id := made.Session.SessionID
	next := f.rotate(t, made.Token, 30)
	require.NotEqual(t, made.Token, next)
	f.age(t, id, 12*time.Hour)
	f.requireOpens(t, made.Token, id) // the old one, as long as the new one has not been used
	f.requireCurrentTokens(t)
	f.requireOpens(t, next, id) // its first use
	f.requireCurrentTokens(t)
	f.age(t, id, 25*time.Second)
	f.requireOpens(t, made.Token, id) // within the grace
	f.requireOpens(t, next, id)
	f.age(t, id, 10*time.Second)
	f.requireOpens(t, next, id)
	require.Equal(t, messages.SessionLive, f.get(t, id).State)

	_, err := f.open(t, made.Token) // reuse
	requireGone(t, err)
	_, err = f.open(t, next)
	requireGone(t, err)
	require.EqualValues(t, 1, f.count(t, `SELECT count(*) FROM morello.session WHERE deleted AND ended_at IS NOT NULL`))
}

// TestLostReplyOfARotation: a caller that never got the new token rotates again with the old one, and again; each replaces the
// one before, which opens nothing then, and costs the session nothing.
func TestLostReplyOfARotation(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	made := f.create(t, messages.SessionCreate{})
	id := made.Session.SessionID
	var last string
	for range 40 {
		lost := last
		last = f.rotate(t, made.Token, 30)
		if lost != "" {
			_, err := f.open(t, lost)
			requireGone(t, err)
		}
	}
	require.EqualValues(t, 2, f.count(t, `SELECT count(*) FROM morello.session_token`))
	f.requireOpens(t, made.Token, id)
	f.requireOpens(t, last, id)
}

// TestRotateIsAUse: rotating with the new token is its first use.
func TestRotateIsAUse(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	made := f.create(t, messages.SessionCreate{})
	id := made.Session.SessionID
	second := f.rotate(t, made.Token, 0)
	third := f.rotate(t, second, 10)
	f.requireCurrentTokens(t)
	f.requireOpens(t, second, id)
	_, err := f.Rotate(t.Context(), tenant, messages.SessionRotate{Token: made.Token}) // its grace of 0 s is over
	requireGone(t, err)
	_, err = f.open(t, third)
	requireGone(t, err)
}

// TestFirstUseWithoutTouch: it is written all the same.
func TestFirstUseWithoutTouch(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	made := f.create(t, messages.SessionCreate{})
	next := f.rotate(t, made.Token, 0)
	_, err := f.GetByToken(t.Context(), tenant, messages.SessionGetByToken{Token: next, Touch: new(false)})
	require.NoError(t, err)
	_, err = f.open(t, made.Token)
	requireGone(t, err)
	_, err = f.open(t, next)
	requireGone(t, err)
}

// TestRememberedTokens: of a session that is rotated for ever 32 tokens are known; older ones open nothing and end nothing.
func TestRememberedTokens(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	made := f.create(t, messages.SessionCreate{})
	tokens := []string{made.Token}
	for range 50 {
		tokens = append(tokens, f.rotate(t, tokens[len(tokens)-1], 0))
	}
	require.EqualValues(t, 32, f.count(t, `SELECT count(*) FROM morello.session_token`))
	_, err := f.open(t, tokens[0])
	requireGone(t, err)
	f.requireOpens(t, tokens[50], made.Session.SessionID)
	_, err = f.open(t, tokens[30])
	requireGone(t, err)
	_, err = f.open(t, tokens[50])
	requireGone(t, err)
}

func TestRotateChangesNoVersion(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	made := f.create(t, messages.SessionCreate{Data: []byte(`{"a":1}`)})
	f.age(t, "", time.Hour)
	before := f.get(t, made.Session.SessionID)
	reply, err := f.Rotate(t.Context(), tenant, messages.SessionRotate{Token: made.Token})
	require.NoError(t, err)
	require.Greater(t, reply.Session.LastSeenAt, before.LastSeenAt)
	before.LastSeenAt = reply.Session.LastSeenAt
	require.Equal(t, before, reply.Session)
}

// TestRotationsAtOnce: of many rotations with one token one new token is left, and the session lives.
func TestRotationsAtOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	made := f.create(t, messages.SessionCreate{})
	tokens := make([]string, 50)
	var crowd sync.WaitGroup
	for i := range tokens {
		crowd.Go(func() {
			reply, err := f.Rotate(t.Context(), tenant, messages.SessionRotate{Token: made.Token})
			if err != nil {
				t.Error(err)
			}
			tokens[i] = reply.Token
		})
	}
	crowd.Wait()
	opens := 0
	for _, token := range tokens {
		if _, err := f.open(t, token); err == nil {
			opens++
		}
	}
	require.Equal(t, 1, opens)
	f.requireOpens(t, made.Token, made.Session.SessionID)
	require.EqualValues(t, 2, f.count(t, `SELECT count(*) FROM morello.session_token`))
}

// TestUseAndReplacementAtOnce: a new token that is used while the old one rotates again is either replaced, and refused, or used,
// and goes on to work.
func TestUseAndReplacementAtOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for range 50 {
		made := f.create(t, messages.SessionCreate{})
		next := f.rotate(t, made.Token, 30)
		var used error
		var crowd sync.WaitGroup
		crowd.Go(func() { _, used = f.GetByToken(t.Context(), tenant, messages.SessionGetByToken{Token: next}) })
		crowd.Go(func() {
			if _, err := f.Rotate(t.Context(), tenant, messages.SessionRotate{Token: made.Token}); err != nil {
				t.Error(err)
			}
		})
		crowd.Wait()
		_, again := f.open(t, next)
		if used == nil {
			require.NoError(t, again)
		} else {
			requireGone(t, used)
			requireGone(t, again)
		}
		f.get(t, made.Session.SessionID)
	}
	f.requireCurrentTokens(t)
}

// TestFirstUseByOlderWorkers: what workers from before the column write, as their statements do, ends the token that is in the row, and
// a session that they made opens without one.
func TestFirstUseByOlderWorkers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	made := f.create(t, messages.SessionCreate{})
	id := made.Session.SessionID
	next := f.rotate(t, made.Token, 0)
	f.exec(t, `UPDATE morello.session SET current_token = NULL`)
	f.requireOpens(t, made.Token, id)
	f.exec(t, `
		WITH used AS (UPDATE morello.session_token SET used = true WHERE NOT used)
		UPDATE morello.session_token SET valid_until = clock_timestamp() WHERE used AND valid_until = 'infinity'`)
	f.requireCurrentTokens(t)
	f.requireOpens(t, next, id)
	_, err := f.open(t, made.Token)
	requireGone(t, err)
}

// TestFirstUsesAtOnce: many use a new token for the first time, by several workers; then it is the current one.
func TestFirstUsesAtOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	services := []*session.Service{f.Service, newService(t, f.url, session.Config{}), newService(t, f.url, session.Config{})}
	made := f.create(t, messages.SessionCreate{})
	token := made.Token
	for range 20 {
		token = f.rotate(t, token, 30)
		var crowd sync.WaitGroup
		for i := range 12 {
			crowd.Go(func() {
				if _, err := services[i%len(services)].GetByToken(t.Context(), tenant, messages.SessionGetByToken{Token: token}); err != nil {
					t.Error(err)
				}
			})
		}
		crowd.Wait()
		f.requireCurrentTokens(t)
	}
}

// TestLateFirstUse: a look-up that takes a token for a new one waits for the lock, and meanwhile the token was used and overtaken by its
// successor. It is not made the current one again.
func TestLateFirstUse(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	made := f.create(t, messages.SessionCreate{})
	id := made.Session.SessionID
	second := f.rotate(t, made.Token, 30)
	tx, err := f.db.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `SELECT FROM morello.session FOR NO KEY UPDATE`)
	require.NoError(t, err)
	late := make(chan error, 1)
	go func() {
		_, err := f.open(t, second)
		late <- err
	}()
	f.awaitLockWaiters(t, 1)
	for _, sql := range []string{
		`UPDATE morello.session_token SET valid_until = now() + interval '1 hour' WHERE used`,
		`UPDATE morello.session_token SET used = true, valid_until = now() + interval '1 hour' WHERE NOT used`,
		`INSERT INTO morello.session_token (tenant, token_hash, session_id, generation, used, grace)
			SELECT tenant, sha256('third'), session_id, 3, false, '1 hour' FROM morello.session`,
		`UPDATE morello.session_token SET used = true WHERE NOT used`,
	} {
		_, err := tx.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	require.NoError(t, tx.Commit(t.Context()))
	require.NoError(t, <-late)
	f.requireCurrentTokens(t)
	f.requireOpens(t, "third", id)
	f.requireOpens(t, second, id)
}

// awaitLockWaiters waits until so many statements wait for a lock.
func (f fixture) awaitLockWaiters(t *testing.T, n int64) {
	t.Helper()
	watcher := fixture{db: connect(t, f.url)}
	require.Eventually(t, func() bool {
		return watcher.count(t, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == n
	}, 10*time.Second, time.Millisecond)
}

// TestMigrationNotesCurrentTokens: sessions from before the column get theirs, and the way back leaves none.
func TestMigrationNotesCurrentTokens(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	rotated, waiting := f.create(t, messages.SessionCreate{}), f.create(t, messages.SessionCreate{})
	next := f.rotate(t, rotated.Token, 30)
	f.requireOpens(t, next, rotated.Session.SessionID)
	fresh := f.rotate(t, waiting.Token, 30)
	ended := f.create(t, messages.SessionCreate{})
	_, err := f.Delete(t.Context(), tenant, messages.SessionDelete{SessionID: ended.Session.SessionID})
	require.NoError(t, err)

	file, err := os.ReadFile("../../migrations/0011_current_token_and_details.sql")
	require.NoError(t, err)
	up, down, both := strings.Cut(string(file), "-- +goose Down")
	require.True(t, both)
	f.exec(t, down)
	require.Zero(t, f.count(t, `SELECT count(*) FROM information_schema.columns WHERE table_name = 'session' AND column_name = 'current_token'`))
	f.exec(t, up)
	require.EqualValues(t, 2, f.count(t, `SELECT count(*) FROM morello.session WHERE current_token IS NOT NULL`))
	f.requireCurrentTokens(t)
	for token, s := range map[string]messages.SessionCreateReply{next: rotated, rotated.Token: rotated, fresh: waiting, waiting.Token: waiting} {
		f.requireOpens(t, token, s.Session.SessionID)
	}
	f.requireCurrentTokens(t)
}
