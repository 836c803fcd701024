package session_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/session"
	"github.com/ai-cherry/morello/messages"
)

// TestParallelLogins: 100 at once, through two workers, with a limit of 7.
func TestParallelLogins(t *testing.T) {
	t.Parallel()
	for _, policy := range []messages.OnLimit{messages.OnLimitEvictOldest, messages.OnLimitReject} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			services := []*session.Service{f.Service, newService(t, f.url, session.Config{})}
			f.create(t, messages.SessionCreate{UserID: "other"})
			f.slowInserts(t)
			var made, rejected atomic.Int64
			var crowd sync.WaitGroup
			for i := range 100 {
				crowd.Go(func() {
					m := messages.SessionCreate{UserID: "u", MaxPerUser: new(7), OnLimit: policy}
					_, err := services[i%2].Create(t.Context(), tenant, m)
					switch {
					case err == nil:
						made.Add(1)
					case messages.AsError(err).Code == messages.CodeQuotaExceeded:
						rejected.Add(1)
					default:
						t.Error(err)
					}
				})
			}
			crowd.Wait()
			count, err := f.ActiveCount(t.Context(), tenant, messages.SessionActiveCount{UserID: "u"})
			require.NoError(t, err)
			require.EqualValues(t, 7, count.TotalActive)
			if policy == messages.OnLimitReject {
				require.EqualValues(t, 7, made.Load())
				require.EqualValues(t, 93, rejected.Load())
				require.EqualValues(t, 8, f.count(t, `SELECT count(*) FROM morello.session`), "a rejected login leaves nothing")
				require.EqualValues(t, 8, f.count(t, `SELECT count(*) FROM morello.session_token`))
			} else {
				require.EqualValues(t, 100, made.Load())
				require.EqualValues(t, 93, f.count(t, `SELECT count(*) FROM morello.session WHERE deleted`))
			}
		})
	}
}

// TestEvictOldest: the least recently seen go, as many as are too many; what is dead does not count.
func TestEvictOldest(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var made []messages.SessionCreateReply
	for range 4 {
		f.age(t, "", 2*time.Minute)
		made = append(made, f.create(t, messages.SessionCreate{UserID: "u"}))
	}
	f.age(t, "", 2*time.Minute)
	dead := f.create(t, messages.SessionCreate{UserID: "u", TTLSeconds: new(10.0)})
	f.age(t, dead.Session.SessionID, 11*time.Second)
	f.requireOpens(t, made[0].Token, made[0].Session.SessionID) // touched: now made[1] is the oldest

	f.create(t, messages.SessionCreate{UserID: "u", MaxPerUser: new(3)})
	for i, live := range []bool{true, false, false, true} {
		_, err := f.open(t, made[i].Token)
		require.Equal(t, live, err == nil, i)
	}
	_, err := f.Create(t.Context(), tenant, messages.SessionCreate{UserID: "u", MaxPerUser: new(3), OnLimit: messages.OnLimitReject})
	quota := failure(t, err)
	require.Equal(t, messages.CodeQuotaExceeded, quota.Code)
	require.Equal(t, "max_per_user", quota.Details.Field)
	_, err = f.Create(t.Context(), "other", messages.SessionCreate{UserID: "u", MaxPerUser: new(1), OnLimit: messages.OnLimitReject})
	require.NoError(t, err, "another tenant's user of the same name is another")
}

// slowInserts has every insert wait for others between what it saw and what it stores.
func (f fixture) slowInserts(t *testing.T) {
	t.Helper()
	f.exec(t, `CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.005); RETURN NEW; END'`)
	f.exec(t, `CREATE TRIGGER wait BEFORE INSERT ON morello.session FOR EACH ROW EXECUTE FUNCTION public.wait()`)
}
