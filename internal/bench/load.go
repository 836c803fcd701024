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
	m := measurement{took: time.Since(start), latency: histograms[0]}
	for _, histogram := range histograms[1:] {
		m.latency.Merge(histogram)
	}
	m.operations = m.latency.TotalCount()
	m.rates = []float64{float64(m.operations) / m.took.Seconds()}
	return m, errors.Join(errs...)
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
