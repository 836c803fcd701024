package doctor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/messages"
)

const (
	// streamTimeout is short: a user who may not ask for the stream is not told so, and waits.
	streamTimeout = 2 * time.Second
	closeTimeout  = 2 * time.Second
)

// answers are the workers that have answered over NATS; unknown without NATS.
type answers struct {
	known   bool
	members []bus.Member
}

// examineNATS makes all checks of NATS, and asks the workers on the way.
func examineNATS(ctx context.Context, cfg Config) ([]Finding, answers) {
	ctx, cancel := context.WithTimeoutCause(ctx, natsTimeout, fmt.Errorf("NATS timeout (%s) exceeded", natsTimeout))
	defer cancel()
	reachable := ok("nats.reachable", "%s", config.HideSecrets(cfg.NATSURL))
	conn, err := bus.ConnectOnce(bus.ConnConfig{
		URL: cfg.NATSURL, Creds: cfg.NATSCreds, CA: cfg.NATSCA, Program: cfg.Program, Instance: cfg.Instance,
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		reachable.Seen += ": " + explain(ctx, err)
		return []Finding{reachable.fail(mendNATS(err))}, answers{}
	}
	defer closeNATS(ctx, conn)
	info, err := conn.ServerInfo(ctx)
	if err != nil {
		reachable.Seen += ": " + explain(ctx, err)
		return []Finding{reachable.fail("nats server ping")}, answers{}
	}
	reachable.Seen += fmt.Sprintf(", round trip %s", info.RoundTrip.Round(10*time.Microsecond))
	findings := []Finding{reachable, ok("nats.version", "nats-server %s", info.Version), judgeMaxPayload(info.MaxPayload), checkStream(ctx, conn)}
	members, err := discover(ctx, conn)
	if err != nil {
		return append(findings, ok("workers.answer", "could not be asked: %s", explain(ctx, err)).warn("allow this user to publish to $SRV.>")), answers{}
	}
	return findings, answers{known: true, members: members}
}

func closeNATS(ctx context.Context, conn *bus.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_ = conn.Close(ctx)
}

func mendNATS(err error) string {
	text := strings.ToLower(err.Error())
	if strings.Contains(text, "authorization") || strings.Contains(text, "authentication") {
		return "check user and password in MORELLO_NATS_URL, or MORELLO_NATS_CREDS: the operator's, of deploy/nats"
	}
	return "start nats-server, or name another in MORELLO_NATS_URL; \"make up\" starts one here"
}

func judgeMaxPayload(limit int64) Finding {
	f := ok("nats.max_payload", "%d bytes", limit)
	if limit < messages.MaxPayload {
		f.Seen += fmt.Sprintf(", less than %d: large values and replies are refused", messages.MaxPayload)
		return f.warn("max_payload: 8MB   # in nats-server.conf, then: nats-server --signal reload")
	}
	return f
}

// checkStream looks at the stream of events, which a scheduler creates and updates when it starts.
func checkStream(ctx context.Context, conn *bus.Conn) Finding {
	ctx, cancel := context.WithTimeoutCause(ctx, streamTimeout, errors.New("no answer within "+streamTimeout.String()))
	defer cancel()
	const check, restart = "nats.events", "restart the schedulers: they create and update the stream when they start"
	subjects, err := conn.EventStreamSubjects(ctx)
	switch {
	case errors.Is(err, bus.ErrNoJetStream):
		return ok(check, "%s: no scheduler can start, no event is kept", err).fail("jetstream { store_dir: \"/data\" }   # in nats-server.conf, then restart it")
	case errors.Is(err, bus.ErrNoEventStream):
		return ok(check, "%s: no event is kept", err).warn(restart)
	case err != nil:
		return ok(check, "could not be examined: %s", explain(ctx, err)).warn("allow this user to publish to $JS.API.STREAM.INFO." + messages.EventStream)
	}
	for _, wanted := range messages.EventStreamSubjects() {
		if !slices.Contains(subjects, wanted) {
			return ok(check, "the stream %s does not take %s", messages.EventStream, wanted).warn(restart)
		}
	}
	return ok(check, "the stream %s takes %s", messages.EventStream, listed(subjects))
}

func discover(ctx context.Context, conn *bus.Conn) ([]bus.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, discoveryTime)
	defer cancel()
	return conn.Discover(ctx)
}
