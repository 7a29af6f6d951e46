package engine

import (
	"context"
	"hash/maphash"
	"math"
	"sync"
	"time"

	"github.com/openvantage/vantage/fault"
)

// A Settle tells whoever evens out between processes what payers spent since the last time,
// and returns what each owes now, all processes counted. Both are times, in the order of
// payers: what is spent takes so long to come back, and a payer who owes nothing has all its
// points. Less than nothing was spent when more was given back. No payer is named twice.
// It is called with none, too, to let the other side forget.
type Settle func(ctx context.Context, payers []string, spent []time.Duration) (owed []time.Duration, err error)

// LedgerOptions say how a Ledger keeps time and with whom it shares.
type LedgerOptions struct {
	Clock  func() time.Time // nil: the machine's
	Settle Settle           // nil: the process is alone
	// Every is the time between two exchanges. Default 1 s.
	Every time.Duration
	// Report hears the first failure in a row of exchanges, and nil when they work again.
	Report func(error)
}

// A Ledger keeps what payers may still spend, in the memory of one process, and shares it with
// other processes by an exchange each second. It implements Rates; a call takes a fraction of a
// microsecond and waits for no one. PerSecond and Burst must be more than 0.
//
// One process lets a payer spend Burst + PerSecond·t at most in any time t. With n processes,
// where T is the longest time from the beginning of one exchange to the end of the next that
// succeeds, and q is 0.05, the most is
//
//	n·((1+q)·Burst + 2·PerSecond·T) + (1+n·q)·PerSecond·t
//
// since each may give what it has before it hears of the others. What was spent beyond Burst is
// owed, and comes back before there is more. A payer takes part in exchanges once it has spent
// q of its burst here, faster than q of PerSecond, and until nearly all is back: after one, who
// is empty elsewhere is empty here. Of all others nobody is told.
//
// An exchange that fails is repeated with all that was spent. Where the other side had counted it
// all the same, it counts twice, and the payer waits for that once more: dropping it instead
// would break the bound whenever the database is overloaded. What was given back is told at most once,
// for the same reason. After ten failures in a row each process goes on alone, and tells later
// only what has not come back by then.
type Ledger struct {
	opt    LedgerOptions
	began  time.Time
	seed   maphash.Seed
	shards [64]rateShard

	// Of the one exchange that runs.
	agedAt, settledAt int64
	failing           bool
}

const (
	// quiet is the share of a burst that a payer spends before anybody is told, and the share of
	// a rate that it may spend so for ever: the q of the bound.
	quiet = 0.05
	// perShard is how many buckets a shard has, about 10 MB in all. The fullest of a few makes
	// room for a new one: forgetting it gives its payer least.
	perShard, looked = 1024, 8
	// mostTold bounds one exchange; who has no room takes part in the next.
	mostTold = 4096
	// goAlone is after how many failed exchanges a process counts for itself.
	goAlone = 10
	// forgetEvery is how often the other side is called though there is nothing to tell.
	forgetEvery = time.Minute
)

type rateShard struct {
	mu      sync.Mutex
	buckets map[string]*bucket
	_       [48]byte // shards do not share cache lines
}

// A bucket is what one payer has. Instants are nanoseconds since the ledger began, and points
// are counted in the nanoseconds that they take to come back: a full bucket is one whose
// fullAt is over, and an empty one will be full after whole.
type bucket struct {
	fullAt int64
	whole  int64
	// untold is what was spent and the other side does not know.
	untold int64
	// shared: the other side knows this payer. asked: it was refused since the last exchange, which
	// may bring better news.
	shared, asked bool
}

// owed is what must come back until the bucket is full.
func (b *bucket) owed(now int64) int64 { return max(0, b.fullAt-now) }

// NewLedger returns a Ledger in which everyone has a whole burst.
func NewLedger(opt LedgerOptions) *Ledger {
	if opt.Clock == nil {
		began := time.Now() // which asks two clocks; this asks one of them
		opt.Clock = func() time.Time { return began.Add(time.Since(began)) }
	}
	if opt.Every == 0 {
		opt.Every = time.Second
	}
	if opt.Report == nil {
		opt.Report = func(error) {}
	}
	l := &Ledger{opt: opt, began: opt.Clock(), seed: maphash.MakeSeed()}
	for i := range l.shards {
		l.shards[i].buckets = map[string]*bucket{}
	}
	return l
}

func (l *Ledger) shard(key string) *rateShard {
	return &l.shards[maphash.String(l.seed, key)%uint64(len(l.shards))]
}

// now is the time for answers, and for buckets.
func (l *Ledger) now() (time.Time, int64) {
	at := l.opt.Clock()
	return at, int64(at.Sub(l.began))
}

// takes is how long points take to come back, in nanoseconds.
func (r Rate) takes(points float64) int64 {
	return int64(min(math.Ceil(points/r.PerSecond*1e9), 1<<60)) // 36 years
}

// balance of somebody who owes.
func (r Rate) balance(at time.Time, owed int64) Balance {
	return Balance{
		Limit: r.Burst, Remaining: max(0, r.Burst-float64(owed)*r.PerSecond/1e9), ResetAt: at.Add(time.Duration(owed)),
	}
}

// Spend takes points from a payer, or none. It fails with RATE_LIMITED, telling how long to
// wait, and with QUERY_TOO_COSTLY when even a whole burst would not do.
func (l *Ledger) Spend(p Payer, points float64) (Balance, error) {
	switch {
	case points <= 0:
		return l.Balance(p), nil
	case !(points <= p.Burst):
		return l.Balance(p), fault.New(fault.QueryTooCostly, "This costs %.0f points, and you can have %.0f at once. Ask for less.", points, p.Burst).
			With("cost", int64(math.Ceil(points))).With("limit", int64(p.Burst))
	}
	at, now := l.now()
	takes, whole := p.takes(points), p.takes(p.Burst)
	s := l.shard(p.Key)
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buckets[p.Key]
	if b == nil {
		b = s.add(p.Key)
	}
	b.whole = whole
	owed := b.owed(now)
	if wait := owed + takes - whole; wait > 0 {
		b.asked = true
		return p.balance(at, owed), fault.New(fault.RateLimited, "This costs %.0f points, and you have too few left. Wait, or ask for less.", points).
			After(time.Duration(wait)).With("cost", int64(math.Ceil(points))).With("limit", int64(p.Burst))
	}
	b.fullAt = now + owed + takes
	b.untold += takes
	return p.balance(at, owed+takes), nil
}

// add makes a bucket, and room for it.
func (s *rateShard) add(key string) *bucket {
	if len(s.buckets) >= perShard {
		var fullest string
		n, earliest := 0, int64(math.MaxInt64)
		for k, b := range s.buckets { // begins anywhere
			if b.fullAt < earliest {
				fullest, earliest = k, b.fullAt
			}
			if n++; n == looked {
				break
			}
		}
		delete(s.buckets, fullest)
	}
	b := &bucket{}
	s.buckets[key] = b
	return b
}

// Refund gives back points that were spent and not used. Nobody gets more than a burst.
func (l *Ledger) Refund(p Payer, points float64) {
	if !(points > 0) {
		return
	}
	_, now := l.now()
	s := l.shard(p.Key)
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buckets[p.Key]
	if b == nil {
		return // it is full
	}
	back := min(b.owed(now), p.takes(points)-1) // a nanosecond stays here, for rounding
	b.fullAt -= back
	b.untold -= back
}

// Balance tells what a payer has.
func (l *Ledger) Balance(p Payer) Balance {
	at, now := l.now()
	s := l.shard(p.Key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.buckets[p.Key]; b != nil {
		return p.balance(at, b.owed(now))
	}
	return p.balance(at, 0)
}

// Run forgets full buckets and exchanges with the other processes until ctx ends. It returns nil.
func (l *Ledger) Run(ctx context.Context) error {
	tick := time.NewTicker(l.opt.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := l.exchange(ctx)
		if failing := err != nil && ctx.Err() == nil; failing != l.failing {
			l.failing = failing
			l.opt.Report(err)
		}
	}
}

// exchange tells what was spent here and adopts what is left of it everywhere.
func (l *Ledger) exchange(ctx context.Context) error {
	_, now := l.now()
	due := l.due(now)
	if l.opt.Settle == nil || len(due.payers) == 0 && now-l.settledAt < int64(forgetEvery) {
		return nil
	}
	// One that hangs is as good as one that fails, and keeps the next from being tried.
	ctx, cancel := context.WithTimeout(ctx, 5*l.opt.Every)
	defer cancel()
	owed, err := l.opt.Settle(ctx, due.payers, due.spent)
	_, now = l.now()
	if err == nil {
		l.settledAt = now
	}
	for i, b := range due.buckets {
		s := l.shard(due.payers[i])
		s.mu.Lock()
		switch spent := int64(due.spent[i]); {
		case err == nil:
			b.untold -= spent
			b.fullAt = now + int64(owed[i]) + b.untold
			b.shared = float64(owed[i]) > quiet*float64(b.whole)
		case spent < 0:
			b.untold -= spent
		}
		s.mu.Unlock()
	}
	return err
}

// dues are what the other side should know, in one order. A bucket may be forgotten while
// they are told; then what comes of it is, too.
type dues struct {
	payers  []string
	spent   []time.Duration
	buckets []*bucket
}

// due walks through all buckets: it forgets the full ones, and what need not be told, and
// returns the rest. About 60 ns each.
func (l *Ledger) due(now int64) (d dues) {
	aged := float64(max(0, now-l.agedAt)) * quiet
	l.agedAt = now
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for key, b := range s.buckets {
			grace := quiet * float64(b.whole)
			if !b.shared {
				b.untold = max(0, b.untold-int64(aged))
			}
			b.untold = min(b.untold, b.owed(now)+max(int64(grace), int64(goAlone*l.opt.Every)))
			if b.untold == 0 && b.owed(now) == 0 {
				delete(s.buckets, key)
				continue
			}
			asks := b.shared && (b.untold != 0 || b.asked)
			if l.opt.Settle != nil && len(d.payers) < mostTold && (asks || float64(b.untold) >= grace) {
				b.shared, b.asked = true, false
				d.payers, d.spent, d.buckets = append(d.payers, key), append(d.spent, time.Duration(b.untold)), append(d.buckets, b)
			}
		}
		s.mu.Unlock()
	}
	return d
}
