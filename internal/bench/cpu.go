package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of /proc/<pid>/stat, 1/100 s on every Linux that Go supports.
const clockTick = 10 * time.Millisecond

// cpuTimes is the CPU time that each program has used so far.
type cpuTimes map[string]time.Duration

// ownTime returns user and system time of one process.
func ownTime(pid int) time.Duration { return statTime(pid, 2) }

// familyTime returns that of a process and of its children, living and reaped: a PostgreSQL server is many processes.
func familyTime(pid int) time.Duration {
	total := statTime(pid, 4)
	children, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return total
	}
	for _, file := range children {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for _, child := range strings.Fields(string(text)) {
			if id, err := strconv.Atoi(child); err == nil {
				total += statTime(id, 4)
			}
		}
	}
	return total
}

// statTime adds the first n of utime, stime, cutime and cstime, fields 14 to 17 of proc(5); the latter two are those of
// reaped children.
func statTime(pid, n int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	afterName := text[bytes.LastIndexByte(text, ')')+1:]
	fields := strings.Fields(string(afterName)) // fields[0] is field 3
	const utime = 14 - 3
	var ticks int64
	for _, field := range fields[utime : utime+n] {
		t, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0
		}
		ticks += t
	}
	return time.Duration(ticks) * clockTick
}

// since returns what was used after the earlier reading.
func (c cpuTimes) since(before cpuTimes) cpuTimes {
	spent := cpuTimes{}
	for program, used := range c {
		spent[program] = used - before[program]
	}
	return spent
}

// perOperation returns the microseconds of CPU for each operation, by program, and their sum as "all".
func (c cpuTimes) perOperation(operations int64) map[string]float64 {
	per := map[string]float64{}
	for program, spent := range c {
		if spent > 0 && operations > 0 {
			per[program] = float64(spent.Microseconds()) / float64(operations)
			per["all"] += per[program]
		}
	}
	return per
}
