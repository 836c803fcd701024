// Package bench measures Morello beside what a user would pick instead: in one run, on one machine, so that the ratios
// mean something although the absolute numbers do not travel.
//
// Every server is a process of its own, as in a deployment: PostgreSQL, nats-server, a worker, and two stand-ins that
// answer the same subjects: "naive", which runs one statement for each request, and "echo", which runs nothing. This
// process makes the load. "morello bench" runs it; the results that were published are in docs/benchmarks.md.
package bench
