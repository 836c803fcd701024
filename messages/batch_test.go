package messages_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/ai-cherry/morello/messages"
)

// TestBatchesAreSplitAsTheyWereJoined, whatever brackets, quotes and commas their elements hold.
func TestBatchesAreSplitAsTheyWereJoined(t *testing.T) {
	t.Parallel()
	element := rapid.SampledFrom([]string{
		`{}`, `{"a":[1,{"b":"],}\\"}]}`, `"\""`, `"a,b"`, `1`, `[[],[]]`, `null`, `{"\\":"\\\\\"","x":"}{"}`, `{ "a" : 1 }`,
	})
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(element, 1, messages.MaxBatchRequests).Draw(t, "elements")
		bodies := make([][]byte, len(want))
		for i, text := range want {
			bodies[i] = []byte(text)
		}
		joined := messages.JoinBatch(bodies)
		require.True(t, jsontext.Value(joined).IsValid())
		spaced := " [ \n" + strings.Join(want, "\t,\r ") + " ]\n"
		for _, text := range []string{string(joined), spaced} {
			got, err := messages.SplitBatch([]byte(text), len(want))
			require.NoError(t, err)
			require.Equal(t, bodies, got)
			_, err = messages.SplitBatch([]byte(text), len(want)+1)
			require.Error(t, err)
			_, err = messages.SplitBatch([]byte(text), len(want)-1)
			require.Error(t, err)
		}
	})
}

func TestMalformedBatches(t *testing.T) {
	t.Parallel()
	for text, field := range map[string]string{
		``: "", `[`: "", `{}`: "", `[1`: "", `1]`: "", `[]`: "[0]", `[ ]`: "[0]",
	} {
		_, err := messages.SplitBatch([]byte(text), 1)
		var known *messages.Error
		require.ErrorAs(t, err, &known, text)
		require.Equal(t, messages.CodeInvalid, known.Code)
		require.Equal(t, field, known.Details.Field, text)
	}
	for _, text := range []string{`[1,]`, `[,1]`, `["a,b]`, `[{"a":1,2]`} {
		_, err := messages.SplitBatch([]byte(text), 2)
		require.Error(t, err, text)
	}
}

func FuzzSplitBatch(f *testing.F) {
	f.Add([]byte(`[{"a":"\""},[1,2]]`), 2)
	f.Add([]byte(`["`), 1)
	f.Fuzz(func(t *testing.T, text []byte, n int) {
		if n < 1 || n > messages.MaxBatchRequests {
			return
		}
		elements, err := messages.SplitBatch(text, n)
		if err == nil {
			require.Len(t, elements, n)
		}
		var decoded []jsontext.Value
		if messages.DecodeReply(text, &decoded) == nil && len(decoded) == n {
			require.NoError(t, err)
			for i, element := range elements {
				require.Equal(t, string(decoded[i]), string(element))
			}
		}
	})
}

// TestFailuresAreToldFromReplies: no reply of an operation that takes several requests at once has the member that a failure is
// told by.
func TestFailuresAreToldFromReplies(t *testing.T) {
	t.Parallel()
	batched := 0
	for _, endpoint := range messages.Endpoints() {
		if !endpoint.Batched {
			continue
		}
		batched++
		require.False(t, messages.IsRaw(endpoint.Request) || messages.IsRaw(endpoint.Reply), endpoint.Name)
		for _, field := range reflect.VisibleFields(endpoint.Reply) {
			require.NotRegexp(t, `^error\b`, field.Tag.Get("json"), endpoint.Name)
		}
	}
	require.Positive(t, batched)
	failure := &messages.Error{Code: messages.CodeNotFound, Message: "gone", Details: messages.ErrorDetails{Field: "f"}}
	body, err := messages.Encode(failure.Body(false))
	require.NoError(t, err)
	require.Equal(t, failure, messages.BatchedError(body))
	require.Nil(t, messages.BatchedError([]byte(`{"found":false}`)))
}
