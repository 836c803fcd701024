// Package system is the capability system: what concerns the deployment as a whole. So far these are jobs, which a tenant sees as
// far as they are its own, and the operator all of.
package system
