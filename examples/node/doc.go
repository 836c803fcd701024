// Package node holds an example for Node.js, which needs nothing of ours but the NATS client of npm. Its test runs the
// example against a real worker.
package node
