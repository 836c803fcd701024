// Package transfer is the capability transfer: documents that are too large for one message, handed over in parts.
//
// A caller puts the parts of a document under an id of its own and names that in a request of another capability, which reads
// them with Take or Open. The other way round, a capability stores the document of a reply with Offer. Both lie in one UNLOGGED
// table for an hour and count in one quota of the tenant. The job in jobs.go removes what has expired.
package transfer
