package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/messages"
)

func TestMapError(t *testing.T) {
	t.Parallel()
	expired, cancel := context.WithCancel(t.Context())
	cancel()
	server := func(code string) error {
		return fmt.Errorf("statement: %w", &pgconn.PgError{Severity: "ERROR", Code: code})
	}
	fatal := &pgconn.PgError{Severity: "FATAL", Code: "57P01"}
	known := &messages.Error{Code: messages.CodeNotFound}
	for name, test := range map[string]struct {
		err      error
		ctx      context.Context
		readOnly bool
		code     messages.Code
		outcome  messages.Outcome
	}{
		"the contract's own stays":    {err: fmt.Errorf("wrapped: %w", known), code: messages.CodeNotFound},
		"the caller's deadline":       {err: io.EOF, ctx: expired, code: messages.CodeDeadlineExceeded},
		"unique violation":            {err: server("23505"), code: messages.CodeConflict},
		"untranslatable character":    {err: server("22P05"), code: messages.CodeInvalid},
		"statement timeout":           {err: server("57014"), code: messages.CodeDeadlineExceeded},
		"deadlock":                    {err: server("40P01"), code: messages.CodeUnavailable, outcome: messages.OutcomeNotApplied},
		"frozen transaction":          {err: server("25P03"), code: messages.CodeUnavailable, outcome: messages.OutcomeNotApplied},
		"standby":                     {err: server("25006"), code: messages.CodeUnavailable, outcome: messages.OutcomeNotApplied},
		"disk full":                   {err: server("53100"), code: messages.CodeUnavailable, outcome: messages.OutcomeNotApplied},
		"undefined table":             {err: server("42P01"), code: messages.CodeInternal},
		"killed session":              {err: fatal, code: messages.CodeUnavailable, outcome: messages.OutcomeUnknown},
		"killed session of a read":    {err: fatal, readOnly: true, code: messages.CodeUnavailable, outcome: messages.OutcomeNotApplied},
		"too many at the door":        {err: notSent(fatal), code: messages.CodeUnavailable, outcome: messages.OutcomeNotApplied},
		"broken connection":           {err: io.ErrUnexpectedEOF, code: messages.CodeUnavailable, outcome: messages.OutcomeUnknown},
		"broken connection of a read": {err: io.ErrUnexpectedEOF, readOnly: true, code: messages.CodeUnavailable, outcome: messages.OutcomeNotApplied},
		"anything else":               {err: errors.New("a bug"), code: messages.CodeInternal},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := test.ctx
			if ctx == nil {
				ctx = t.Context()
			}
			got := messages.AsError(mapError(ctx, test.err, test.readOnly))
			require.Equal(t, test.code, got.Code)
			require.Equal(t, test.outcome, got.Details.Outcome)
		})
	}
	require.NoError(t, mapError(t.Context(), nil, false))
}

func TestServerFaultsHideTheData(t *testing.T) {
	t.Parallel()
	err := mapError(t.Context(), &pgconn.PgError{Severity: "ERROR", Code: "22P02", Message: `invalid input syntax: "secret"`}, false)
	require.NotContains(t, err.Error(), "secret")
	require.Contains(t, err.Error(), "22P02")
	require.Equal(t, "22P02", SQLState(err))
}
