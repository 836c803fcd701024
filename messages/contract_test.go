package messages_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/messages"
)

func TestEndpointTable(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, e := range messages.Endpoints() {
		require.False(t, names[e.Name], "%s stands in the table twice", e.Name)
		names[e.Name] = true
		require.Regexp(t, `^[a-z]+\.[a-z_]+$`, e.Name)
		require.Equal(t, e.Name, e.Capability()+"."+e.Operation())
		require.Regexp(t, `^[A-Z][^\n]+\.$`, e.Doc, e.Name)
		require.Positive(t, e.Timeout, e.Name)
		require.LessOrEqual(t, e.Timeout, messages.MaxTimeout, e.Name)
		found, ok := messages.EndpointByName(e.Name)
		require.True(t, ok)
		require.Equal(t, e, found)
	}
	for _, name := range []string{"", "cache", "cache.", "cache.GET", "cache.get.more", "cache.*"} {
		_, ok := messages.EndpointByName(name)
		require.False(t, ok, name)
	}
}

// TestMutates: what changes data says so, or a repetition would not be told from a first attempt.
func TestMutates(t *testing.T) {
	t.Parallel()
	reads := map[string]bool{
		"cache.get": true, "cache.get_many": true, "cache.keys": true, "cache.get_by_tags": true, "cache.info": true,
		"session.get": true, "session.get_by_token": true, "session.list": true, "session.active_count": true, "session.analytics": true,
		"agent.get": true, "agent.list": true, "workflow.get": true, "workflow.list": true, "audit.query": true,
		"transfer.get": true, "system.job_get": true, "system.job_list": true,
		"snapshot.get": true, "snapshot.latest": true, "snapshot.list": true, "snapshot.history": true, "snapshot.diff": true,
		"snapshot.search": true, "snapshot.stats": true,
	}
	for _, e := range messages.Endpoints() {
		require.Equal(t, !reads[e.Name], e.Mutates, "%s: set Mutates, or name it among the reads of this test", e.Name)
	}
}

func TestSubjects(t *testing.T) {
	t.Parallel()
	get := messages.CacheGetEndpoint.Info()
	require.Equal(t, "morello.v1.acme.cache.get", get.Subject("acme"))
	require.Equal(t, "morello.v1.*.cache.get", get.WorkerSubject())
	require.Equal(t, "morello.events.v1._admin.maintenance.cache_cleanup", messages.CacheCleanupEvent.Info().Subject(messages.TenantAdmin))
	require.Equal(t, "morello.control.v1.all.ping", messages.ControlSubject(messages.ControlAll, messages.ControlPing))
	for subject, tenant := range map[string]string{
		"morello.v1.acme.cache.get": "acme", "morello.v1.*.cache.get": "*", "morello.v1._admin.pool.stats": "_admin",
		"morello.v1.": "", "": "",
	} {
		require.Equal(t, tenant, messages.RequestTenant(subject), subject)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	for _, e := range messages.Events() {
		require.Regexp(t, `^[a-z]+\.[a-z_]+$`, e.Name)
		require.Regexp(t, `^[A-Z][^\n]+\.$`, e.Doc, e.Name)
		found, ok := messages.EventByName(e.Name)
		require.True(t, ok)
		require.Equal(t, e, found)
	}
	_, ok := messages.EventByName("cache.invalidated.more")
	require.False(t, ok)
}

// TestEventStreamSubjects: the stream keeps the kept events and nothing else: a subject of a capability with both kinds
// would keep the others too.
func TestEventStreamSubjects(t *testing.T) {
	t.Parallel()
	subjects := messages.EventStreamSubjects()
	require.Equal(t, []string{
		"morello.events.v1.*.session.>", "morello.events.v1.*.agent.>", "morello.events.v1.*.workflow.>", "morello.events.v1.*.snapshot.>",
		"morello.events.v1.*.maintenance.>",
	}, subjects)
	for _, e := range messages.Events() {
		matching := 0
		for _, subject := range subjects {
			if prefix, suffix, _ := strings.Cut(subject, "*"); strings.HasPrefix(e.Subject("acme"), prefix+"acme"+strings.TrimSuffix(suffix, ">")) {
				matching++
			}
		}
		want := 0
		if e.Kept {
			want = 1
		}
		require.Equal(t, want, matching, e.Name)
	}
}

func TestCheckScope(t *testing.T) {
	t.Parallel()
	data, operator := messages.EndpointInfo{Name: "cache.get"}, messages.EndpointInfo{Name: "pool.stats", Operator: true}
	shared := messages.EndpointInfo{Name: "system.job_get", Shared: true}
	for _, c := range []struct {
		endpoint messages.EndpointInfo
		tenant   string
		code     messages.Code
	}{
		{data, "acme", ""},
		{operator, messages.TenantAdmin, ""},
		{data, messages.TenantAdmin, messages.CodeForbidden},
		{operator, "acme", messages.CodeForbidden},
		{shared, "acme", ""},
		{shared, messages.TenantAdmin, ""},
		{shared, "*", messages.CodeInvalid},
		{data, "", messages.CodeInvalid},
		{data, "*", messages.CodeInvalid},
		{data, ">", messages.CodeInvalid},
		{data, "Acme", messages.CodeInvalid},
		{data, "_other", messages.CodeInvalid},
		{operator, "*", messages.CodeInvalid},
		{data, strings.Repeat("a", 64), messages.CodeInvalid},
	} {
		err := c.endpoint.CheckScope(c.tenant)
		if c.code == "" {
			require.NoError(t, err, c.tenant)
			continue
		}
		require.Equal(t, c.code, messages.AsError(err).Code, "%s %s", c.endpoint.Name, c.tenant)
	}
}

func TestCodeNumbers(t *testing.T) {
	t.Parallel()
	numbers := map[messages.Code]int{
		messages.CodeInvalid: 400, messages.CodeUnauthorized: 401, messages.CodeForbidden: 403, messages.CodeNotFound: 404,
		messages.CodeConflict: 409, messages.CodeTooLarge: 413, messages.CodeQuotaExceeded: 429, messages.CodeInternal: 500,
		messages.CodeOverloaded: 503, messages.CodeUnavailable: 503, messages.CodeDeadlineExceeded: 504, "of tomorrow": 500,
	}
	for code, number := range numbers {
		require.Equal(t, number, code.Number(), code)
	}
	delete(numbers, "of tomorrow")
	require.ElementsMatch(t, slices.Collect(maps.Keys(numbers)), messages.Codes())
	require.True(t, slices.IsSortedFunc(messages.Codes(), func(a, b messages.Code) int { return a.Number() - b.Number() }))
}

func TestRetryable(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name              string
		failure           messages.Error
		plain, idempotent bool
	}{
		{name: "invalid", failure: messages.Error{Code: messages.CodeInvalid}},
		{name: "unauthorized", failure: messages.Error{Code: messages.CodeUnauthorized}},
		{name: "forbidden", failure: messages.Error{Code: messages.CodeForbidden}},
		{name: "not found", failure: messages.Error{Code: messages.CodeNotFound}},
		{name: "conflict", failure: messages.Error{Code: messages.CodeConflict}},
		{name: "too large", failure: messages.Error{Code: messages.CodeTooLarge}},
		{name: "internal", failure: messages.Error{Code: messages.CodeInternal}},
		{name: "a code of tomorrow", failure: messages.Error{Code: "new"}},
		{name: "quota for good", failure: messages.Error{Code: messages.CodeQuotaExceeded}},
		{
			name:  "quota for now",
			plain: true, idempotent: true,
			failure: messages.Error{Code: messages.CodeQuotaExceeded, Details: messages.ErrorDetails{RetryAfterMS: 1}},
		},
		{name: "overloaded", failure: messages.Error{Code: messages.CodeOverloaded}, plain: true, idempotent: true},
		{
			name:  "unavailable, nothing happened",
			plain: true, idempotent: true,
			failure: messages.Error{Code: messages.CodeUnavailable, Details: messages.ErrorDetails{Outcome: messages.OutcomeNotApplied}},
		},
		{
			name: "unavailable, who knows", idempotent: true,
			failure: messages.Error{Code: messages.CodeUnavailable, Details: messages.ErrorDetails{Outcome: messages.OutcomeUnknown}},
		},
		{name: "unavailable, nothing said", failure: messages.Error{Code: messages.CodeUnavailable}, idempotent: true},
		{name: "deadline", failure: messages.Error{Code: messages.CodeDeadlineExceeded}, idempotent: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.plain, c.failure.Retryable(false))
			require.Equal(t, c.idempotent, c.failure.Retryable(true))
			require.Equal(t, c.idempotent, c.failure.Body(true).Error.Retryable)
		})
	}
}

func TestAsError(t *testing.T) {
	t.Parallel()
	known := messages.Invalid("key", "is missing")
	require.Same(t, known, messages.AsError(fmt.Errorf("wrapped: %w", known)))
	require.Equal(t, "invalid: key: is missing", known.Error())
	require.Equal(t, "internal: broken", (&messages.Error{Code: messages.CodeInternal, Message: "broken"}).Error())

	secret := errors.New("password authentication failed for user morello")
	hidden := messages.AsError(secret)
	require.Equal(t, messages.CodeInternal, hidden.Code)
	require.NotContains(t, hidden.Error(), "morello")
	require.ErrorIs(t, hidden, secret)
	body, err := messages.Encode(hidden.Body(false))
	require.NoError(t, err)
	require.NotContains(t, string(body), "morello", "a cause is never sent")

	for _, ended := range []error{context.DeadlineExceeded, context.Canceled, fmt.Errorf("query: %w", context.Canceled)} {
		require.Equal(t, messages.CodeDeadlineExceeded, messages.AsError(ended).Code)
	}
	require.Equal(t, messages.CodeInternal, messages.AsError(io.EOF).Code)
}

func TestTTL(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		seconds *float64
		want    time.Duration
	}{
		{nil, time.Hour},
		{new(1.5), 1500 * time.Millisecond},
		{new(1e-9), time.Microsecond},
		{new(math.SmallestNonzeroFloat64), time.Microsecond},
		{new(messages.MaxTTL.Seconds()), messages.MaxTTL},
	} {
		require.Equal(t, c.want, messages.TTL(c.seconds, time.Hour))
	}
}

func TestCallFrom(t *testing.T) {
	t.Parallel()
	require.Equal(t, &messages.Call{}, messages.CallFrom(t.Context()))
	require.False(t, messages.Keyed(t.Context()))
	call := &messages.Call{Endpoint: "cache.set", IdempotencyKey: "k", Actor: "agent-7"}
	ctx := messages.WithCall(t.Context(), call)
	require.Same(t, call, messages.CallFrom(ctx))
	require.True(t, messages.Keyed(ctx))
}

func TestConditional(t *testing.T) {
	t.Parallel()
	require.False(t, messages.CacheSet{}.Conditional())
	require.True(t, messages.CacheSet{IfAbsent: true}.Conditional())
	require.True(t, messages.CacheSet{IfVersion: new(int64(0))}.Conditional(), "0 is a condition: there must be none")
}
