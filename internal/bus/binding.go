package bus

import (
	"context"

	"github.com/ai-cherry/morello/messages"
)

// Binding ties an endpoint of the contract to the operation that answers it.
type Binding struct {
	Endpoint messages.EndpointInfo
	handle   func(ctx context.Context, tenant string, body []byte) ([]byte, error)
}

// validator is what every request type is.
type validator interface{ Validate() error }

// Bind ties an endpoint to its operation. The types of both must agree, or it does not compile.
func Bind[Req validator, Reply any](
	endpoint messages.Endpoint[Req, Reply],
	operation func(ctx context.Context, tenant string, request Req) (Reply, error),
) Binding {
	handle := func(ctx context.Context, tenant string, body []byte) ([]byte, error) {
		var request Req
		if err := messages.Decode(body, &request); err != nil {
			return nil, err
		}
		if err := request.Validate(); err != nil {
			return nil, err
		}
		reply, err := operation(ctx, tenant, request)
		if err != nil {
			return nil, err
		}
		return messages.Encode(reply)
	}
	return Binding{Endpoint: endpoint.Info(), handle: handle}
}
