package audit_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/messages"
)

func TestLogAndQuery(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	bare := f.log(t, entry(nil))
	id := uuid.MustParse(bare.EntryID)
	require.EqualValues(t, 7, id.Version())
	require.Equal(t, uuid.RFC4122, id.Variant())
	seconds, nanoseconds := id.Time().UnixTime()
	require.WithinDuration(t, bare.CreatedAt, time.Unix(seconds, nanoseconds), 5*time.Second)
	require.WithinDuration(t, time.Now(), bare.CreatedAt, time.Minute)
	require.Equal(t, time.UTC, bare.CreatedAt.Location())
	require.Equal(t, messages.AuditEntry{
		EntryID: bare.EntryID, EventType: "document.read", Actor: "ada", ResourceType: "document", ResourceID: "42",
		Details: []byte(`{}`), CreatedAt: bare.CreatedAt,
	}, bare)
	full := f.log(t, entry(func(m *messages.AuditLog) {
		m.Details, m.IPAddress, m.UserAgent = []byte(`{"b": [1, 2.50], "a": "x y"}`), "2001:DB8:0:0::7", "agent/1.4"
	}))
	require.JSONEq(t, `{"a":"x y","b":[1,2.50]}`, string(full.Details))
	require.NotContains(t, string(full.Details), `": `, "no white space between tokens")
	require.Equal(t, "2001:db8::7", full.IPAddress)
	require.Equal(t, "agent/1.4", full.UserAgent)
	require.Equal(t, `{}`, string(f.log(t, entry(func(m *messages.AuditLog) { m.Details = []byte(`null`) })).Details))

	all := f.query(t, messages.AuditQuery{})
	require.Len(t, all.Entries, 3)
	require.Empty(t, all.NextCursor)
	require.Equal(t, full, all.Entries[1])
	require.Equal(t, bare, all.Entries[2]) // newest first
	other, err := f.Query(t.Context(), "other", messages.AuditQuery{})
	require.NoError(t, err)
	require.Equal(t, []messages.AuditEntry{}, other.Entries)
}

func TestFilters(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.log(t, entry(nil))
	odd := f.log(t, messages.AuditLog{
		EventType: "it's", Actor: `'; DROP TABLE morello.audit_entry; --`, ResourceType: `a"b`, ResourceID: "%_\\",
		IPAddress: "192.0.2.7", UserAgent: "ünï",
	})
	for name, m := range map[string]messages.AuditQuery{
		"event type": {EventType: odd.EventType}, "actor": {Actor: odd.Actor}, "resource type": {ResourceType: odd.ResourceType},
		"resource id": {ResourceID: odd.ResourceID}, "address": {IPAddress: "192.0.2.7"}, "user agent": {UserAgent: odd.UserAgent},
		"all": {
			EventType: odd.EventType, Actor: odd.Actor, ResourceType: odd.ResourceType, ResourceID: odd.ResourceID,
			IPAddress: odd.IPAddress, UserAgent: odd.UserAgent, After: &odd.CreatedAt, Before: new(odd.CreatedAt.Add(time.Microsecond)),
		},
		"after, which is included": {After: &odd.CreatedAt},
	} {
		require.Equal(t, []messages.AuditEntry{odd}, f.query(t, m).Entries, name)
	}
	for name, m := range map[string]messages.AuditQuery{
		"one that does not match": {EventType: odd.EventType, Actor: "ada"}, "no pattern": {ResourceID: "%"},
		"other case": {EventType: "It's"}, "later": {After: new(odd.CreatedAt.Add(time.Microsecond))},
		"years ago": {Before: new(time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC))},
		"in years":  {After: new(time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC))},
	} {
		require.Empty(t, f.query(t, m).Entries, name)
	}
	before := f.query(t, messages.AuditQuery{Before: &odd.CreatedAt}).Entries
	require.Len(t, before, 1)
	require.Equal(t, "ada", before[0].Actor)
}

// TestDetails: an entry matches when its details contain what is asked for, at their place, and it is the tenant's.
func TestDetails(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	logged := func(details string) messages.AuditEntry {
		return f.log(t, entry(func(m *messages.AuditLog) { m.Details = []byte(details) }))
	}
	one := logged(`{"name":"ada","version":1,"fields":["name","status"],"by":{"role":"admin","id":7},"none":null}`)
	two := logged(`{"name":"bob","version":2,"fields":["status"],"by":{"role":"admin","id":8}}`)
	bare := logged(`{}`)
	_, err := f.Log(t.Context(), "other", entry(func(m *messages.AuditLog) { m.Details = []byte(`{"name":"ada"}`) }))
	require.NoError(t, err)
	for details, want := range map[string][]messages.AuditEntry{
		`{"name":"ada"}`: {one}, `{"version":2.0}`: {two}, `{"fields":["status"]}`: {two, one}, `{"fields":["status","name"]}`: {one},
		`{"by":{"role":"admin"}}`: {two, one}, `{"by":{"id":8},"name":"bob"}`: {two}, `{"by":{"id":8},"name":"ada"}`: nil, `{"by":{}}`: {two, one},
		`{"none":null}`: {one}, `{"name":"Ada"}`: nil, `{"role":"admin"}`: nil, `{"fields":"status"}`: nil, `{"version":"1"}`: nil,
		`{"acme":{"name":"ada"}}`: nil, `{}`: {bare, two, one}, ` { } `: {bare, two, one}, `null`: {bare, two, one},
	} {
		require.Equal(t, append([]messages.AuditEntry{}, want...), f.query(t, messages.AuditQuery{Details: []byte(details)}).Entries, details)
	}
	require.Equal(t, []messages.AuditEntry{one}, f.query(t, messages.AuditQuery{Details: []byte(`{"by":{"role":"admin"}}`), Before: &two.CreatedAt}).Entries)
	require.Empty(t, f.query(t, messages.AuditQuery{Details: []byte(`{"name":"ada"}`), Actor: "bob"}).Entries)

	m := messages.AuditQuery{Details: []byte(`{"by":{"role":"admin"}}`)}
	m.Limit = new(1)
	first := f.query(t, m)
	require.Equal(t, []messages.AuditEntry{two}, first.Entries)
	m.Cursor = first.NextCursor
	last := f.query(t, m)
	require.Equal(t, []messages.AuditEntry{one}, last.Entries)
	require.Empty(t, last.NextCursor)
	m.Details = []byte(`{"by":{"role":"guest"}}`)
	_, err = f.Query(t.Context(), tenant, m)
	require.Equal(t, "cursor", failure(t, err).Details.Field, "of other filters")
}

// TestPagesAreStable: entries that arrive while somebody pages move nothing, also where many have one time.
func TestPagesAreStable(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i := range 30 {
		f.exec(t, `INSERT INTO morello.audit_entry (tenant, created_at, event_type, actor, resource_type, resource_id)
			VALUES ($1, now() - make_interval(days => $2), 'e', 'a', 't', $3)`, tenant, i/10*20, fmt.Sprint(i)) // three months, ten of a time
	}
	m := messages.AuditQuery{EventType: "e"}
	m.Limit = new(7)
	seen, last := map[string]bool{}, time.Now().Add(time.Hour)
	for pages := 1; ; pages++ {
		reply := f.query(t, m)
		for _, e := range reply.Entries {
			require.False(t, seen[e.EntryID], "an entry came twice")
			require.False(t, e.CreatedAt.After(last))
			seen[e.EntryID], last = true, e.CreatedAt
		}
		if reply.NextCursor == "" {
			require.Equal(t, 5, pages)
			break
		}
		require.Len(t, reply.Entries, 7)
		f.log(t, entry(func(m *messages.AuditLog) { m.EventType = "e" }))
		m.Cursor = reply.NextCursor
	}
	require.Len(t, seen, 30)
}

func TestPageEndsAtOneMiB(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	details := []byte(`{"text":"` + strings.Repeat("x", messages.MaxAuditDetailsBytes-11) + `"}`)
	for range 20 {
		f.log(t, entry(func(m *messages.AuditLog) { m.Details = details }))
	}
	reply := f.query(t, messages.AuditQuery{})
	require.Len(t, reply.Entries, 15) // 16 of 64 KiB and what is around them have more than 1 MiB
	m := messages.AuditQuery{}
	m.Cursor = reply.NextCursor
	rest := f.query(t, m)
	require.Len(t, rest.Entries, 5)
	require.Empty(t, rest.NextCursor)
}

func TestCursors(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for range 3 {
		f.log(t, entry(nil))
	}
	m := messages.AuditQuery{Actor: "ada"}
	m.Limit = new(1)
	cursor := f.query(t, m).NextCursor
	foreign, err := postgres.EncodeCursor("another list", "x")
	require.NoError(t, err)
	for name, c := range map[string]struct {
		tenant string
		m      messages.AuditQuery
		cursor string
	}{
		"garbage":       {tenant, m, "%%%"},
		"another list":  {tenant, m, foreign},
		"cut off":       {tenant, m, cursor[:12]},
		"other tenant":  {"other", m, cursor},
		"other filters": {tenant, messages.AuditQuery{Actor: "bob"}, cursor},
		"no filter":     {tenant, messages.AuditQuery{}, cursor},
	} {
		c.m.Cursor = c.cursor
		_, err := f.Query(t.Context(), c.tenant, c.m)
		require.Equal(t, messages.CodeInvalid, failure(t, err).Code, name)
		require.Equal(t, "cursor", failure(t, err).Details.Field, name)
	}
	m.Cursor, m.Limit = cursor, new(1000) // another limit is fine
	require.Len(t, f.query(t, m).Entries, 2)
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	keyed := func(fingerprint byte) context.Context {
		return messages.WithCall(t.Context(), &messages.Call{IdempotencyKey: "k", Fingerprint: [32]byte{fingerprint}})
	}
	first, err := f.Log(keyed(1), tenant, entry(nil))
	require.NoError(t, err)
	again, err := f.Log(keyed(1), tenant, entry(nil))
	require.NoError(t, err)
	require.Equal(t, first, again)
	_, err = f.Log(keyed(2), tenant, entry(nil))
	require.Equal(t, messages.CodeConflict, failure(t, err).Code)
	require.Equal(t, 1, f.count(t, `SELECT count(*) FROM morello.audit_entry`))
}
