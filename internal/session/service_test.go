package session_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/messages"
)

func TestCreateAndGet(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	made := f.create(t, messages.SessionCreate{
		UserID: "u", AgentID: "a", Data: []byte(`{"n":1}`), Metadata: []byte(`{"m":[2]}`), TTLSeconds: new(3600.0),
		IdleTimeoutSeconds: new(900.0), AbsoluteTTLSeconds: new(7200.0), IPAddress: "2001:db8::1", UserAgent: "curl/8",
	})
	secret, err := base64.RawURLEncoding.DecodeString(made.Token)
	require.NoError(t, err)
	require.Len(t, secret, 32)
	s := made.Session
	require.Equal(t, "u", s.UserID)
	require.Equal(t, "a", s.AgentID)
	require.JSONEq(t, `{"n":1}`, string(s.Data))
	require.JSONEq(t, `{"m":[2]}`, string(s.Metadata))
	require.Equal(t, 3600.0, s.TTLSeconds)
	require.Equal(t, 900.0, s.IdleTimeoutSeconds)
	require.Equal(t, s.CreatedAt.Add(time.Hour), s.ExpiresAt)
	require.Equal(t, s.CreatedAt.Add(2*time.Hour), s.AbsoluteExpiresAt)
	require.Equal(t, "2001:db8::1", s.IPAddress)
	require.Equal(t, "curl/8", s.UserAgent)
	require.EqualValues(t, 1, s.Version)
	require.Equal(t, messages.SessionLive, s.State)
	require.Equal(t, s, f.get(t, s.SessionID))
	byToken, err := f.open(t, made.Token)
	require.NoError(t, err)
	require.Equal(t, s, byToken, "a touch that is not due writes nothing")

	plain := f.create(t, messages.SessionCreate{}).Session
	require.JSONEq(t, `{}`, string(plain.Data))
	require.Equal(t, plain.CreatedAt.Add(24*time.Hour), plain.ExpiresAt)
	require.Equal(t, plain.CreatedAt.Add(30*24*time.Hour), plain.AbsoluteExpiresAt)
	require.Zero(t, plain.IdleTimeoutSeconds)
}

// TestNotFoundIsOneAnswer: whatever is wrong with a token, and with a session, the error is the same.
func TestNotFoundIsOneAnswer(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	live, expired, deleted := f.create(t, messages.SessionCreate{}), f.create(t, messages.SessionCreate{}), f.create(t, messages.SessionCreate{})
	f.age(t, expired.Session.SessionID, 25*time.Hour)
	gone, err := f.Delete(t.Context(), tenant, messages.SessionDelete{SessionID: deleted.Session.SessionID})
	require.NoError(t, err)
	require.True(t, gone.Deleted)
	reused := f.create(t, messages.SessionCreate{})
	next := f.rotate(t, reused.Token, 0)
	_, err = f.open(t, next)
	require.NoError(t, err)

	for name, token := range map[string]string{
		"unknown": strings.Repeat("A", 43), "truncated": live.Token[:42], "longer": live.Token + "A", "malformed": "';DROP TABLE session--",
		"NUL": "\x00", "expired": expired.Token, "deleted": deleted.Token, "reused": reused.Token, "of a revoked session": next,
		"huge": strings.Repeat("x", 1<<20), "id": live.Session.SessionID,
	} {
		if name == "of a revoked session" {
			_, err := f.open(t, reused.Token)
			requireGone(t, err)
		}
		_, err := f.open(t, token)
		requireGone(t, err)
		_, err = f.Rotate(t.Context(), tenant, messages.SessionRotate{Token: token})
		requireGone(t, err)
	}
	_, err = f.GetByToken(t.Context(), "other", messages.SessionGetByToken{Token: live.Token})
	requireGone(t, err)
	_, err = f.open(t, live.Token)
	require.NoError(t, err)

	for _, id := range []string{expired.Session.SessionID, deleted.Session.SessionID, reused.Session.SessionID, "0196f3c2-7b1e-7c3a-9f0e-0f6a3d1c2b4a"} {
		_, err := f.Get(t.Context(), tenant, messages.SessionGet{SessionID: id})
		requireGone(t, err)
		_, err = f.Update(t.Context(), tenant, messages.SessionUpdate{SessionID: id})
		requireGone(t, err)
		_, err = f.Extend(t.Context(), tenant, messages.SessionExtend{SessionID: id})
		requireGone(t, err)
		touched, err := f.Touch(t.Context(), tenant, messages.SessionTouch{SessionID: id})
		require.NoError(t, err)
		require.False(t, touched.Touched)
		again, err := f.Delete(t.Context(), tenant, messages.SessionDelete{SessionID: id})
		require.NoError(t, err)
		require.False(t, again.Deleted)
	}
}

// TestLiveness ages sessions to both sides of each of their ends.
func TestLiveness(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, c := range []struct {
		name           string
		create         messages.SessionCreate
		live, notAlive time.Duration
	}{
		{"expiry", messages.SessionCreate{TTLSeconds: new(3600.0)}, 3590 * time.Second, 3600 * time.Second},
		{"idle, graced by a tenth", messages.SessionCreate{IdleTimeoutSeconds: new(100.0)}, 105 * time.Second, 110 * time.Second},
		{"idle, graced by 60 s", messages.SessionCreate{IdleTimeoutSeconds: new(7200.0)}, 7255 * time.Second, 7260 * time.Second},
		{"absolute", messages.SessionCreate{TTLSeconds: new(50.0), AbsoluteTTLSeconds: new(50.0)}, 45 * time.Second, 50 * time.Second},
	} {
		s := f.create(t, c.create)
		f.age(t, s.Session.SessionID, c.live)
		f.get(t, s.Session.SessionID)
		f.age(t, s.Session.SessionID, c.notAlive-c.live)
		_, err := f.open(t, s.Token)
		requireGone(t, err)
		_, err = f.Extend(t.Context(), tenant, messages.SessionExtend{SessionID: s.Session.SessionID})
		requireGone(t, err)
	}
}

// TestTouchedInTime: a session that is used just within its idle timeout, ever again, is never refused, though most uses are
// not written.
func TestTouchedInTime(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.create(t, messages.SessionCreate{IdleTimeoutSeconds: new(1000.0)})
	for _, since := range []int{1, 999, 59, 999, 61, 999, 1, 59, 998, 2, 999, 999} {
		f.age(t, s.Session.SessionID, time.Duration(since)*time.Second)
		_, err := f.open(t, s.Token)
		require.NoError(t, err)
	}
	f.age(t, s.Session.SessionID, 1060*time.Second)
	_, err := f.open(t, s.Token)
	requireGone(t, err)
}

func TestTouchIsDue(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, c := range []struct {
		create messages.SessionCreate
		due    time.Duration
	}{
		{messages.SessionCreate{IdleTimeoutSeconds: new(100.0)}, 10 * time.Second},
		{messages.SessionCreate{IdleTimeoutSeconds: new(7200.0)}, time.Minute},
		{messages.SessionCreate{TTLSeconds: new(200.0)}, 20 * time.Second},
		{messages.SessionCreate{}, time.Minute},
	} {
		s := f.create(t, c.create)
		f.age(t, s.Session.SessionID, c.due-2*time.Second)
		aged := f.get(t, s.Session.SessionID)
		touched, err := f.Touch(t.Context(), tenant, messages.SessionTouch{SessionID: strings.ToUpper(s.Session.SessionID)})
		require.NoError(t, err)
		require.True(t, touched.Touched)
		require.Equal(t, aged, f.get(t, s.Session.SessionID), "not due: nothing is written")
		f.age(t, s.Session.SessionID, 2*time.Second)
		aged = f.get(t, s.Session.SessionID)
		_, err = f.GetByToken(t.Context(), tenant, messages.SessionGetByToken{Token: s.Token, Touch: new(false)})
		require.NoError(t, err)
		require.Equal(t, aged, f.get(t, s.Session.SessionID), "touch:false writes nothing")
		opened, err := f.open(t, s.Token)
		require.NoError(t, err)
		after := f.get(t, s.Session.SessionID)
		require.Equal(t, after, opened, "the reply is what was written")
		require.WithinDuration(t, aged.LastSeenAt.Add(c.due), after.LastSeenAt, 2*time.Second)
		after.LastSeenAt = aged.LastSeenAt
		require.Equal(t, aged, after, "a touch changes last_seen_at only")
	}
}

func TestExtend(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.create(t, messages.SessionCreate{TTLSeconds: new(60.0), AbsoluteTTLSeconds: new(5000.0)}).Session
	extended, err := f.Extend(t.Context(), tenant, messages.SessionExtend{SessionID: s.SessionID})
	require.NoError(t, err)
	require.Equal(t, s.ExpiresAt.Add(time.Hour), extended.ExpiresAt)
	extended, err = f.Extend(t.Context(), tenant, messages.SessionExtend{SessionID: s.SessionID, AdditionalSeconds: new(1e6)})
	require.NoError(t, err)
	require.Equal(t, s.AbsoluteExpiresAt, extended.ExpiresAt, "not past the absolute expiry")
	after := f.get(t, s.SessionID)
	s.ExpiresAt = s.AbsoluteExpiresAt
	require.Equal(t, s, after, "version, updated_at and last_seen_at stay")
}

// TestIdempotencyKeys: each mutation, repeated with its key, has one effect and one reply, tokens included.
func TestIdempotencyKeys(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	created, err := f.Create(keyed(t.Context(), "create", 1), tenant, messages.SessionCreate{UserID: "u", MaxPerUser: new(3)})
	require.NoError(t, err)
	again, err := f.Create(keyed(t.Context(), "create", 1), tenant, messages.SessionCreate{UserID: "u", MaxPerUser: new(3)})
	require.NoError(t, err)
	requireSameJSON(t, created, again)
	require.EqualValues(t, 1, f.count(t, `SELECT count(*) FROM morello.session`))
	id := created.Session.SessionID

	rotated, err := f.Rotate(keyed(t.Context(), "rotate", 1), tenant, messages.SessionRotate{Token: created.Token})
	require.NoError(t, err)
	reRotated, err := f.Rotate(keyed(t.Context(), "rotate", 1), tenant, messages.SessionRotate{Token: created.Token})
	require.NoError(t, err)
	require.Equal(t, rotated.Token, reRotated.Token, "a lost reply is had again")

	for range 2 {
		updated, err := f.Update(keyed(t.Context(), "update", 1), tenant, messages.SessionUpdate{SessionID: id, CountInteraction: true})
		require.NoError(t, err)
		require.EqualValues(t, 1, updated.Session.InteractionCount)
		touched, err := f.Touch(keyed(t.Context(), "touch", 1), tenant, messages.SessionTouch{SessionID: id})
		require.NoError(t, err)
		require.True(t, touched.Touched)
	}
	first, err := f.Extend(keyed(t.Context(), "extend", 1), tenant, messages.SessionExtend{SessionID: id})
	require.NoError(t, err)
	second, err := f.Extend(keyed(t.Context(), "extend", 1), tenant, messages.SessionExtend{SessionID: id})
	require.NoError(t, err)
	require.True(t, first.ExpiresAt.Equal(second.ExpiresAt))

	other := f.create(t, messages.SessionCreate{UserID: "u"}).Session
	for range 2 {
		deleted, err := f.DeleteUser(keyed(t.Context(), "delete_user", 1), tenant, messages.SessionDeleteUser{UserID: "u", ExceptSessionID: id})
		require.NoError(t, err)
		require.Equal(t, messages.SessionDeleteUserReply{Deleted: 1}, deleted)
		one, err := f.Delete(keyed(t.Context(), "delete", 1), tenant, messages.SessionDelete{SessionID: id})
		require.NoError(t, err)
		require.True(t, one.Deleted)
		many, err := f.BulkDelete(keyed(t.Context(), "bulk_delete", 1), tenant, messages.SessionBulkDelete{SessionIDs: []string{id, other.SessionID}})
		require.NoError(t, err)
		require.Zero(t, many.Deleted)
		cleaned, err := f.CleanupInactive(keyed(t.Context(), "cleanup", 1), tenant, messages.SessionCleanupInactive{OlderThanDays: new(0.0)})
		require.NoError(t, err)
		require.Equal(t, messages.SessionCleanupInactiveReply{Deleted: 2}, cleaned)
	}
	_, err = f.Create(keyed(t.Context(), "create", 2), tenant, messages.SessionCreate{})
	require.Equal(t, messages.CodeConflict, failure(t, err).Code)
}

// TestKeyedReuseIsKept: the end of a session whose token was reused outlives the not_found that it is answered with.
func TestKeyedReuseIsKept(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.create(t, messages.SessionCreate{})
	next := f.rotate(t, s.Token, 0)
	_, err := f.open(t, next)
	require.NoError(t, err)
	for range 2 {
		_, err = f.Rotate(keyed(t.Context(), "k", 1), tenant, messages.SessionRotate{Token: s.Token})
		requireGone(t, err)
	}
	_, err = f.open(t, next)
	requireGone(t, err)
}

func requireSameJSON(t *testing.T, want, got any) {
	t.Helper()
	a, err := json.Marshal(want)
	require.NoError(t, err)
	b, err := json.Marshal(got)
	require.NoError(t, err)
	require.JSONEq(t, string(a), string(b))
}
