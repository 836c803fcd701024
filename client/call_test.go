package client_test

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/client"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/messages"
)

// TestEveryEndpointHasAMethod: cache.get_many is c.Cache().GetMany, with the types of the table. What is the operator's is
// not called in the name of a tenant.
func TestEveryEndpointHasAMethod(t *testing.T) {
	t.Parallel()
	for _, endpoint := range messages.Endpoints() {
		if endpoint.Operator {
			continue
		}
		group, ok := reflect.TypeFor[*client.Client]().MethodByName(goName(endpoint.Capability()))
		require.True(t, ok, "Client has no method for the capability of %s", endpoint.Name)
		method, ok := group.Type.Out(0).MethodByName(goName(endpoint.Operation()))
		require.True(t, ok, "%s has no method for %s", group.Type.Out(0), endpoint.Name)
		require.Equal(t, 3, method.Type.NumIn(), endpoint.Name)
		require.Equal(t, endpoint.Request, method.Type.In(2), endpoint.Name)
		require.Equal(t, endpoint.Reply, method.Type.Out(0), endpoint.Name)
	}
}

func goName(snake string) string {
	var name strings.Builder
	for word := range strings.SplitSeq(snake, "_") {
		name.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return name.String()
}

// TestMethodsCallTheirEndpoints calls each method once against a real worker; a method of another endpoint with the same
// types would be seen in what it does.
func TestMethodsCallTheirEndpoints(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t, client.Config{URL: startStack(t)}).Cache(), t.Context()
	set, err := c.Set(ctx, messages.CacheSet{Key: "a", Value: []byte(`{"n":1.0}`), Tags: []string{"t"}})
	require.NoError(t, err)
	require.True(t, set.Stored)
	got, err := c.Get(ctx, messages.CacheGet{Key: "a"})
	require.NoError(t, err)
	require.True(t, got.Found)
	require.Equal(t, `{"n":1.0}`, string(got.Value))
	require.Equal(t, set.Version, got.Version)
	missed, err := c.Get(ctx, messages.CacheGet{Key: "other"})
	require.NoError(t, err)
	require.False(t, missed.Found)

	stored, err := c.SetMany(ctx, messages.CacheSetMany{Entries: []messages.CacheSetEntry{{Key: "b", Value: []byte("1")}, {Key: "c", Value: []byte("2")}}})
	require.NoError(t, err)
	require.Equal(t, 2, stored.Stored)
	many, err := c.GetMany(ctx, messages.CacheGetMany{Keys: []string{"b", "x"}})
	require.NoError(t, err)
	require.Equal(t, "1", string(many.Entries["b"].Value))
	require.Nil(t, many.Entries["x"])
	sum, err := c.Increment(ctx, messages.CacheIncrement{Key: "b"})
	require.NoError(t, err)
	require.EqualValues(t, 2, sum.Value)
	touched, err := c.Touch(ctx, messages.CacheTouch{Key: "a"})
	require.NoError(t, err)
	require.True(t, touched.Touched)

	keys, err := c.Keys(ctx, messages.CacheKeys{})
	require.NoError(t, err)
	require.Len(t, keys.Keys, 3)
	tagged, err := c.GetByTags(ctx, messages.CacheGetByTags{Tags: []string{"t"}})
	require.NoError(t, err)
	require.Len(t, tagged.Entries, 1)
	deleted, err := c.Delete(ctx, messages.CacheDelete{Key: "a"})
	require.NoError(t, err)
	require.True(t, deleted.Deleted)
	both, err := c.DeleteMany(ctx, messages.CacheDeleteMany{Keys: []string{"b", "x"}})
	require.NoError(t, err)
	require.Equal(t, 1, both.Deleted)
	info, err := c.Info(ctx, messages.CacheInfo{})
	require.NoError(t, err)
	require.Positive(t, info.Statistics.TotalEntries)
	cleared, err := c.Clear(ctx, messages.CacheClear{All: true})
	require.NoError(t, err)
	require.EqualValues(t, 1, cleared.Removed)
}

// TestRefusedBeforeSending: there is no worker, so that what is sent would be unavailable.
func TestRefusedBeforeSending(t *testing.T) {
	t.Parallel()
	c, ctx := connect(t, client.Config{URL: devtest.NATS(t).URL(), Attempts: 1}), t.Context()
	get := func(ctx context.Context) error {
		_, err := c.Cache().Get(ctx, messages.CacheGet{Key: "k"})
		return err
	}
	requireCode(t, messages.CodeUnavailable, get(ctx))

	_, err := c.Cache().Get(ctx, messages.CacheGet{})
	require.Equal(t, "key", requireCode(t, messages.CodeInvalid, err).Field)
	_, err = c.Cache().Set(ctx, messages.CacheSet{Key: "k", Value: []byte("{")})
	requireCode(t, messages.CodeInvalid, err)
	for _, bad := range []string{strings.Repeat("k", 129), "a\nb", "\xff"} {
		err = get(client.WithIdempotencyKey(ctx, bad))
		require.Equal(t, messages.HeaderIdempotencyKey, requireCode(t, messages.CodeInvalid, err).Field)
	}
	err = get(client.WithActor(ctx, "a\r\nStatus: 503"))
	require.Equal(t, messages.HeaderActor, requireCode(t, messages.CodeInvalid, err).Field)

	operator := messages.CacheGetEndpoint
	operator.Operator = true
	_, err = client.Call(ctx, c, operator, messages.CacheGet{Key: "k"})
	requireCode(t, messages.CodeForbidden, err)
}

// TestSizeLimit: the headers count too, and the connection survives. Entries of 4 MiB are allowed, two of them are more
// than a message holds.
func TestSizeLimit(t *testing.T) {
	t.Parallel()
	c := connect(t, client.Config{URL: startStack(t)})
	large := []byte(`"` + strings.Repeat("v", messages.MaxCacheValueBytes-2) + `"`)
	_, err := c.Cache().SetMany(t.Context(), messages.CacheSetMany{Entries: []messages.CacheSetEntry{{Key: "a", Value: large}, {Key: "b", Value: large}}})
	requireCode(t, messages.CodeTooLarge, err)
	require.ErrorContains(t, err, "8388608")
	reply, err := c.Cache().Set(t.Context(), messages.CacheSet{Key: "a", Value: large})
	require.NoError(t, err)
	require.True(t, reply.Stored)
}

func TestHeadersOfTheContext(t *testing.T) {
	t.Parallel()
	natsURL := devtest.NATS(t).URL()
	seen := respond(t, natsURL, "cache.set", func(int, *nats.Msg) *messages.Error { return nil })
	c := connect(t, client.Config{URL: natsURL})
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ctx = client.WithTraceparent(client.WithActor(client.WithIdempotencyKey(ctx, "key"), "agent:7"), trace)
	_, err := c.Cache().Set(ctx, messages.CacheSet{Key: "k", Value: []byte("1")})
	require.NoError(t, err)
	_, err = c.Cache().Set(client.WithIdempotencyKey(t.Context(), ""), messages.CacheSet{Key: "k", Value: []byte("1")})
	require.NoError(t, err)
	header := (<-seen).Header
	require.Equal(t, "key", header.Get(messages.HeaderIdempotencyKey))
	require.Equal(t, "agent:7", header.Get(messages.HeaderActor))
	require.Equal(t, trace, header.Get(messages.HeaderTraceparent))
	require.InDelta(t, 30_000, timeoutOf(t, header), 5000)
	header = (<-seen).Header
	require.NotContains(t, header, messages.HeaderIdempotencyKey)
	require.NotContains(t, header, messages.HeaderActor)
	require.NotContains(t, header, messages.HeaderTimeout) // the worker assumes the endpoint's own
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	c := connect(t, client.Config{URL: startStack(t)})
	ctx := client.WithIdempotencyKey(t.Context(), "once")
	for range 3 {
		reply, err := c.Cache().Increment(ctx, messages.CacheIncrement{Key: "k"})
		require.NoError(t, err)
		require.EqualValues(t, 1, reply.Value)
	}
	_, err := c.Cache().Increment(ctx, messages.CacheIncrement{Key: "other"})
	requireCode(t, messages.CodeConflict, err)
}

// TestDeployedGrants: with the permissions of deploy/nats a client works for its tenant, and is told so when it is not its.
func TestDeployedGrants(t *testing.T) {
	t.Parallel()
	broker := devtest.NATSWithConfig(t, "../deploy/nats/nats-server.conf")
	startWorker(t, devtest.Database(t), login(broker.URL(), "_worker", password))
	c := connect(t, client.Config{URL: login(broker.URL(), "acme", password)})
	_, err := c.Cache().Set(t.Context(), messages.CacheSet{Key: "k", Value: []byte("1")})
	require.NoError(t, err)
	reply, err := c.Cache().Get(t.Context(), messages.CacheGet{Key: "k"})
	require.NoError(t, err)
	require.True(t, reply.Found)

	_, err = client.Connect(t.Context(), client.Config{URL: login(broker.URL(), "acme", password), Tenant: "other", Log: discard})
	requireCode(t, messages.CodeForbidden, err)
	_, err = client.Connect(t.Context(), client.Config{URL: login(broker.URL(), "acme", "wr0ngpassword"), Tenant: "acme", Log: discard})
	requireCode(t, messages.CodeUnauthorized, err)
	require.NotContains(t, err.Error(), "wr0ngpassword")
}

func TestConnectRefusesBadSettings(t *testing.T) {
	t.Parallel()
	for field, cfg := range map[string]client.Config{
		"tenant":   {Tenant: "_admin"},
		"attempts": {Tenant: "acme", Attempts: -1},
		"creds":    {Tenant: "acme", Creds: "/absent.creds"},
		"ca":       {Tenant: "acme", CA: "/absent.pem"},
	} {
		_, err := client.Connect(t.Context(), cfg)
		require.Equal(t, field, requireCode(t, messages.CodeInvalid, err).Field)
	}
	for _, url := range []string{"nats://u:s3cret%@h", "nats://u:s3/cret@h", "nats://u:1#s3cret@h", "nats://u:s3cret@h:port", "a,u:s3cret@"} {
		_, err := client.Connect(t.Context(), client.Config{URL: url, Tenant: "acme"})
		require.Equal(t, "url", requireCode(t, messages.CodeInvalid, err).Field, url)
		require.NotContains(t, err.Error(), "cret")
		require.NoError(t, errors.Unwrap(err))
	}
}

func TestConnectGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := client.Connect(ctx, client.Config{URL: "nats://u:s3cret@127.0.0.1:1", Tenant: "acme", Log: discard})
	require.Equal(t, messages.OutcomeNotApplied, requireCode(t, messages.CodeUnavailable, err).Outcome)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "127.0.0.1:1")
	require.NotContains(t, err.Error()+errors.Unwrap(err).Error(), "s3cret")
}

// TestCloseWaitsForCalls: the reply comes after Close has begun, and arrives.
func TestCloseWaitsForCalls(t *testing.T) {
	t.Parallel()
	natsURL := devtest.NATS(t).URL()
	asked, answer := make(chan struct{}), make(chan struct{})
	respond(t, natsURL, "cache.get", func(int, *nats.Msg) *messages.Error {
		close(asked)
		<-answer
		return nil
	})
	c := connect(t, client.Config{URL: natsURL})
	called, closed := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := c.Cache().Get(t.Context(), messages.CacheGet{Key: "k"})
		called <- err
	}()
	<-asked
	go func() { closed <- c.Close(t.Context()) }()
	require.Eventually(t, func() bool {
		_, err := c.Cache().Keys(t.Context(), messages.CacheKeys{})
		return strings.Contains(err.Error(), "the client is closed")
	}, 10*time.Second, time.Millisecond)
	require.Empty(t, closed)
	close(answer)
	require.NoError(t, <-called)
	require.NoError(t, <-closed)
}

// TestCloseGivesUpWithItsContext: nobody answers; the call fails, although it has a minute.
func TestCloseGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	natsURL := devtest.NATS(t).URL()
	asked := respond(t, natsURL, "cache.increment", func(int, *nats.Msg) *messages.Error { return errSilence })
	c := connect(t, client.Config{URL: natsURL})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	called := make(chan error, 1)
	go func() {
		_, err := c.Cache().Increment(ctx, messages.CacheIncrement{Key: "k"})
		called <- err
	}()
	<-asked
	ended, end := context.WithCancel(t.Context())
	end()
	require.ErrorIs(t, c.Close(ended), context.Canceled)
	require.Equal(t, messages.OutcomeUnknown, requireCode(t, messages.CodeUnavailable, <-called).Outcome)
}
