package bench

import (
	"context"
	"fmt"

	"github.com/ai-cherry/morello/client"
	"github.com/ai-cherry/morello/messages"
)

// overClient measures typed calls of the Go client to a worker, encoding and decoding included; requests of concurrent callers go
// together in messages of up to maxBatch.
func overClient(
	maxBatch int, prepare preparation, newOperation func(cfg Config, s *stack, c *client.Client) operation,
) func(context.Context, Config, *stack, *progress) (*running, error) {
	return func(ctx context.Context, cfg Config, s *stack, p *progress) (*running, error) {
		if err := prepare(s, ctx, cfg, p); err != nil {
			return nil, err
		}
		r, err := s.startRole(ctx, RoleWorker)
		if err != nil {
			return nil, err
		}
		c, err := client.Connect(ctx, client.Config{URL: s.natsURL, Tenant: tenant, MaxBatch: maxBatch})
		if err != nil {
			s.stopRole(r)
			return nil, err
		}
		stop := func() {
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
			defer cancel()
			_ = c.Close(closing)
			s.stopRole(r)
		}
		return &running{newOperation(cfg, s, c), 1, stop}, nil
	}
}

func clientGet(cfg Config, _ *stack, c *client.Client) operation {
	cache := c.Cache()
	return func(ctx context.Context, random uint64) error {
		reply, err := cache.Get(ctx, messages.CacheGet{Key: keyName(random % uint64(cfg.Keys))})
		if err == nil && len(reply.Value) != cfg.ValueBytes {
			return fmt.Errorf("a get answered %+v", reply)
		}
		return ignoreLate(err)
	}
}

func clientSet(cfg Config, _ *stack, c *client.Client) operation {
	cache := c.Cache()
	value := benchValue(cfg.ValueBytes)
	return func(ctx context.Context, random uint64) error {
		_, err := cache.Set(ctx, messages.CacheSet{Key: keyName(random % uint64(cfg.Keys)), Value: value})
		return ignoreLate(err)
	}
}

func clientGetByToken(cfg Config, s *stack, c *client.Client) operation {
	session := c.Session()
	return func(ctx context.Context, random uint64) error {
		reply, err := session.GetByToken(ctx, messages.SessionGetByToken{Token: s.logins[random%uint64(len(s.logins))].token})
		if err == nil && len(reply.Session.Data) < cfg.ValueBytes {
			return fmt.Errorf("a look-up answered %+v", reply)
		}
		return ignoreLate(err)
	}
}

// ignoreLate lets a run go on when the machine stalled for longer than the deadline of a call; the latency shows it.
func ignoreLate(err error) error {
	if err != nil && messages.AsError(err).Code == messages.CodeDeadlineExceeded {
		return nil
	}
	return err
}
