// Package messages is the contract of Morello: the request and reply type of every operation with its validation, the
// table of endpoints, the table of events, the error codes, the limits and the strict JSON that they travel in.
//
// It is a leaf: programs, the Go client and generators all import it, and it imports nothing of ours. The struct that
// travels is the struct that the code works with; there is no second model behind it.
package messages

//go:generate go run ../internal/generate
