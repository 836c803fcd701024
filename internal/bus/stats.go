package bus

import (
	"sync/atomic"
	"time"

	"github.com/ai-cherry/morello/messages"
)

// stats counts the requests of an endpoint since the start of the process. Requests are counted when they are answered,
// refusals included.
type stats struct {
	requests   atomic.Int64
	errors     atomic.Int64
	processing atomic.Int64 // nanoseconds between arrival and reply, of all requests
	lastError  atomic.Pointer[messages.Error]
}

func (s *stats) succeeded(took time.Duration) {
	s.requests.Add(1)
	s.processing.Add(int64(took))
}

func (s *stats) failed(took time.Duration, failure *messages.Error) {
	s.succeeded(took)
	s.errors.Add(1)
	s.lastError.Store(failure)
}

// lastErrorText is "<code>: <message>" of the last failure.
func (s *stats) lastErrorText() string {
	failure := s.lastError.Load()
	if failure == nil {
		return ""
	}
	return headerText(failure.Error())
}

// total is the time that all requests took together.
func (s *stats) total() time.Duration { return time.Duration(s.processing.Load()) }

func (s *stats) average() time.Duration {
	requests := s.requests.Load()
	if requests == 0 {
		return 0
	}
	return time.Duration(s.processing.Load() / requests)
}
