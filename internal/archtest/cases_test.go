package archtest

// ruleCases are small trees with the faults that a rule finds in them, in its order.
var ruleCases = []struct {
	rule, name, tree string
	faults           []string
}{
	{rule: "imports", name: "kept", tree: `
-- messages/a.go --
package messages
import "github.com/go-json-experiment/json"
-- internal/bus/a.go --
package bus
import (
	"github.com/ai-cherry/morello/messages"
	"github.com/nats-io/nats.go"
)
-- internal/knowledge/a.go --
package knowledge
import (
	"github.com/ai-cherry/morello/internal/jobs"
	"github.com/ai-cherry/morello/internal/weaviate"
)
-- internal/cache/a_test.go --
package cache_test
import (
	"github.com/ai-cherry/morello/internal/cache"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/nats-io/nats.go"
)
-- cmd/morello/a.go --
package main
import "github.com/ai-cherry/morello/internal/devstack"
-- internal/cache/testdata/a.go --
package ignored
import "github.com/ai-cherry/morello/cmd/morello"
`},
	{rule: "imports", name: "unknown package", tree: `
-- internal/util/a.go --
package util
`, faults: []string{"internal/util: not in the import table: add it to mayImport"}},
	{rule: "imports", name: "package below a known one", tree: `
-- internal/cache/store/a.go --
package store
`, faults: []string{"internal/cache/store: not in the import table"}},
	{rule: "imports", name: "capability imports capability, in tests too", tree: `
-- internal/cache/a.go --
package cache
import other "github.com/ai-cherry/morello/internal/session"
-- internal/cache/a_test.go --
package cache
import "github.com/ai-cherry/morello/internal/session"
`, faults: []string{
		"internal/cache/a.go: imports github.com/ai-cherry/morello/internal/session: a capability never imports another",
		"internal/cache/a_test.go: imports github.com/ai-cherry/morello/internal/session: a capability never imports another",
	}},
	{rule: "imports", name: "the contract is a leaf", tree: `
-- messages/a.go --
package messages
import "github.com/ai-cherry/morello/internal/config"
`, faults: []string{"messages/a.go: imports github.com/ai-cherry/morello/internal/config: it may import nothing of ours"}},
	{rule: "imports", name: "gateway touches no data", tree: `
-- internal/gateway/a.go --
package gateway
import (
	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/cache"
	"github.com/ai-cherry/morello/internal/health"
	"github.com/ai-cherry/morello/internal/postgres"
)
`, faults: []string{"morello/internal/cache: of our own", "morello/internal/postgres: of our own"}},
	{rule: "imports", name: "only knowledge has the vector index", tree: `
-- internal/session/a.go --
package session
import "github.com/ai-cherry/morello/internal/weaviate"
`, faults: []string{"internal/session/a.go: imports github.com/ai-cherry/morello/internal/weaviate"}},
	{rule: "imports", name: "code does not import the development servers", tree: `
-- internal/jobs/a.go --
package jobs
import "github.com/ai-cherry/morello/internal/devstack"
-- internal/devstack/a.go --
package devstack
import "github.com/ai-cherry/morello/internal/worker"
-- internal/devstack/devtest/a.go --
package devtest
import (
	"github.com/ai-cherry/morello/internal/devstack"
	"github.com/ai-cherry/morello/migrations"
)
`, faults: []string{
		"internal/devstack/a.go: imports github.com/ai-cherry/morello/internal/worker: of our own it may import only migrations",
		"internal/devstack/devtest/a.go: imports github.com/ai-cherry/morello/migrations",
		"internal/jobs/a.go: imports github.com/ai-cherry/morello/internal/devstack",
	}},
	{rule: "imports", name: "the client and the examples meet the worker in tests", tree: `
-- client/a_test.go --
package client_test
import (
	"github.com/ai-cherry/morello/client"
	"github.com/ai-cherry/morello/internal/config"
	"github.com/ai-cherry/morello/internal/devstack/devtest"
	"github.com/ai-cherry/morello/internal/postgres"
	"github.com/ai-cherry/morello/internal/worker"
)
-- examples/node/a_test.go --
package node_test
import "github.com/ai-cherry/morello/internal/worker"
`},
	{rule: "imports", name: "the client and the examples know the worker in tests only, and no capability", tree: `
-- client/a.go --
package client
import (
	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/internal/worker"
	"github.com/ai-cherry/morello/messages"
)
-- client/a_test.go --
package client_test
import "github.com/ai-cherry/morello/internal/cache"
-- examples/node/a.go --
package node
import "github.com/ai-cherry/morello/internal/worker"
-- internal/gateway/a_test.go --
package gateway_test
import "github.com/ai-cherry/morello/internal/worker"
`, faults: []string{
		"client/a.go: imports github.com/ai-cherry/morello/internal/bus: of our own it may import only messages",
		"client/a.go: imports github.com/ai-cherry/morello/internal/worker: of our own it may import only messages",
		"client/a_test.go: imports github.com/ai-cherry/morello/internal/cache",
		"examples/node/a.go: imports github.com/ai-cherry/morello/internal/worker: it may import nothing of ours",
		"internal/gateway/a_test.go: imports github.com/ai-cherry/morello/internal/worker",
	}},
	{rule: "imports", name: "the health server stands alone", tree: `
-- internal/health/a.go --
package health
import "github.com/ai-cherry/morello/messages"
-- internal/bus/a.go --
package bus
import "github.com/ai-cherry/morello/internal/health"
`, faults: []string{
		"internal/bus/a.go: imports github.com/ai-cherry/morello/internal/health",
		"internal/health/a.go: imports github.com/ai-cherry/morello/messages",
	}},
	{rule: "imports", name: "nats.go outside bus", tree: `
-- internal/jobs/a.go --
package jobs
import "github.com/nats-io/nats.go/jetstream"
-- cmd/worker/a.go --
package main
import "github.com/nats-io/nats.go"
-- internal/worker/a.go --
package worker
import "github.com/nats-io/nats.go/micro"
`, faults: []string{
		"cmd/worker/a.go: imports github.com/nats-io/nats.go: only client, internal/bus, internal/devstack, internal/bench",
		"internal/jobs/a.go: imports github.com/nats-io/nats.go/jetstream: only",
		"internal/worker/a.go: imports github.com/nats-io/nats.go/micro: only",
	}},

	{rule: "package comments", name: "kept", tree: `
-- client/doc.go --
// Package client calls Morello.
package client
-- client/call.go --
package client
-- client/call_test.go --
package client_test
-- cmd/worker/main.go --
// Command worker answers requests.
package main
`},
	{rule: "package comments", name: "none, two, wrong, tests only", tree: `
-- a/a.go --
package a
-- b/b.go --
// Package b is one.
package b
-- b/c.go --
// Package b is another.
package b
-- c/c.go --
// Package clients is another name.
package client
-- cmd/d/main.go --
// Package main is a program.
package main
-- e/e_test.go --
// Package e is a test.
package e
-- f/f.go --
//go:build linux

//go:generate true
package f
`, faults: []string{
		"a: has 0 package comments", "b: has 2 package comments", `c: the package comment does not begin "Package client"`,
		`cmd/d: the package comment does not begin "Command d"`, "e: has 0 package comments", "f: has 0 package comments",
	}},

	{rule: "endpoints", name: "kept", tree: endpointTree},
	{rule: "endpoints", name: "kept by a table in parts", tree: `
-- messages/endpoint.go --
package messages
var AEndpoint = Endpoint[A, B]{Name: "a.a"}
var BEndpoint = Endpoint[A, B]{Name: "b.b"}
var table = []EndpointInfo{AEndpoint.Info()}
func b() []EndpointInfo { return []EndpointInfo{BEndpoint.Info()} }
func Endpoints() []EndpointInfo { return append(table, b()...) }
-- internal/a/endpoints.go --
package a
import (
	wire "github.com/ai-cherry/morello/internal/bus"
	contract "github.com/ai-cherry/morello/messages"
)
func (s *Service) Endpoints() []wire.Binding {
	return []wire.Binding{wire.Bind[contract.A, contract.B](contract.AEndpoint, s.A), wire.Bind(contract.BEndpoint, s.B)}
}
`},
	{rule: "endpoints", name: "not bound, not in the table", tree: endpointTree + `
-- messages/more.go --
package messages
var (
	CacheSetEndpoint = Endpoint[CacheSet, CacheSetReply]{Name: "cache.set"}
	cacheKeys = 3
)
-- internal/cache/endpoints_test.go --
package cache
import (
	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/messages"
)
var inTest = bus.Bind(messages.CacheSetEndpoint, nil)
`, faults: []string{
		"messages.CacheSetEndpoint: stands 0 times in the table", "messages.CacheSetEndpoint: bound 0 times",
	}},
	{rule: "endpoints", name: "bound twice, outside its place", tree: endpointTree + `
-- internal/worker/worker.go --
package worker
import (
	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/messages"
)
var again = bus.Bind(messages.CacheGetEndpoint, nil)
`, faults: []string{
		"internal/worker/worker.go: binds messages.CacheGetEndpoint: endpoints are bound in internal/<capability>/endpoints.go",
		"messages.CacheGetEndpoint: bound 2 times by bus.Bind, not once [internal/cache/endpoints.go internal/worker/worker.go]",
	}},
	{rule: "endpoints", name: "twice in the table", tree: `
-- messages/endpoint.go --
package messages
var AEndpoint = Endpoint[A, B]{Name: "a.a"}
func Endpoints() []EndpointInfo { return []EndpointInfo{AEndpoint.Info(), AEndpoint.Info()} }
-- internal/a/endpoints.go --
package a
import (
	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/messages"
)
var a = bus.Bind(messages.AEndpoint, nil)
`, faults: []string{"messages.AEndpoint: stands 2 times in the table"}},
	{rule: "endpoints", name: "hidden behind a variable, or not declared", tree: `
-- messages/endpoint.go --
package messages
var AEndpoint = build("a.a")
func Endpoints() []EndpointInfo { return []EndpointInfo{AEndpoint.Info()} }
-- internal/a/endpoints.go --
package a
import (
	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/messages"
)
var hidden = messages.AEndpoint
var a = bus.Bind(hidden, nil)
var b = bus.Bind(messages.BEndpoint, nil)
`, faults: []string{
		"internal/a/endpoints.go: bus.Bind takes an endpoint of messages first",
		"internal/a/endpoints.go: bus.Bind takes an endpoint of messages first",
		"messages.AEndpoint: bound 0 times",
		"messages.AEndpoint: its Name is not written as a string",
	}},

	{rule: "goldens", name: "kept", tree: endpointTree + eventTree + `
-- messages/testdata/cache.get.request.json --
{}
-- messages/testdata/cache.get.reply.json --
{}
-- messages/testdata/cache.get.reply.missed.json --
{}
-- messages/testdata/cache.cleanup.event.json --
{}
-- messages/testdata/error.json --
{}
-- messages/testdata/error.internal.json --
{}
-- messages/testdata/fuzz/FuzzDecode/1.json --
{}
-- messages/testdata/README.md --
`},
	{rule: "goldens", name: "missing and left over", tree: endpointTree + eventTree + `
-- messages/testdata/cache.get.request.json --
{}
-- messages/testdata/cache.fetch.reply.json --
{}
-- messages/testdata/cache.get.json --
{}
-- messages/testdata/cache.get.request.a.b.json --
{}
-- messages/testdata/cache.get.event.json --
{}
-- messages/testdata/errors.json --
{}
`, faults: []string{
		"messages/testdata/cache.cleanup.event.json: missing",
		"messages/testdata/cache.get.reply.json: missing",
		"messages/testdata/error.json: missing",
		"messages/testdata/cache.fetch.reply.json: belongs to no message",
		"messages/testdata/cache.get.event.json: belongs to no message",
		"messages/testdata/cache.get.json: belongs to no message",
		"messages/testdata/cache.get.request.a.b.json: belongs to no message",
		"messages/testdata/errors.json: belongs to no message",
	}},

	{rule: "leftovers", name: "kept", tree: `
-- README.md --
What is still to do is a todo list; shared/ is no folder of ours. TO` + `DO stays legal in prose.
-- client/a.go --
package client
// todoList and TO` + `DOs are words.
`},
	{rule: "leftovers", name: "outside files and notes", tree: `
-- .ci/run --
cat ../` + `shared/x
-- client/a.go --
package client

// FIX` + `ME: later
var ctx = context.TO` + `DO()
-- docs/testdata/a.md --
see ../../` + `shared
`, faults: []string{
		".ci/run:1: refers to", "client/a.go:3: FIX" + "ME", "client/a.go:4: TO" + "DO", "docs/testdata/a.md:1: refers to",
	}},

	{rule: "dependencies", name: "kept", tree: `
-- go.mod --
module x

go 1.26

require example.com/single v1.0.0

require (
	example.com/a v1.0.0
	example.com/a/b v1.0.0
	// a comment
	example.com/far v1.0.0 // indirect
)
-- docs/dependencies.md --
` + "| `example.com/a` |, example.com/a/b. And [single](https://pkg.go.dev/example.com/single), example.com/single\n"},
	{rule: "dependencies", name: "not named, or only as the beginning or end of another", tree: `
-- go.mod --
require example.com/single v1.0.0
require (
	example.com/a v1.0.0
	example.com/b v1.0.0
	example.com/c v1.0.0
)
-- docs/dependencies.md --
example.com/a/v2 other.example.com/b example.com/cd
`, faults: []string{"example.com/single", "example.com/a,", "example.com/b,", "example.com/c,"}},
	{rule: "dependencies", name: "no document", tree: `
-- go.mod --
require example.com/single v1.0.0
`, faults: []string{"docs/dependencies.md: does not name example.com/single"}},

	{rule: "environment", name: "kept", tree: `
-- internal/config/a.go --
package config
import (
	"os"
	"github.com/caarlos0/env/v11"
)
var a = os.Getenv("A")
-- internal/devstack/devtest/a.go --
package devtest
import "os"
var a = os.Environ()
-- cmd/morello/a.go --
package main
import "os"
var a = os.Getenv("HOME")
-- internal/bus/a.go --
package bus
import "os"
var a, _ = os.Hostname()
-- internal/bus/a_test.go --
package bus
import "os"
var b = os.Getenv("A")
`},
	{rule: "environment", name: "read elsewhere", tree: `
-- internal/bus/a.go --
package bus
import system "os"
var read = system.LookupEnv
-- internal/cache/a.go --
package cache
import "os"
func f() { g(os.Getenv("A"), os.ExpandEnv("$A")) }
-- internal/session/a.go --
package session
import "github.com/caarlos0/env/v11"
-- internal/system/a.go --
package system
import "syscall"
var all = syscall.Environ()
`, faults: []string{
		"internal/bus/a.go: os.LookupEnv", "internal/cache/a.go: os.Getenv", "internal/cache/a.go: os.ExpandEnv",
		"internal/session/a.go: imports github.com/caarlos0/env/v11", "internal/system/a.go: syscall.Environ",
	}},
}

const endpointTree = `
-- messages/endpoint.go --
package messages

func Endpoints() []EndpointInfo {
	return []EndpointInfo{CacheGetEndpoint.Info()}
}
-- messages/cache.go --
package messages

var CacheGetEndpoint = Endpoint[CacheGet, CacheGetReply]{
	Name: "cache.get", Timeout: 2 * time.Second,
}
-- internal/cache/endpoints.go --
package cache
import (
	"github.com/ai-cherry/morello/internal/bus"
	"github.com/ai-cherry/morello/messages"
)
func (s *Service) Endpoints() []bus.Binding {
	return []bus.Binding{
		bus.Bind(messages.CacheGetEndpoint, s.Get),
	}
}
`

const eventTree = `
-- messages/event.go --
package messages

var CacheCleanupEvent = Event[Report]{
	Name: "cache.cleanup", Kept: true,
}
`
