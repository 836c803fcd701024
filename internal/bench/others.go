package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"
)

// startKV measures a JetStream key-value bucket on the same nats-server, on disk as its default is.
func startKV(newOperation func(cfg Config, kv jetstream.KeyValue) operation) func(context.Context, Config, *stack, *progress) (*running, error) {
	return func(ctx context.Context, cfg Config, s *stack, p *progress) (*running, error) {
		nc, err := nats.Connect(s.natsURL)
		if err != nil {
			return nil, err
		}
		js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(1024))
		if err != nil {
			return nil, err
		}
		kv, err := js.KeyValue(ctx, "bench")
		if errors.Is(err, jetstream.ErrBucketNotFound) {
			kv, err = fillKV(ctx, cfg, js, p)
		}
		if err != nil {
			return nil, errors.Join(err, nc.Drain())
		}
		return &running{newOperation(cfg, kv), 1, nc.Close}, nil
	}
}

func fillKV(ctx context.Context, cfg Config, js jetstream.JetStream, p *progress) (jetstream.KeyValue, error) {
	kv, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "bench"})
	if err != nil {
		return nil, err
	}
	value := benchValue(cfg.ValueBytes)
	for i := range cfg.Keys {
		if i%10_000 == 0 {
			p.show("loading JetStream KV: %d of %d", i, cfg.Keys)
		}
		if _, err := js.PublishAsync("$KV.bench."+keyName(uint64(i)), value, jetstream.WithStallWait(time.Minute)); err != nil {
			return nil, err
		}
	}
	select {
	case <-js.PublishAsyncComplete():
		return kv, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func kvGet(cfg Config, kv jetstream.KeyValue) operation {
	return func(ctx context.Context, random uint64) error {
		_, err := kv.Get(ctx, keyName(random%uint64(cfg.Keys)))
		return err
	}
}

func kvPut(cfg Config, kv jetstream.KeyValue) operation {
	value := benchValue(cfg.ValueBytes)
	return func(ctx context.Context, random uint64) error {
		_, err := kv.Put(ctx, keyName(random%uint64(cfg.Keys)), value)
		return err
	}
}

// startRedis measures a Redis that runs already. Its keys begin with "morello-bench:" and stay there.
func startRedis(newOperation func(cfg Config, client *redis.Client) operation) func(context.Context, Config, *stack, *progress) (*running, error) {
	return func(ctx context.Context, cfg Config, s *stack, p *progress) (*running, error) {
		client := redis.NewClient(&redis.Options{Addr: cfg.Redis})
		running := &running{newOperation(cfg, client), 1, func() { _ = client.Close() }}
		if s.redisLoaded {
			return running, nil
		}
		value := string(benchValue(cfg.ValueBytes))
		const chunk = 1000
		for first := 0; first < cfg.Keys; first += chunk {
			p.show("loading Redis: %d of %d", first, cfg.Keys)
			pipeline := client.Pipeline()
			for i := first; i < min(first+chunk, cfg.Keys); i++ {
				pipeline.Set(ctx, redisKey(uint64(i)), value, 0)
			}
			if _, err := pipeline.Exec(ctx); err != nil {
				return nil, fmt.Errorf("loading Redis at %s: %w", cfg.Redis, errors.Join(err, client.Close()))
			}
		}
		s.redisLoaded = true
		return running, nil
	}
}

func redisKey(n uint64) string { return "morello-bench:" + keyName(n) }

func redisGet(cfg Config, client *redis.Client) operation {
	return func(ctx context.Context, random uint64) error {
		return client.Get(ctx, redisKey(random%uint64(cfg.Keys))).Err()
	}
}

func redisSet(cfg Config, client *redis.Client) operation {
	value := string(benchValue(cfg.ValueBytes))
	return func(ctx context.Context, random uint64) error {
		return client.Set(ctx, redisKey(random%uint64(cfg.Keys)), value, 0).Err()
	}
}
