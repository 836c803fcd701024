package session_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

func (f fixture) list(t *testing.T, m messages.SessionList) messages.SessionListReply {
	t.Helper()
	require.NoError(t, m.Validate())
	reply, err := f.List(t.Context(), tenant, m)
	require.NoError(t, err)
	return reply
}

// all reads a listing page by page.
func (f fixture) all(t *testing.T, m messages.SessionList, between func()) (ids []string) {
	t.Helper()
	for {
		page := f.list(t, m)
		for _, s := range page.Sessions {
			ids = append(ids, s.SessionID)
		}
		if page.NextCursor == "" {
			return ids
		}
		m.Cursor = page.NextCursor
		if between != nil {
			between()
		}
	}
}

func TestListByState(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ids := map[string]messages.SessionState{}
	for i := range 12 {
		s := f.create(t, messages.SessionCreate{UserID: fmt.Sprint("u", i%2), AgentID: fmt.Sprint("a", i%3), TTLSeconds: new(1000.0)}).Session
		ids[s.SessionID] = messages.SessionLive
		switch i % 4 {
		case 1:
			f.age(t, s.SessionID, 1001*time.Second) // expired, not marked
			ids[s.SessionID] = messages.SessionExpired
		case 2:
			_, err := f.Delete(t.Context(), tenant, messages.SessionDelete{SessionID: s.SessionID})
			require.NoError(t, err)
			ids[s.SessionID] = messages.SessionDeleted
		}
		if i == 5 {
			marked, err := f.CleanupInactive(t.Context(), tenant, messages.SessionCleanupInactive{})
			require.NoError(t, err)
			require.EqualValues(t, 2, marked.ExpiredMarked)
		}
	}
	for _, state := range []messages.SessionState{"", messages.SessionLive, messages.SessionExpired, messages.SessionDeleted, messages.SessionAll} {
		var want []string
		for id, is := range ids {
			if state == is || state == messages.SessionAll || state == "" && is == messages.SessionLive {
				want = append(want, id)
			}
		}
		require.ElementsMatch(t, want, f.all(t, messages.SessionList{State: state, Page: messages.Page{Limit: new(2)}}, nil), state)
	}
	page := f.list(t, messages.SessionList{State: messages.SessionAll})
	require.Len(t, page.Sessions, 12)
	for i, s := range page.Sessions {
		require.Equal(t, ids[s.SessionID], s.State)
		require.True(t, i == 0 || !s.UpdatedAt.After(page.Sessions[i-1].UpdatedAt), "the most recently updated first")
	}
	for _, s := range f.list(t, messages.SessionList{UserID: "u1", AgentID: "a2", State: messages.SessionAll}).Sessions {
		require.Equal(t, "u1 a2", s.UserID+" "+s.AgentID)
	}
	require.Len(t, f.all(t, messages.SessionList{UserID: "u1", State: messages.SessionAll, Page: messages.Page{Limit: new(1)}}, nil), 6)
	require.Len(t, f.all(t, messages.SessionList{AgentID: "a0", State: messages.SessionAll}, nil), 4)
	require.Empty(t, f.list(t, messages.SessionList{UserID: "nobody"}).Sessions)
	other, err := f.List(t.Context(), "other", messages.SessionList{State: messages.SessionAll})
	require.NoError(t, err)
	require.Empty(t, other.Sessions)
}

// TestListWhileRowsChange: what is not updated comes exactly once; what is, or is new, at most once.
func TestListWhileRowsChange(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var ids []string
	for range 30 {
		ids = append(ids, f.create(t, messages.SessionCreate{}).Session.SessionID)
	}
	turn := 0
	seen := f.all(t, messages.SessionList{Page: messages.Page{Limit: new(3)}}, func() {
		f.update(t, messages.SessionUpdate{SessionID: ids[turn%10]})
		_, err := f.Touch(t.Context(), tenant, messages.SessionTouch{SessionID: ids[15]})
		require.NoError(t, err)
		f.create(t, messages.SessionCreate{})
		turn++
	})
	times := map[string]int{}
	for _, id := range seen {
		times[id]++
	}
	for i, id := range ids {
		require.LessOrEqual(t, times[id], 1)
		if i >= 10 {
			require.Equal(t, 1, times[id], i)
		}
	}
}

// TestPageOfLargeSessions: a page ends after 1 MiB, and what follows is on the next.
func TestPageOfLargeSessions(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	large := `{"x":"` + strings.Repeat("y", 250<<10) + `"}`
	for range 9 {
		f.create(t, messages.SessionCreate{Data: []byte(large)})
	}
	first := f.list(t, messages.SessionList{})
	require.Len(t, first.Sessions, 5)
	require.NotEmpty(t, first.NextCursor)
	require.Len(t, f.all(t, messages.SessionList{}, nil), 9)
}

// TestCursors: one that is garbage, of another tenant, of other filters or of another operation is invalid.
func TestCursors(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for range 3 {
		f.create(t, messages.SessionCreate{UserID: "u"})
	}
	page := messages.Page{Limit: new(1)}
	page.Cursor = f.list(t, messages.SessionList{Page: page}).NextCursor
	foreign, err := postgres.EncodeCursor(struct{ Operation, Tenant, Prefix string }{"cache.keys", tenant, ""}, "k")
	require.NoError(t, err)
	refused := func(of string, m messages.SessionList) {
		_, err := f.List(t.Context(), of, m)
		require.Equal(t, messages.CodeInvalid, failure(t, err).Code)
		require.Equal(t, "cursor", failure(t, err).Details.Field)
	}
	refused("other", messages.SessionList{Page: page})
	refused(tenant, messages.SessionList{UserID: "u", Page: page})
	refused(tenant, messages.SessionList{State: messages.SessionAll, Page: page})
	for _, cursor := range []string{"x", foreign, page.Cursor[:12], page.Cursor + "AAAA", strings.Repeat("A", 4000), "' OR 1=1"} {
		refused(tenant, messages.SessionList{Page: messages.Page{Cursor: cursor}})
	}
}

// TestOddRowsBreakNoListing: what the table takes, however odd, a list shows; what it cannot show, the table refuses.
func TestOddRowsBreakNoListing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.create(t, messages.SessionCreate{})
	odd := f.create(t, messages.SessionCreate{UserID: "u"}).Session.SessionID
	f.exec(t, `UPDATE morello.session SET ip_address = 'nowhere', user_agent = '', version = -1, interaction_count = -5, idle = '-1 day', user_id = NULL WHERE session_id = $1`, odd)
	require.Len(t, f.list(t, messages.SessionList{State: messages.SessionAll}).Sessions, 2)
	for _, set := range []string{"data = '[]'", "metadata = 'null'", "expires_at = 'infinity'", "last_seen_at = '-infinity'", "data = NULL", "absolute_expires_at = 'infinity'"} {
		_, err := f.db.Exec(t.Context(), `UPDATE morello.session SET `+set+` WHERE session_id = $1`, odd)
		require.Error(t, err, set)
	}
}

func TestActiveCountAndAnalytics(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i := range 10 {
		s := f.create(t, messages.SessionCreate{UserID: fmt.Sprint("u", i%3), AgentID: "a", TTLSeconds: new(100_000.0)}).Session
		for range i {
			f.update(t, messages.SessionUpdate{SessionID: s.SessionID, CountInteraction: true})
		}
		switch i {
		case 8:
			_, err := f.Delete(t.Context(), tenant, messages.SessionDelete{SessionID: s.SessionID})
			require.NoError(t, err)
		case 9:
			f.exec(t, `UPDATE morello.session SET expires_at = now() WHERE session_id = $1`, s.SessionID)
		case 0:
			f.exec(t, `UPDATE morello.session SET created_at = created_at - interval '2 hours' WHERE session_id = $1`, s.SessionID)
		case 1:
			f.exec(t, `UPDATE morello.session SET created_at = created_at - interval '30 hours' WHERE session_id = $1`, s.SessionID)
		}
	}
	f.create(t, messages.SessionCreate{})
	count, err := f.ActiveCount(t.Context(), tenant, messages.SessionActiveCount{})
	require.NoError(t, err)
	require.Equal(t, messages.SessionActiveCountReply{TotalActive: 9, UniqueUsers: 3, UniqueAgents: 1, AvgInteractions: 28.0 / 9}, count)
	count, err = f.ActiveCount(t.Context(), tenant, messages.SessionActiveCount{UserID: "u0", AgentID: "a"})
	require.NoError(t, err)
	require.Equal(t, messages.SessionActiveCountReply{TotalActive: 3, UniqueUsers: 1, UniqueAgents: 1, AvgInteractions: 3}, count)

	got, err := f.Analytics(t.Context(), tenant, messages.SessionAnalytics{Top: new(2)})
	require.NoError(t, err)
	require.Equal(t, 24, got.TimeRangeHours)
	n := got.Statistics
	require.InDelta(t, 12, n.AvgDurationMinutes, 0.5, "one of 120 minutes, nine of none")
	require.Positive(t, n.P95DurationMinutes)
	n.AvgDurationMinutes, n.P95DurationMinutes = 0, 0
	require.Equal(t, messages.SessionStatistics{
		TotalSessions: 10, ActiveSessions: 8, ExpiredSessions: 1, DeletedSessions: 1, UniqueUsers: 3, UniqueAgents: 1, AvgInteractions: 4.4, MaxInteractions: 9,
	}, n)
	require.Equal(t, []messages.SessionUser{{UserID: "u0", Sessions: 4, Interactions: 18}, {UserID: "u2", Sessions: 3, Interactions: 15}}, got.TopUsers)
	require.Equal(t, []messages.SessionAgent{{AgentID: "a", Sessions: 9, Interactions: 44}}, got.TopAgents)
	var hours int64
	for _, hour := range got.ByHour {
		require.Zero(t, hour.Hour.UTC().Minute())
		hours += hour.Sessions
	}
	require.EqualValues(t, 10, hours)
	year, err := f.Analytics(t.Context(), tenant, messages.SessionAnalytics{TimeRangeHours: new(8784)})
	require.NoError(t, err)
	require.EqualValues(t, 11, year.Statistics.TotalSessions)
	empty, err := f.Analytics(t.Context(), "nobody", messages.SessionAnalytics{})
	require.NoError(t, err)
	require.Zero(t, empty.Statistics)
	require.Equal(t, []messages.SessionUser{}, empty.TopUsers)
}
