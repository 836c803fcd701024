package bus

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/ai-cherry/morello/messages"
)

// Binding ties an endpoint of the contract to the operation that answers it.
type Binding struct {
	Endpoint messages.EndpointInfo
	handle   func(ctx context.Context, r *request) ([]byte, error)
	begin    func(r *request) error // nil: handle does it all
}

// validator is what every request type is.
type validator interface{ Validate() error }

// Bind ties an endpoint to its operation. The types of both must agree, or it does not compile.
func Bind[Req validator, Reply any](
	endpoint messages.Endpoint[Req, Reply],
	operation func(ctx context.Context, tenant string, request Req) (Reply, error),
) Binding {
	handle := func(ctx context.Context, r *request) ([]byte, error) {
		request, err := decode[Req](r)
		if err != nil {
			return nil, err
		}
		reply, err := operation(ctx, r.tenant, request)
		if err != nil {
			return nil, err
		}
		return r.encode(reply)
	}
	return Binding{Endpoint: endpoint.Info(), handle: handle}
}

// BindDeferred is Bind with a second way to do the same, for operations that are batched: begin must not wait for
// anything; it takes the request, and its reply comes when the batch is done. No goroutine waits in the meantime, which is
// what most of the cost of a small request is. Requests that are large or carry an idempotency key take the first way.
func BindDeferred[Req validator, Reply any](
	endpoint messages.Endpoint[Req, Reply],
	operation func(ctx context.Context, tenant string, request Req) (Reply, error),
	begin func(d Deferred[Reply], tenant string, request Req),
) Binding {
	binding := Bind(endpoint, operation)
	binding.begin = func(r *request) error {
		request, err := decode[Req](r)
		if err != nil {
			return err
		}
		begin(Deferred[Reply]{r}, r.tenant, request)
		return nil
	}
	return binding
}

func decode[Req validator](r *request) (Req, error) {
	var request Req
	if err := messages.UnpackRequest(r.msg.Data, r.msg.Header.Get, &request); err != nil {
		return request, err
	}
	return request, request.Validate()
}

// encode returns the body of a reply, and keeps its headers for when it is sent.
func (r *request) encode(reply any) (body []byte, err error) {
	body, headers, err := messages.Pack(reply)
	r.replyHeader = rawHeader(headers)
	return body, err
}

// rawHeader returns the headers of a raw message as NATS has them; nil for none.
func rawHeader(headers map[string]string) nats.Header {
	if headers == nil {
		return nil
	}
	header := make(nats.Header, len(headers))
	for name, value := range headers {
		header[name] = []string{value}
	}
	return header
}

// Deferred is a request whose reply comes later. Who has it calls either Reply or Go, once.
type Deferred[Reply any] struct{ r *request }

// Deadline is when the caller stops waiting.
func (d Deferred[Reply]) Deadline() time.Time { return d.r.deadline }

// Reply answers the request. It does not wait.
func (d Deferred[Reply]) Reply(reply Reply, err error) {
	var body []byte
	if err == nil {
		body, err = protect(func() ([]byte, error) { return d.r.encode(reply) })
	}
	d.r.finish(body, err)
}

// Go answers the request with what the operation returns, which runs on a goroutine of its own and may wait.
func (d Deferred[Reply]) Go(operation func(ctx context.Context) (Reply, error)) {
	go d.r.perform(func(ctx context.Context) ([]byte, error) {
		reply, err := operation(ctx)
		if err != nil {
			return nil, err
		}
		return d.r.encode(reply)
	})
}
