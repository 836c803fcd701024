package client_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ai-cherry/morello/client"
	"github.com/ai-cherry/morello/messages"
)

// exampleStack starts NATS, PostgreSQL and a worker for an example, and stops them.
func exampleStack() (url string, stop func()) {
	e := &example{}
	return startStack(e), func() {
		for i := len(e.cleanups) - 1; i >= 0; i-- {
			e.cleanups[i]()
		}
	}
}

// example stands in for the testing.TB that examples do not get. What it lacks panics.
type example struct {
	testing.TB
	cleanups []func()
}

func (e *example) Helper()                      {}
func (e *example) Cleanup(f func())             { e.cleanups = append(e.cleanups, f) }
func (e *example) Errorf(text string, a ...any) { panic(fmt.Sprintf(text, a...)) }
func (e *example) Fatalf(text string, a ...any) { panic(fmt.Sprintf(text, a...)) }
func (e *example) FailNow()                     { panic("failed") }

func Example() {
	url, stop := exampleStack() // nats://127.0.0.1:4222 of `make up`
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	c, err := client.Connect(ctx, client.Config{URL: url, Tenant: "demo"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = c.Close(ctx) }()

	_, err = c.Cache().Set(ctx, messages.CacheSet{Key: "plan:42", Value: []byte(`{"steps": ["read", "think"]}`)})
	if err != nil {
		fmt.Println(err)
		return
	}
	reply, err := c.Cache().Get(ctx, messages.CacheGet{Key: "plan:42"})
	fmt.Println(reply.Found, string(reply.Value), err)
	reply, err = c.Cache().Get(ctx, messages.CacheGet{Key: "plan:43"})
	fmt.Println(reply.Found, err)
	// Output:
	// true {"steps":["read","think"]} <nil>
	// false <nil>
}

func ExampleGetOrCompute() {
	url, stop := exampleStack()
	defer stop()
	ctx := context.Background()
	embed := func(context.Context) ([]float64, error) {
		fmt.Println("asking the model")
		return []float64{0.25, -1}, nil
	}
	// For another minute after its hour a vector is still returned, while it is computed anew in the background.
	options := client.ComputeOptions{Key: "embedding:hello", TTL: time.Hour, Stale: time.Minute}
	var agents sync.WaitGroup
	for range 2 { // as two processes would, at the same time
		agents.Go(func() {
			c, err := client.Connect(ctx, client.Config{URL: url, Tenant: "demo"})
			if err != nil {
				fmt.Println(err)
				return
			}
			defer func() { _ = c.Close(ctx) }()
			vector, err := client.GetOrCompute(ctx, c, options, embed)
			fmt.Println(vector, err)
		})
	}
	agents.Wait()
	// Output:
	// asking the model
	// [0.25 -1] <nil>
	// [0.25 -1] <nil>
}

func ExampleWithIdempotencyKey() {
	url, stop := exampleStack()
	defer stop()
	ctx := context.Background()
	c, err := client.Connect(ctx, client.Config{URL: url, Tenant: "demo"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = c.Close(ctx) }()

	once := client.WithIdempotencyKey(ctx, "invoice-7")
	for range 2 { // a crash may lie between them
		reply, err := c.Cache().Increment(once, messages.CacheIncrement{Key: "invoices"})
		fmt.Println(reply.Value, err)
	}
	_, err = c.Cache().Increment(once, messages.CacheIncrement{Key: "other"})
	var failure *messages.Error
	fmt.Println(errors.As(err, &failure), failure.Code)
	// Output:
	// 1 <nil>
	// 1 <nil>
	// true conflict
}
