package bench

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// operation does one thing, with a random number that chooses the key.
type operation func(ctx context.Context, random uint64) error

// measurement is what one or several rounds of load saw.
type measurement struct {
	operations        int64
	took              time.Duration
	rates             []float64               // operations per second of each round
	latency           *hdrhistogram.Histogram // microseconds
	cpu               cpuTimes
	itemsPerOperation int
}

// add puts another round to those before.
func (m *measurement) add(round measurement) {
	if m.latency == nil {
		*m = round
		return
	}
	m.operations += round.operations
	m.took += round.took
	m.rates = append(m.rates, round.rates...)
	m.latency.Merge(round.latency)
	for program, spent := range round.cpu {
		m.cpu[program] += spent
	}
}

// maxLatency is the longest latency that is told from others.
const maxLatency = 10 * time.Second

// load runs the operation in a closed loop: each caller begins the next when the last has ended. The first error ends it.
func load(ctx context.Context, callers int, duration time.Duration, op operation) (measurement, error) {
	ctx, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	histograms := make([]*hdrhistogram.Histogram, callers)
	errs := make([]error, callers)
	var crowd sync.WaitGroup
	start := time.Now()
	for caller := range callers {
		histograms[caller] = hdrhistogram.New(1, maxLatency.Microseconds(), 3)
		crowd.Go(func() { errs[caller] = repeat(ctx, cancel, uint64(caller), histograms[caller], op) })
	}
	crowd.Wait()
	return collect(start, histograms, errs)
}

func repeat(ctx context.Context, stopAll context.CancelFunc, seed uint64, histogram *hdrhistogram.Histogram, op operation) error {
	random := rand.New(rand.NewPCG(seed, uint64(time.Now().UnixNano())))
	for ctx.Err() == nil {
		begin := time.Now()
		err := op(context.WithoutCancel(ctx), random.Uint64())
		if err != nil {
			stopAll()
			return err
		}
		if err := histogram.RecordValue(min(time.Since(begin), maxLatency).Microseconds()); err != nil {
			return err
		}
	}
	return nil
}

// pace runs the operation in an open loop, so many times a second, whether the answers keep up or not: a latency counts
// from the moment at which the operation was due, not from when a caller was free ("coordinated omission", Gil Tene). It
// ends after the duration, or with the context, which is no failure.
func pace(ctx context.Context, rate float64, duration time.Duration, op operation) (measurement, error) {
	ctx, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	histograms := make([]*hdrhistogram.Histogram, pacedCallers)
	errs := make([]error, pacedCallers)
	interval := time.Duration(float64(time.Second) * pacedCallers / rate) // of each caller
	var crowd sync.WaitGroup
	start := time.Now()
	for caller := range pacedCallers {
		histograms[caller] = hdrhistogram.New(1, maxLatency.Microseconds(), 3)
		due := start.Add(interval * time.Duration(caller) / pacedCallers)
		crowd.Go(func() {
			random := rand.New(rand.NewPCG(uint64(caller), uint64(start.UnixNano())))
			for ; waitUntil(ctx, due); due = due.Add(interval) {
				if errs[caller] = op(context.WithoutCancel(ctx), random.Uint64()); errs[caller] != nil {
					cancel()
					return
				}
				if errs[caller] = histograms[caller].RecordValue(min(time.Since(due), maxLatency).Microseconds()); errs[caller] != nil {
					return
				}
			}
		})
	}
	crowd.Wait()
	return collect(start, histograms, errs)
}

// waitUntil reports whether the moment came before the context ended.
func waitUntil(ctx context.Context, moment time.Time) bool {
	wait := time.Until(moment)
	if wait <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// collect adds up what each caller saw.
func collect(start time.Time, histograms []*hdrhistogram.Histogram, errs []error) (measurement, error) {
	m := measurement{took: time.Since(start), latency: histograms[0], itemsPerOperation: 1}
	for _, histogram := range histograms[1:] {
		m.latency.Merge(histogram)
	}
	m.operations = m.latency.TotalCount()
	m.rates = []float64{float64(m.operations) / m.took.Seconds()}
	return m, errors.Join(errs...)
}

// result takes the median of the rounds.
func (m measurement) result(name string, callers int) Result {
	rates := slices.Sorted(slices.Values(m.rates))
	median := rates[len(rates)/2]
	return Result{
		Case: name, Callers: callers, PerSecond: median, ItemsPerSecond: median * float64(m.itemsPerOperation),
		P50MS: float64(m.latency.ValueAtQuantile(50)) / 1000, P99MS: float64(m.latency.ValueAtQuantile(99)) / 1000,
		CPU: m.cpu.perOperation(m.operations),
	}
}
