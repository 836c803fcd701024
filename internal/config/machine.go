package config

import (
	"math"
	"runtime"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

const (
	minPoolCeiling = 4
	maxPoolCeiling = 64
	// connsPerCore: PostgreSQL is busiest with a few connections for each core; beyond that they queue in the server.
	connsPerCore = 4
	// bytesPerConn is what a connection may cost this process at its worst: a few values of 4 MiB.
	bytesPerConn = 16 << 20
)

// Memory returns how much memory this process may use: the least of GOMEMLIMIT, the cgroup's limit and the machine's.
func Memory() int64 {
	limit := debug.SetMemoryLimit(-1)
	for _, source := range []memlimit.Provider{memlimit.FromCgroup, memlimit.FromSystem} {
		if bytes, err := source(); err == nil && bytes > 0 && bytes < math.MaxInt64 {
			limit = min(limit, int64(bytes))
		}
	}
	return limit
}

func defaultPoolCeiling() int {
	byMemory := Memory() / 4 / bytesPerConn
	ceiling := min(int64(runtime.GOMAXPROCS(0)*connsPerCore), byMemory)
	return int(min(max(ceiling, minPoolCeiling), maxPoolCeiling))
}
