package session_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ai-cherry/morello/messages"
)

// TestNumbersAgreeWithPostgreSQL: what the contract takes as a number PostgreSQL takes too, and writes in as many bytes as were
// counted, or fewer; at each edge of numeric.
func TestNumbersAgreeWithPostgreSQL(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, number := range []string{
		"0", "-0", "1e3", "1E+3", "1.50", "1.5e1", "1.5e-3", "-12.25e2", "1e-16383", "1e-16384", "1.5e-16382", "1.5e-16383", "1e131071", "1e131072",
		"9.9e131071", "123e131069", "123e131070", "0e5", "0.000e-3", "0e-20000", "1e262144", "1e-262145", "12345678901234567890.123456789",
	} {
		m := messages.SessionCreate{Data: fmt.Appendf(nil, `{"n":%s}`, number)}
		if m.Validate() != nil {
			continue
		}
		var length int
		err := f.db.QueryRow(t.Context(), `SELECT morello.json_bytes($1::text::jsonb)`, string(m.Data)).Scan(&length)
		require.NoError(t, err, number)
		require.LessOrEqual(t, length, messages.MaxSessionDataBytes)
		f.create(t, m)
	}
	for _, refused := range []string{"1e-16384", "1e131072", "123e131070", "1e262144"} {
		require.Error(t, messages.SessionCreate{Data: fmt.Appendf(nil, `{"n":%s}`, refused)}.Validate(), refused)
		_, err := f.db.Exec(t.Context(), `SELECT $1::text::jsonb`, refused)
		require.Error(t, err, "PostgreSQL refuses %s as well", refused)
	}
}
