// Package doctor examines a deployment: what can be reached, in which versions, and which settings hurt, each with its mend.
// It changes nothing, prints no secret, and waits for nobody longer than a few seconds.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/messages"
)

const (
	// postgresTimeout and natsTimeout bound all that is asked of one server.
	postgresTimeout = 15 * time.Second
	natsTimeout     = 10 * time.Second
	// discoveryTime is how long workers may take to answer: nobody knows how many there are.
	discoveryTime = time.Second
)

// Status of a finding.
type Status string

// The statuses. OK is as it should be. Warn works, and hurts or may hurt one day. Fail does not work, or loses data.
const (
	OK   Status = "ok"
	Warn Status = "warn"
	Fail Status = "fail"
)

// Finding is the result of one check.
type Finding struct {
	Status Status `json:"status"`
	// Check is <what>.<of it>, such as nats.max_payload.
	Check string `json:"check"`
	// Seen says what is there.
	Seen string `json:"seen"`
	// Mend is a command or setting that mends it, to be pasted; empty for OK.
	Mend string `json:"mend,omitempty"`
}

// Config says what to examine.
type Config struct {
	config.Config
	// Program and Instance name the connections. NATS grants the program its inboxes.
	Program  string
	Instance string
	// WorkerConns and SchedulerConns are the connections to PostgreSQL that one of each opens at most.
	WorkerConns    int
	SchedulerConns int
}

// Run makes all checks, and returns what they found in a fixed order. A server that cannot be reached is a finding; what
// could have been asked of it is left out.
func Run(ctx context.Context, cfg Config) []Finding {
	findings := examineConfig(cfg)
	postgresFindings, leased := examinePostgres(ctx, cfg)
	natsFindings, members := examineNATS(ctx, cfg)
	findings = append(append(findings, postgresFindings...), natsFindings...)
	return append(findings, examineWorkers(leased, members)...)
}

func ok(check, format string, args ...any) Finding {
	return Finding{Status: OK, Check: check, Seen: fmt.Sprintf(format, args...)}
}

func (f Finding) warn(mend string) Finding { return f.with(Warn, mend) }
func (f Finding) fail(mend string) Finding { return f.with(Fail, mend) }

func (f Finding) with(status Status, mend string) Finding {
	f.Status, f.Mend = status, mend
	return f
}

// examineConfig needs no server.
func examineConfig(cfg Config) []Finding {
	findings := []Finding{ok("config.version", "morello %s, contract %s", config.Version, messages.ContractVersion)}
	const check = "config.unknown"
	unknown := cfg.Unknown()
	if len(unknown) == 0 {
		return append(findings, ok(check, "every MORELLO_ variable means something to this version"))
	}
	seen := ok(check, "%s: no setting of this version; misspelled?", strings.Join(unknown, ", "))
	return append(findings, seen.warn("unset "+strings.Join(unknown, " ")+"   # \"morello config\" lists the settings"))
}

// explain returns on one line what went wrong: our own time-out, what PostgreSQL said, what the network said, or the error.
func explain(ctx context.Context, err error) string {
	var server *pgconn.PgError
	var network *net.OpError
	var known *messages.Error
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.As(err, &server):
		return server.Message
	case errors.As(err, &network):
		err = network
	case errors.As(err, &known) && known.Cause != nil:
		err = known.Cause
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}

// listed returns the first few of a list, as text.
func listed(list []string) string {
	const most = 5
	if len(list) > most {
		list = append(slices.Clone(list[:most]), fmt.Sprintf("and %d more", len(list)-most))
	}
	return strings.Join(list, ", ")
}
