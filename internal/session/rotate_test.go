package session_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/messages"
)

func (f fixture) requireOpens(t *testing.T, token, id string) {
	t.Helper()
	s, err := f.open(t, token)
	require.NoError(t, err)
	require.Equal(t, id, s.SessionID)
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
	f.requireOpens(t, next, id)       // its first use
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
}
