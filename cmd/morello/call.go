package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/cli"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/messages"
)

const (
	callProgram    = "operator"
	connectTimeout = 5 * time.Second
	closeTimeout   = 2 * time.Second
)

type callFlags struct {
	tenant         string
	natsURL        string
	timeout        time.Duration
	idempotencyKey string
	actor          string
	headers        map[string]string
}

func newCallCommand() *cobra.Command {
	var flags callFlags
	call := &cobra.Command{
		Use: "call <capability>.<operation> ['<json>'|-]", Short: "Call an operation and print its reply",
		Long: "Call an operation over NATS and print its reply, one line of JSON. Without a body {} is sent; - reads it from\n" +
			"standard input. A failure is printed as the error object, and exits with 1. Raw bytes are sent with the headers that\n" +
			"--header gives, and printed as they are.\n\nOperations:\n" + operationList(),
		Example: "  morello call cache.set '{\"key\":\"greeting\",\"value\":\"hello\"}'\n" +
			"  morello call cache.get '{\"key\":\"greeting\"}' --tenant acme\n" +
			"  echo '{\"keys\":[\"a\",\"b\"]}' | morello call cache.get_many -\n" +
			"  morello call transfer.put - --header Morello-Transfer=$(uuidgen) --header Morello-Part=0 < part\n" +
			"  morello call transfer.get '{\"transfer_id\":\"…\",\"part\":0}' > part",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: completeOperation,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runCall(cmd, flags, args)
		},
	}
	call.Flags().StringVar(&flags.tenant, "tenant", "demo", "tenant to call for")
	call.Flags().StringVar(&flags.natsURL, "nats-url", "", "NATS servers (default MORELLO_NATS_URL)")
	call.Flags().DurationVar(&flags.timeout, "timeout", 0, "deadline (default that of the operation)")
	call.Flags().StringVar(&flags.idempotencyKey, "idempotency-key", "", "makes repeating a change safe for 24 hours")
	call.Flags().StringVar(&flags.actor, "actor", "", "on whose behalf, for the audit trail")
	call.Flags().StringToStringVar(&flags.headers, "header", nil, "header of a request of raw bytes, as name=value")
	return call
}

func operationList() string {
	var text strings.Builder
	for _, endpoint := range messages.Endpoints() {
		fmt.Fprintf(&text, "  %-18s %s\n", endpoint.Name, endpoint.Doc)
	}
	return strings.TrimRight(text.String(), "\n")
}

func completeOperation(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []cobra.Completion
	for _, endpoint := range messages.Endpoints() {
		names = append(names, cobra.CompletionWithDesc(endpoint.Name, endpoint.Doc))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func runCall(cmd *cobra.Command, flags callFlags, args []string) error {
	endpoint, known := messages.EndpointByName(args[0])
	if !known {
		return cli.UsageError{Err: fmt.Errorf("there is no operation %q; \"morello call --help\" lists them", args[0])}
	}
	if err := endpoint.CheckScope(flags.tenant); err != nil { // a dot in it would make another subject
		return callFailure(cmd.OutOrStdout(), err, true)
	}
	for name := range flags.headers {
		if !slices.Contains(endpoint.RawRequest, name) {
			return cli.UsageError{Err: fmt.Errorf("%s has no header %q of its own", endpoint.Name, name)}
		}
	}
	body, err := callBody(cmd.InOrStdin(), args)
	if err != nil {
		return err
	}
	cfg, err := config.Load()
	if err != nil {
		return cli.UsageError{Err: err}
	}
	if flags.natsURL != "" {
		cfg.NATSURL = flags.natsURL
	}
	conn, err := connect(cmd.Context(), cfg)
	if err != nil {
		return err
	}
	defer closeConn(cmd.Context(), conn)
	ctx := cmd.Context()
	if flags.timeout > 0 {
		limited, cancel := context.WithTimeout(ctx, flags.timeout)
		defer cancel()
		ctx = limited
	}
	headers := bus.Headers{IdempotencyKey: flags.idempotencyKey, Actor: flags.actor, Raw: flags.headers}
	reply, err := conn.CallRaw(ctx, endpoint, flags.tenant, body, headers)
	if err != nil {
		return callFailure(cmd.OutOrStdout(), err, endpoint.Repeatable(flags.idempotencyKey != ""))
	}
	if endpoint.RawReply == nil {
		reply = append(reply, '\n')
	}
	_, err = cmd.OutOrStdout().Write(reply)
	return err
}

func callBody(stdin io.Reader, args []string) ([]byte, error) {
	if len(args) < 2 {
		return []byte("{}"), nil
	}
	if args[1] == "-" {
		return io.ReadAll(stdin)
	}
	return []byte(args[1]), nil
}

// callFailure prints the error object, for programs, and returns the text, for people.
func callFailure(w io.Writer, err error, idempotent bool) error {
	failure := messages.AsError(err)
	body, encodeErr := messages.Encode(failure.Body(idempotent))
	if encodeErr != nil {
		return encodeErr
	}
	_, _ = fmt.Fprintln(w, string(body))
	return failure
}

// connect connects as the operator, and gives up after a few seconds: somebody is waiting.
func connect(ctx context.Context, cfg config.Config) (*bus.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	conn, err := bus.Connect(ctx, bus.ConnConfig{
		URL: cfg.NATSURL, Creds: cfg.NATSCreds, CA: cfg.NATSCA, Program: callProgram, Instance: uuid.NewString(), Log: log,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: is it running? \"make up\" starts one here; --nats-url or MORELLO_NATS_URL names another", err)
	}
	return conn, nil
}

func closeConn(ctx context.Context, conn *bus.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	_ = conn.Close(ctx)
}
