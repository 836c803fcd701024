package messages

import "time"

const (
	controlPrefix = "morello.control.v1."
	// ControlAll addresses a control message to every worker.
	ControlAll = "all"
)

// ControlSubject returns the subject of a control message: a verb for one instance, or for ControlAll.
func ControlSubject(instance, verb string) string { return controlPrefix + instance + "." + verb }

// ControlPing asks workers who they are and how busy.
const ControlPing = "ping"

// ControlPong is a worker's answer to ControlPing.
type ControlPong struct {
	Instance  string    `json:"instance"`
	Program   string    `json:"program"`
	StartedAt time.Time `json:"started_at"`
	InFlight  int64     `json:"in_flight"`
}
