package client_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/client"
	"github.com/ai-cherry/morello/messages"
)

// TestSessionMethodsCallTheirEndpoints calls each method once against a real worker.
func TestSessionMethodsCallTheirEndpoints(t *testing.T) {
	t.Parallel()
	s, ctx := connect(t, client.Config{URL: startStack(t)}).Session(), t.Context()
	create := messages.SessionCreate{UserID: "u", AgentID: "a", Data: []byte(`{"a":1}`)}
	made, err := s.Create(client.WithIdempotencyKey(ctx, "login"), create)
	require.NoError(t, err)
	again, err := s.Create(client.WithIdempotencyKey(ctx, "login"), create)
	require.NoError(t, err)
	require.Equal(t, made.Token, again.Token)
	id := made.Session.SessionID
	got, err := s.Get(ctx, messages.SessionGet{SessionID: id})
	require.NoError(t, err)
	require.Equal(t, made.Session, got.Session)
	opened, err := s.GetByToken(ctx, messages.SessionGetByToken{Token: made.Token})
	require.NoError(t, err)
	require.Equal(t, id, opened.Session.SessionID)
	updated, err := s.Update(ctx, messages.SessionUpdate{SessionID: id, Data: []byte(`{"b":{"c":2}}`), CountInteraction: true})
	require.NoError(t, err)
	require.JSONEq(t, `{"a":1,"b":{"c":2}}`, string(updated.Session.Data))
	touched, err := s.Touch(ctx, messages.SessionTouch{SessionID: id})
	require.NoError(t, err)
	require.True(t, touched.Touched)
	extended, err := s.Extend(ctx, messages.SessionExtend{SessionID: id})
	require.NoError(t, err)
	require.Greater(t, extended.ExpiresAt, updated.Session.ExpiresAt)
	rotated, err := s.Rotate(ctx, messages.SessionRotate{Token: made.Token})
	require.NoError(t, err)
	require.NotEqual(t, made.Token, rotated.Token)
	page, err := s.List(ctx, messages.SessionList{UserID: "u"})
	require.NoError(t, err)
	require.Len(t, page.Sessions, 1)
	count, err := s.ActiveCount(ctx, messages.SessionActiveCount{})
	require.NoError(t, err)
	require.EqualValues(t, 1, count.TotalActive)
	analytics, err := s.Analytics(ctx, messages.SessionAnalytics{})
	require.NoError(t, err)
	require.EqualValues(t, 1, analytics.Statistics.MaxInteractions)

	other, err := s.Create(ctx, messages.SessionCreate{UserID: "u"})
	require.NoError(t, err)
	user, err := s.DeleteUser(ctx, messages.SessionDeleteUser{UserID: "u", ExceptSessionID: id})
	require.NoError(t, err)
	require.EqualValues(t, 1, user.Deleted)
	bulk, err := s.BulkDelete(ctx, messages.SessionBulkDelete{SessionIDs: []string{other.Session.SessionID}})
	require.NoError(t, err)
	require.Zero(t, bulk.Deleted)
	deleted, err := s.Delete(ctx, messages.SessionDelete{SessionID: id})
	require.NoError(t, err)
	require.True(t, deleted.Deleted)
	cleaned, err := s.CleanupInactive(ctx, messages.SessionCleanupInactive{OlderThanDays: new(0.0)})
	require.NoError(t, err)
	require.EqualValues(t, 2, cleaned.Deleted)
	_, err = s.GetByToken(ctx, messages.SessionGetByToken{Token: rotated.Token})
	require.Equal(t, messages.SessionNotFound().Error(), err.Error())
}
