package session_test

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/messages"
)

// TestKilledPostgresLosesNoLogin: PostgreSQL, which writes to the disk before it answers, is killed at random moments under logins.
// Each of 10 000 that were acknowledged opens its session afterwards.
func TestKilledPostgresLosesNoLogin(t *testing.T) {
	t.Parallel()
	const logins, kills, callers = 10_000, 4, 64
	server := devtest.ServerWithSettings(t, map[string]string{"fsync": "on", "synchronous_commit": "on"})
	f := newFixtureOn(t, server.URL("morello"))
	tokens := make(chan string, logins+callers)
	var acknowledged, failed atomic.Int64
	var crowd sync.WaitGroup
	for range callers {
		crowd.Go(func() {
			for acknowledged.Load() < logins {
				reply, err := f.Create(t.Context(), tenant, messages.SessionCreate{UserID: "u", Data: []byte(`{"a":1}`)})
				if err != nil {
					if messages.AsError(err).Code != messages.CodeUnavailable {
						t.Error(err)
					}
					failed.Add(1)
					continue
				}
				tokens <- reply.Token
				acknowledged.Add(1)
			}
		})
	}
	for kill := range kills {
		at := int64(logins/(kills+1)*kill + rand.IntN(logins/(kills+1)))
		require.Eventually(t, func() bool { return acknowledged.Load() >= at }, time.Minute, time.Millisecond)
		require.NoError(t, server.Kill())
		require.NoError(t, server.Restart(t.Context()))
	}
	crowd.Wait()
	require.Positive(t, failed.Load(), "no login met a kill")
	close(tokens)
	require.GreaterOrEqual(t, len(tokens), logins)
	for range callers {
		crowd.Go(func() {
			for token := range tokens {
				_, err := f.open(t, token)
				for messages.AsError(orNil(err)).Code == messages.CodeUnavailable { // a connection from before the last kill
					_, err = f.open(t, token)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	crowd.Wait()
	f.db = connect(t, f.url)
	require.EqualValues(t, 2, f.count(t, `SELECT count(*) FROM pg_class WHERE oid IN ('morello.session'::regclass, 'morello.session_token'::regclass) AND relpersistence = 'p'`))
	require.EqualValues(t, 2, f.count(t, `SELECT count(*) FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit') AND setting = 'on'`))
}
