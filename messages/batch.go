package messages

import (
	"bytes"
	"fmt"
)

// A message may carry several requests to one operation, where the endpoint's Batched allows it: the header HeaderBatch says how
// many, and the body is a JSON array of them. The reply is an array of as many elements in the same order, each what the request
// would have been answered by itself: the reply, or an ErrorReply, told by its member "error". One may fail where others do not. It comes
// when the last of them is done: what may take longer than others, and what must not be asked for twice, is better sent by itself
// (GoesAlone).

const (
	// MaxBatchRequests bounds the requests of one message.
	MaxBatchRequests = 128
	// MaxBatchedReplyBytes is the size up to which a reply surely fits in with those of others. A larger one may be answered with
	// too_large: the request has taken effect, and is to be sent by itself for its reply.
	MaxBatchedReplyBytes = MaxReplyBytes / MaxBatchRequests
)

// GoesAlone reports whether a request is to share a message with no others, though its operation allows it.
func GoesAlone(request any) bool {
	r, ok := request.(interface{ goesAlone() bool })
	return ok && r.goesAlone()
}

// JoinBatch writes the body of a message from those of its requests, or of its replies.
func JoinBatch(bodies [][]byte) []byte {
	size := 2
	for _, body := range bodies {
		size += len(body) + 1
	}
	joined := append(make([]byte, 0, size), '[')
	for i, body := range bodies {
		if i > 0 {
			joined = append(joined, ',')
		}
		joined = append(joined, body...)
	}
	return append(joined, ']')
}

// SplitBatch returns the n elements of what JoinBatch wrote, without a copy. It does not look into them: who decodes an element
// finds what is wrong with it.
func SplitBatch(body []byte, n int) ([][]byte, error) {
	body = bytes.Trim(body, jsonSpace)
	if len(body) < 2 || body[0] != '[' || body[len(body)-1] != ']' {
		return nil, Invalid("", "the body must be one JSON array")
	}
	body = body[1 : len(body)-1]
	elements := make([][]byte, 0, n)
	for more := true; more; {
		length := valueLength(body)
		elements = append(elements, bytes.Trim(body[:length], jsonSpace))
		body = body[length:]
		if more = len(body) > 0 && body[0] == ',' && len(elements) < n; more {
			body = body[1:]
		}
	}
	if len(elements) != n || len(body) > 0 {
		return nil, Invalid(HeaderBatch, "must be the number of elements of the body")
	}
	for i, element := range elements {
		if len(element) == 0 {
			return nil, Invalid(fmt.Sprintf("[%d]", i), "an element is missing")
		}
	}
	return elements, nil
}

// jsonSpace is what may stand between the tokens of JSON.
const jsonSpace = " \t\r\n"

// errorPrefix begins the body of every failed request, as Encode writes it.
var errorPrefix = []byte(`{"error":{`)

// BatchedError returns the failure that an element of a reply to a batch is; nil when it is a success.
func BatchedError(element []byte) *Error {
	if !bytes.HasPrefix(element, errorPrefix) {
		return nil
	}
	return DecodeError(element)
}
