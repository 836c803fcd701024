// Package jobs runs what takes long or comes round by itself, on River in the same PostgreSQL.
//
// # Periodic jobs
//
// Every scheduler is a River client that may lead; the leader inserts a job for each periodic kind at every tick, of a
// minute at most, and any scheduler runs it. A tick only asks; whether the kind is due stands in the table periodic_run:
//
//   - take: one conditional update gives the kind to one holder, until leased_until by the database's clock, under a new
//     epoch. Who finds it not due, or leased, is done.
//   - batch: the work goes in batches, each a transaction that also renews the lease and adds to the counts, on
//     condition that the epoch is still the holder's. A process that comes back from the dead changes nothing: its
//     transaction is rolled back.
//   - finish: sets when the kind is due next, and keeps the report until its event is published.
//
// So a period that nobody served is made up within a minute of the next leader; a holder that dies is followed by
// another when its lease lapses, which goes on with its counts; and the event of a run is published at least once, under
// the same id, of which the stream keeps one.
//
// # Jobs that somebody inserts
//
// A worker inserts them in the transaction of the request (Inserter); AddBatched says how they run. job.go reads them, for
// package system; run.go keeps what they note of themselves.
package jobs
