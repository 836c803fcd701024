package nats_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// patience bounds every wait for what must come.
const patience = 10 * time.Second

// tenants are those of the test: that of the configuration, another, and some that bear the name of a program.
var tenants = []string{"acme", "other", "operator", "gateway", "worker", "scheduler"}

var programs = []string{"_operator", "_gateway", "_worker", "_scheduler"}

func TestMain(m *testing.M) {
	for _, program := range programs {
		setenv("MORELLO_NATS_"+strings.ToUpper(program[1:])+"_PASSWORD", password(program))
	}
	for _, tenant := range tenants {
		setenv(passwordVariable(tenant), password(tenant))
	}
	goleak.VerifyTestMain(m)
}

func setenv(name, value string) {
	if err := os.Setenv(name, value); err != nil {
		panic(err)
	}
}

func passwordVariable(tenant string) string {
	return "MORELLO_NATS_TENANT_" + strings.ToUpper(tenant) + "_PASSWORD"
}

func password(user string) string { return "secret" + user }

// withTenants adds the other tenants to the configuration as its comment tells a reader to.
func withTenants(t *testing.T, config string) string {
	t.Helper()
	const variable, end = `TENANT_ACME_USER: "acme"`, "# END tenant acme"
	_, block, found := strings.Cut(config, "# BEGIN tenant acme")
	require.True(t, found)
	block, _, found = strings.Cut(block, end)
	require.True(t, found)
	for _, tenant := range tenants[1:] {
		named := strings.NewReplacer("acme", tenant, "ACME", strings.ToUpper(tenant))
		config = strings.Replace(config, end, end+"\n"+named.Replace(block), 1)
		config = strings.Replace(config, variable, variable+"\n"+named.Replace(variable), 1)
	}
	return config
}

func readConfig(t *testing.T) string {
	t.Helper()
	config, err := os.ReadFile("nats-server.conf")
	require.NoError(t, err)
	return string(config)
}

func processConfig(t *testing.T, config string) (*server.Options, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "nats-server.conf")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	return server.ProcessConfigFile(file)
}

// startServer runs the configuration, with all tenants, on a free port of the loopback interface.
func startServer(t *testing.T) *server.Server {
	t.Helper()
	options, err := processConfig(t, withTenants(t, readConfig(t)))
	require.NoError(t, err)
	options.Host, options.Port, options.HTTPPort = "127.0.0.1", server.RANDOM_PORT, 0
	options.StoreDir = t.TempDir()
	options.NoLog, options.NoSigs = true, true
	running, err := server.NewServer(options)
	require.NoError(t, err)
	running.Start()
	t.Cleanup(func() {
		running.Shutdown()
		running.WaitForShutdown()
	})
	require.True(t, running.ReadyForConnections(patience))
	return running
}

// connect logs in as a tenant or as a program, with the inbox prefix that belongs to it.
func connect(t *testing.T, running *server.Server, user string) *nats.Conn {
	t.Helper()
	conn, err := nats.Connect(running.ClientURL(), nats.UserInfo(user, password(user)),
		nats.CustomInboxPrefix("_INBOX."+user), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	return conn
}

// verdict is the answer of the server to what was just sent: nil, or its refusal.
func verdict(t *testing.T, conn *nats.Conn) error {
	t.Helper()
	require.NoError(t, conn.FlushTimeout(patience))
	return conn.LastError()
}

func TestServerOptions(t *testing.T) {
	t.Parallel()
	options, err := processConfig(t, readConfig(t))
	require.NoError(t, err)
	require.EqualValues(t, 8<<20, options.MaxPayload)
	require.True(t, options.JetStream)
	require.Equal(t, "127.0.0.1", options.HTTPHost)
	require.Len(t, options.Users, 5)
	for _, user := range options.Users {
		require.Equal(t, password(user.Username), user.Password)
		require.NotEmpty(t, user.Permissions.Publish.Allow)
		require.NotEmpty(t, user.Permissions.Subscribe.Allow)
	}
}

func TestMissingPasswordIsRefused(t *testing.T) {
	t.Parallel()
	_, err := processConfig(t, strings.ReplaceAll(readConfig(t), "$MORELLO_NATS_WORKER_PASSWORD", "$MORELLO_NATS_NOT_SET"))
	require.ErrorContains(t, err, "MORELLO_NATS_NOT_SET")
}

func TestWrongPasswordIsRefused(t *testing.T) {
	t.Parallel()
	running := startServer(t)
	for _, login := range []nats.Option{
		nats.UserInfo("acme", password("other")), nats.UserInfo("_worker", ""), nats.UserInfo("worker", password("_worker")),
		nats.UserInfo("nobody", "x"), nats.Name("without login"),
	} {
		_, err := nats.Connect(running.ClientURL(), login)
		require.ErrorIs(t, err, nats.ErrAuthorization)
	}
}

// grants is the table of permissions: subjects that each user may and may not publish or subscribe to. "subject group"
// subscribes in a queue group.
var grants = []struct {
	user               string
	publish, subscribe []string
	// noPublish and noSubscribe are refused.
	noPublish, noSubscribe []string
}{
	{
		user:      "acme",
		publish:   []string{"morello.v1.acme.cache.get", "morello.v1.acme.session.create"},
		subscribe: []string{"morello.events.v1.acme.>", "morello.events.v1.acme.session.created", "morello.events.v1.acme.cache.*", "_INBOX.acme.>", "_INBOX.acme.x.*"},
		noPublish: append([]string{
			"morello.v1.other.cache.get", "morello.v1._admin.pool.stats", "morello.v1.*.cache.get", "morello.v1.>",
			"morello.v1.acme.cache", "morello.v1.acme.cache.get.more",
			"morello.events.v1.acme.session.created", "morello.events.v1.other.session.created", "morello.events.v1._admin.maintenance.analyze",
			"morello.control.v1.all.ping", "_INBOX.acme.x", "_INBOX.other.x", "_INBOX._worker.x", "_INBOX._gateway.x", "_R_.x",
		}, serverSubjects...),
		noSubscribe: append([]string{
			">", "*", "*.>", "*.acme.>", "_INBOX.>", "_INBOX.*", "_INBOX.*.>", "_INBOX.*.x", "_INBOX.other.>", "_INBOX.other.x",
			"_INBOX._worker.>", "_INBOX._gateway.>", "_INBOX._operator.>", "_INBOX._scheduler.>", "_INBOX.acme", "_R_.>",
			"morello.>", "morello.v1.>", "morello.v1.acme.*.*", "morello.v1.acme.cache.get", "morello.v1.acme.cache.get morello",
			"morello.v1.*.*.* morello", "morello.control.v1.>", "morello.control.v1.all.ping",
			"morello.events.v1.>", "morello.events.v1.*.>", "morello.events.v1.*.session.created", "morello.events.v1.other.>",
			"morello.events.v1.other.> acme", "morello.events.v1._admin.>", "_INBOX.other.> acme",
		}, serverSubjects...),
	},
	{
		user: "_operator",
		publish: []string{
			"morello.v1.acme.cache.get", "morello.v1._admin.pool.stats", "morello.control.v1.all.ping", "$SRV.PING", "$SRV.STATS.morello",
			"$JS.API.INFO", "$JS.API.STREAM.INFO.MORELLO_EVENTS", "$JS.API.STREAM.PURGE.MORELLO_EVENTS",
		},
		subscribe:   []string{"morello.events.v1.>", "_INBOX._operator.>"},
		noPublish:   []string{"morello.events.v1.acme.session.created", "_INBOX.acme.x", "$SYS.REQ.SERVER.PING"},
		noSubscribe: []string{">", "_INBOX.>", "_INBOX.acme.>", "_INBOX.operator.>", "morello.v1.>", "morello.v1.*.*.* morello", "$SYS.>", "$SRV.>"},
	},
	{
		user:      "_gateway",
		publish:   []string{"morello.v1.acme.cache.get", "morello.v1._admin.system.health", "$SRV.PING", "$SRV.INFO.morello"},
		subscribe: []string{"morello.events.v1.>", "morello.events.v1.acme.>", "_INBOX._gateway.>"},
		noPublish: []string{
			"morello.events.v1.acme.session.created", "morello.control.v1.all.ping", "_INBOX.acme.x",
			"$JS.API.INFO", "$JS.API.STREAM.DELETE.MORELLO_EVENTS", "$SYS.REQ.SERVER.PING",
		},
		noSubscribe: []string{
			">", "_INBOX.>", "_INBOX.acme.>", "_INBOX.gateway.>", "_INBOX._worker.>", "morello.v1.>",
			"morello.v1.*.*.* morello", "morello.control.v1.>", "$SRV.>", "$SYS.>",
		},
	},
	{
		user: "_worker",
		publish: []string{
			"_INBOX.acme.x", "_INBOX._gateway.i.x", "_INBOX.x", "_R_.x.y", "morello.events.v1.acme.session.created", "morello.events.v1._admin.maintenance.analyze",
		},
		subscribe: []string{
			"morello.v1.*.*.* morello", "morello.v1.*.cache.get morello", "morello.control.v1.all.*", "morello.control.v1.>",
			"$SRV.PING", "$SRV.INFO.morello", "$SRV.>", "_INBOX._worker.>",
		},
		noPublish: []string{
			"morello.v1.acme.cache.get", "morello.v1._admin.pool.stats", "morello.control.v1.all.ping", "$SRV.PING",
			"$JS.API.INFO", "$JS.API.STREAM.DELETE.MORELLO_EVENTS", "$JS.API.STREAM.INFO.MORELLO_EVENTS", "$JS.ACK.x", "$SYS.REQ.SERVER.PING",
		},
		noSubscribe: []string{
			">", "morello.v1.>", "morello.v1.*.*.*", "morello.v1.*.cache.get", "morello.v1.*.cache.get other", "morello.v1.> morello",
			"_INBOX.>", "_INBOX.acme.>", "_INBOX.worker.>", "_INBOX._gateway.>", "morello.events.v1.>", "$SYS.>", "$JS.>",
		},
	},
	{
		user: "_scheduler",
		publish: []string{
			"morello.events.v1._admin.maintenance.analyze", "morello.events.v1.acme.snapshot.restored", "morello.control.v1.all.ping", "_INBOX._operator.x",
			"$JS.API.STREAM.CREATE.MORELLO_EVENTS", "$JS.API.STREAM.UPDATE.MORELLO_EVENTS", "$JS.API.STREAM.INFO.MORELLO_EVENTS",
		},
		subscribe: []string{"$SRV.>", "$SRV.PING", "morello.control.v1.>", "_INBOX._scheduler.>"},
		noPublish: []string{
			"morello.v1.acme.cache.get", "morello.v1._admin.pool.stats", "$SRV.PING", "$JS.API.INFO", "$JS.API.STREAM.CREATE.OTHER",
			"$JS.API.STREAM.DELETE.MORELLO_EVENTS", "$JS.API.STREAM.PURGE.MORELLO_EVENTS", "$JS.API.STREAM.LIST",
			"$JS.API.CONSUMER.CREATE.MORELLO_EVENTS", "$SYS.REQ.SERVER.PING",
		},
		noSubscribe: []string{
			">", "morello.v1.>", "morello.v1.*.*.* morello", "morello.events.v1.>", "_INBOX.>", "_INBOX.acme.>", "_INBOX.scheduler.>", "$SYS.>",
		},
	},
}

// serverSubjects are those of JetStream, of service discovery and of the server itself: nothing for a tenant.
var serverSubjects = []string{
	"$JS.API.INFO", "$JS.API.>", "$JS.API.STREAM.LIST", "$JS.API.STREAM.CREATE.MINE", "$JS.API.STREAM.DELETE.MORELLO_EVENTS",
	"$JS.API.DIRECT.GET.MORELLO_EVENTS", "$JS.API.CONSUMER.CREATE.MORELLO_EVENTS", "$JS.API.CONSUMER.MSG.NEXT.MORELLO_EVENTS.c",
	"$JS.ACK.MORELLO_EVENTS.c.1.1.1.1.0", "$JS.EVENT.ADVISORY.API", "$SRV.>", "$SRV.PING", "$SRV.STATS.morello",
	"$SYS.>", "$SYS.REQ.SERVER.PING", "$KV.bucket.key",
}

func TestGrants(t *testing.T) {
	t.Parallel()
	running := startServer(t)
	for _, grant := range grants {
		t.Run(grant.user, func(t *testing.T) {
			t.Parallel()
			for _, subject := range grant.publish {
				require.NoError(t, publish(t, running, grant.user, subject), "publish %s", subject)
			}
			for _, subject := range grant.subscribe {
				require.NoError(t, subscribe(t, running, grant.user, subject), "subscribe %s", subject)
			}
			for _, subject := range grant.noPublish {
				requireRefused(t, publish(t, running, grant.user, subject), "Publish", subject)
			}
			for _, subject := range grant.noSubscribe {
				requireRefused(t, subscribe(t, running, grant.user, subject), "Subscription", subject)
			}
		})
	}
}

// TestTenantNamedAsAProgram shows that a tenant gains nothing from its name: it has the grants of any other tenant.
func TestTenantNamedAsAProgram(t *testing.T) {
	t.Parallel()
	running := startServer(t)
	acme := grants[0]
	for _, tenant := range tenants[2:] {
		t.Run(tenant, func(t *testing.T) {
			t.Parallel()
			for _, subject := range acme.publish {
				require.NoError(t, publish(t, running, tenant, strings.ReplaceAll(subject, "acme", tenant)))
				requireRefused(t, publish(t, running, tenant, subject), "Publish", subject)
			}
			for _, subject := range acme.subscribe {
				require.NoError(t, subscribe(t, running, tenant, strings.ReplaceAll(subject, "acme", tenant)))
				requireRefused(t, subscribe(t, running, tenant, subject), "Subscription", subject)
			}
			for _, subject := range acme.noPublish {
				subject = strings.ReplaceAll(subject, "acme", tenant)
				requireRefused(t, publish(t, running, tenant, subject), "Publish", subject)
			}
			for _, subject := range append([]string{"_INBOX._" + tenant + ".>", "_INBOX._" + tenant + ".x"}, acme.noSubscribe...) {
				subject = strings.ReplaceAll(subject, "acme", tenant)
				requireRefused(t, subscribe(t, running, tenant, subject), "Subscription", subject)
			}
		})
	}
}

// publish sends one message on a connection of its own and returns the server's verdict.
func publish(t *testing.T, running *server.Server, user, subject string) error {
	t.Helper()
	conn := connect(t, running, user)
	defer conn.Close()
	require.NoError(t, conn.Publish(subject, []byte("{}")))
	return verdict(t, conn)
}

// subscribe asks for "subject" or "subject group" on a connection of its own and returns the server's verdict.
func subscribe(t *testing.T, running *server.Server, user, subject string) error {
	t.Helper()
	conn := connect(t, running, user)
	defer conn.Close()
	subject, group, _ := strings.Cut(subject, " ")
	_, err := conn.QueueSubscribeSync(subject, group)
	require.NoError(t, err)
	return verdict(t, conn)
}

func requireRefused(t *testing.T, err error, verb, subject string) {
	t.Helper()
	subject, _, _ = strings.Cut(subject, " ")
	require.ErrorIs(t, err, nats.ErrPermissionViolation, "%s to %s", verb, subject)
	require.ErrorContains(t, err, fmt.Sprintf("for %s to %q", verb, subject))
}

// answer serves a subject with a fixed text until the test ends.
func answer(t *testing.T, conn *nats.Conn, subject, group, text string) {
	t.Helper()
	_, err := conn.QueueSubscribe(subject, group, func(message *nats.Msg) {
		if err := message.Respond([]byte(text)); err != nil {
			panic(err)
		}
	})
	require.NoError(t, err)
	require.NoError(t, verdict(t, conn))
}

func ask(t *testing.T, conn *nats.Conn, subject string) string {
	t.Helper()
	reply, err := conn.Request(subject, []byte("{}"), patience)
	require.NoError(t, err)
	require.NoError(t, verdict(t, conn))
	return string(reply.Data)
}

// TestConversations goes each permitted way from end to end, replies included.
func TestConversations(t *testing.T) {
	t.Parallel()
	running := startServer(t)
	acme, worker, scheduler := connect(t, running, "acme"), connect(t, running, "_worker"), connect(t, running, "_scheduler")
	gateway, operator := connect(t, running, "_gateway"), connect(t, running, "_operator")
	answer(t, worker, "morello.v1.*.cache.get", "morello", "worker")
	answer(t, worker, "morello.v1.*.pool.stats", "morello", "worker")
	answer(t, worker, "morello.control.v1.all.*", "", "worker")
	answer(t, worker, "$SRV.PING.worker", "", "worker")
	answer(t, scheduler, "morello.control.v1.scheduler-1.*", "", "scheduler")
	answer(t, scheduler, "$SRV.PING.scheduler", "", "scheduler")

	require.Equal(t, "worker", ask(t, acme, "morello.v1.acme.cache.get"))
	require.Equal(t, "worker", ask(t, gateway, "morello.v1.acme.cache.get"))
	require.Equal(t, "worker", ask(t, gateway, "morello.v1._admin.pool.stats"))
	require.Equal(t, "worker", ask(t, gateway, "$SRV.PING.worker"))
	require.Equal(t, "scheduler", ask(t, gateway, "$SRV.PING.scheduler"))
	require.Equal(t, "worker", ask(t, operator, "morello.v1._admin.pool.stats"))
	require.Equal(t, "worker", ask(t, operator, "$SRV.PING.worker"))
	require.Equal(t, "worker", ask(t, operator, "morello.control.v1.all.ping"))
	require.Equal(t, "scheduler", ask(t, operator, "morello.control.v1.scheduler-1.ping"))
	require.Equal(t, "worker", ask(t, scheduler, "morello.control.v1.all.ping"))
}

// TestTenantHearsOnlyItsOwn: what goes to another tenant does not reach this one, whatever it has tried to subscribe to.
func TestTenantHearsOnlyItsOwn(t *testing.T) {
	t.Parallel()
	running := startServer(t)
	acme, other, worker := connect(t, running, "acme"), connect(t, running, "other"), connect(t, running, "_worker")
	answer(t, worker, "morello.v1.*.cache.get", "morello", "reply to another")
	heard := make(chan *nats.Msg, 64)
	for _, subject := range []string{">", "_INBOX.>", "_INBOX.other.>", "morello.v1.>", "morello.events.v1.>", "morello.events.v1.*.>", "morello.events.v1.acme.>"} {
		_, err := acme.ChanSubscribe(subject, heard)
		require.NoError(t, err)
	}
	require.ErrorIs(t, verdict(t, acme), nats.ErrPermissionViolation)

	ask(t, other, "morello.v1.other.cache.get")
	for _, tenant := range []string{"other", "_admin", "acme"} {
		require.NoError(t, worker.Publish("morello.events.v1."+tenant+".session.created", []byte(tenant)))
	}
	require.NoError(t, verdict(t, worker))
	require.NoError(t, acme.FlushTimeout(patience))
	close(heard)
	var got []string
	for message := range heard {
		got = append(got, string(message.Data))
	}
	require.Equal(t, []string{"acme"}, got)
}

// TestEventStream does what scheduler, worker and operator do with JetStream: create and update the stream, publish with
// acknowledgement and read back.
func TestEventStream(t *testing.T) {
	t.Parallel()
	running := startServer(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	config := jetstream.StreamConfig{
		Name: "MORELLO_EVENTS", Subjects: []string{"morello.events.v1.*.session.>"},
		MaxAge: 7 * 24 * time.Hour, MaxBytes: 1 << 30, Duplicates: 2 * time.Hour,
	}
	scheduler := jetStream(t, running, "_scheduler")
	_, err := scheduler.CreateOrUpdateStream(ctx, config)
	require.NoError(t, err)
	config.Subjects = append(config.Subjects, "morello.events.v1.*.snapshot.>")
	_, err = scheduler.CreateOrUpdateStream(ctx, config)
	require.NoError(t, err)
	_, err = scheduler.Stream(ctx, "MORELLO_EVENTS")
	require.NoError(t, err)

	for _, program := range []string{"_scheduler", "_worker"} {
		publisher := jetStream(t, running, program)
		for range 2 {
			_, err := publisher.Publish(ctx, "morello.events.v1.acme.session.created", []byte("{}"), jetstream.WithMsgID(program))
			require.NoError(t, err)
		}
	}
	stream, err := jetStream(t, running, "_operator").Stream(ctx, "MORELLO_EVENTS")
	require.NoError(t, err)
	require.Equal(t, config.Subjects, stream.CachedInfo().Config.Subjects)
	require.EqualValues(t, 2, stream.CachedInfo().State.Msgs)
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	require.NoError(t, err)
	message, err := consumer.Next(jetstream.FetchMaxWait(patience))
	require.NoError(t, err)
	require.Equal(t, "morello.events.v1.acme.session.created", message.Subject())
}

func jetStream(t *testing.T, running *server.Server, user string) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(connect(t, running, user))
	require.NoError(t, err)
	return js
}
