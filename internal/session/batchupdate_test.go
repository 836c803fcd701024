package session_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/session"
	"github.com/ai-cherry/morello/messages"
)

// TestUpdatesAtOnce: of many updates at the same time each has the answer that it would have alone, whatever is wrong with the others.
func TestUpdatesAtOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const rounds = 40
	type outcome struct {
		name string
		m    messages.SessionUpdate
		want func(s messages.Session, err error) bool
	}
	code := func(code messages.Code, field string) func(messages.Session, error) bool {
		return func(_ messages.Session, err error) bool {
			e := messages.AsError(err)
			return err != nil && e.Code == code && e.Details.Field == field
		}
	}
	var outcomes []outcome
	for i := range rounds {
		newID := func() string { return f.create(t, messages.SessionCreate{Data: []byte(`{"a":1}`)}).Session.SessionID }
		deleted := newID()
		_, err := f.Delete(t.Context(), tenant, messages.SessionDelete{SessionID: deleted})
		require.NoError(t, err)
		expired := newID()
		f.age(t, expired, 25*time.Hour)
		large := f.create(t, messages.SessionCreate{Data: []byte(`{"a":"` + strings.Repeat("x", 100<<10) + `"}`)}).Session.SessionID
		merged := func(data string) func(messages.Session, error) bool {
			return func(s messages.Session, err error) bool {
				return err == nil && s.Version == 2 && strings.ReplaceAll(string(s.Data), " ", "") == data && s.State == messages.SessionLive
			}
		}
		outcomes = append(
			outcomes,
			outcome{"merged", messages.SessionUpdate{SessionID: newID(), Data: fmt.Appendf(nil, `{"b":%d}`, i)}, merged(fmt.Sprintf(`{"a":1,"b":%d}`, i))},
			outcome{"upper case", messages.SessionUpdate{SessionID: strings.ToUpper(newID()), Data: []byte(`{"a":null}`), Merge: messages.MergeDeep}, merged(`{}`)},
			outcome{"at its version", messages.SessionUpdate{SessionID: newID(), IfVersion: new(int64(1))}, merged(`{"a":1}`)},
			outcome{"at another version", messages.SessionUpdate{SessionID: newID(), IfVersion: new(int64(7))}, code(messages.CodeConflict, "if_version")},
			outcome{"unknown", messages.SessionUpdate{SessionID: uuid.NewString()}, code(messages.CodeNotFound, "")},
			outcome{"deleted", messages.SessionUpdate{SessionID: deleted}, code(messages.CodeNotFound, "")},
			outcome{"expired", messages.SessionUpdate{SessionID: expired}, code(messages.CodeNotFound, "")},
			outcome{"large", messages.SessionUpdate{SessionID: large, Data: []byte(`{"a":0}`)}, merged(`{"a":0}`)},
			outcome{"large patch", messages.SessionUpdate{SessionID: newID(), Data: []byte(`{"a":"` + strings.Repeat("y", 70<<10) + `"}`)}, func(s messages.Session, err error) bool { return err == nil && len(s.Data) > 70<<10 }},
			outcome{"many digits", messages.SessionUpdate{SessionID: newID(), Data: []byte(`{"a":1e100000}`)}, func(s messages.Session, err error) bool { return err == nil && len(s.Data) > 100_000 }},
			outcome{"too many digits", messages.SessionUpdate{SessionID: newID(), Metadata: []byte(`{"a":1e17000}`)}, code(messages.CodeTooLarge, "metadata")},
			outcome{"more digits than data may have", messages.SessionUpdate{SessionID: newID(), Data: []byte(`{"a":1e131000,"b":1e131000,"c":1e1000}`), Merge: messages.MergeDeep}, code(messages.CodeTooLarge, "data")},
			outcome{"refused by PostgreSQL", messages.SessionUpdate{SessionID: newID(), Data: []byte(`{"a":"\u0000"}`)}, code(messages.CodeInvalid, "")},
		)
	}
	var crowd sync.WaitGroup
	for _, o := range outcomes {
		crowd.Go(func() {
			reply, err := f.Update(t.Context(), tenant, o.m)
			if !o.want(reply.Session, err) {
				t.Errorf("%s: version %d, %.300s, %v", o.name, reply.Session.Version, reply.Session.Data, err)
			}
		})
	}
	crowd.Wait()
	foreign := f.create(t, messages.SessionCreate{}).Session.SessionID
	_, err := f.Update(t.Context(), "other", messages.SessionUpdate{SessionID: foreign})
	requireGone(t, err)
}

// TestLockedSessionKeepsNobodyWaiting: an update of a session that is locked waits, those of others do not wait with it.
func TestLockedSessionKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	locked, free := f.create(t, messages.SessionCreate{}).Session.SessionID, f.create(t, messages.SessionCreate{}).Session.SessionID
	tx, err := f.db.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), `SELECT FROM morello.session WHERE session_id = $1 FOR UPDATE`, locked)
	require.NoError(t, err)
	late := make(chan error, 1)
	go func() {
		_, err := f.Update(t.Context(), tenant, messages.SessionUpdate{SessionID: locked, Data: []byte(`{"a":1}`)})
		late <- err
	}()
	f.awaitLockWaiters(t, 1)
	soon, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err = f.Update(soon, tenant, messages.SessionUpdate{SessionID: free})
	require.NoError(t, err)
	require.NoError(t, tx.Rollback(t.Context()))
	require.NoError(t, <-late)
	require.JSONEq(t, `{"a":1}`, string(f.get(t, locked).Data))
}

// TestMergersOfTwoWorkers: batches of two workers, on a few sessions, keep all members and wait for each other in no circle.
func TestMergersOfTwoWorkers(t *testing.T) {
	t.Parallel()
	const sessions, members = 10, 60
	f := newFixture(t)
	services := []*session.Service{f.Service, newService(t, f.url, session.Config{})}
	var ids []string
	for range sessions {
		ids = append(ids, f.create(t, messages.SessionCreate{}).Session.SessionID)
	}
	var crowd sync.WaitGroup
	for i := range members {
		crowd.Go(func() {
			for n := range ids {
				m := messages.SessionUpdate{SessionID: ids[(n*(1+2*(i%2))+i)%sessions], Data: fmt.Appendf(nil, `{"k%d":1}`, i), CountInteraction: true}
				if _, err := services[i%2].Update(t.Context(), tenant, m); err != nil {
					t.Error(err)
				}
			}
		})
	}
	crowd.Wait()
	for _, id := range ids {
		s := f.get(t, id)
		require.EqualValues(t, members, s.InteractionCount)
		require.EqualValues(t, members, strings.Count(string(s.Data), "k"))
	}
}
