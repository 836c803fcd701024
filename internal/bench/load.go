package bench

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// operation does one thing, with a random number that chooses the key.
type operation func(ctx context.Context, random uint64) error

// measurement is what a load saw.
type measurement struct {
	operations int64
	took       time.Duration
	latency    *hdrhistogram.Histogram // microseconds
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

func (m measurement) result(name string, callers, itemsPerOperation int) Result {
	perSecond := float64(m.operations) / m.took.Seconds()
	return Result{
		Case: name, Callers: callers, PerSecond: perSecond, ItemsPerSecond: perSecond * float64(itemsPerOperation),
		P50MS: float64(m.latency.ValueAtQuantile(50)) / 1000, P99MS: float64(m.latency.ValueAtQuantile(99)) / 1000,
	}
}
