package service

import (
	"cmp"
	"context"
	"errors"
	"io"
	"math"
	"strconv"
	"time"

	"github.com/openvantage/vantage/archive"
	"github.com/openvantage/vantage/db"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
)

// When piles are packed; our decisions. An hour that is over still gets the bodies of
// transactions under way. What the look after an hour did not manage is tried again by the others,
// but not for ever: what an operator back-fills would become packs of a minute each.
const (
	packAfter   = 5 * time.Minute
	packMissed  = 20 * time.Minute
	packMissing = 24 * time.Hour
	packFor     = 4 * time.Minute // after which no pack is begun; jobs have five
	packBatch   = 4 << 20         // bytes of the spool that are read at a time
)

// Pack archives all bodies of the hours that are over, and piles that are large. The database is as it
// was, and every body is where it was, when it fails: with UNAVAILABLE when the store cannot be used.
func (s *Service) Pack(ctx context.Context) error {
	_, err := s.pack(ctx, look{after: packAfter, length: packFor})
	return err
}

// PackLarge archives piles that are large, and what Pack did not manage.
func (s *Service) PackLarge(ctx context.Context) error {
	_, err := s.pack(ctx, look{after: packMissed, within: packMissing, length: packFor})
	return err
}

// PackBeside is Pack for who waits for it, however long it takes; with now it archives hours too that are
// not over, whose later bodies get packs of their own. It tells of each pack.
func (s *Service) PackBeside(ctx context.Context, now bool, each func(Packing)) (Packing, error) {
	l := look{after: packAfter, each: each}
	if now {
		l.after = math.MinInt64
	}
	return s.pack(ctx, l)
}

// A Packing is what became of the spool.
type Packing struct {
	Packs, Bodies int   // archived
	Waiting       int   // bodies that are left
	Bytes         int64 // that these are in the spool
}

// A look takes the hours that are over for after, unless it is for more than within, where that is set.
// After length no pack is begun, where that is set.
type look struct {
	after, within, length time.Duration
	each                  func(Packing)
}

func (l look) due(over time.Duration) bool {
	return over >= l.after && (l.within == 0 || over < l.within)
}

func (s *Service) pack(ctx context.Context, l look) (sum Packing, err error) {
	if s.settings.Archive == nil {
		return sum, nil
	}
	piles, err := s.db.SpooledPiles(ctx)
	if err != nil {
		return sum, err
	}
	for _, p := range piles {
		sum.Waiting += p.Bodies
		sum.Bytes += p.Bytes
	}
	now, began := s.db.Now(), time.Now()
	var failed error
	for _, p := range piles {
		due := l.due(now.Sub(p.Hour.Add(time.Hour)))
		if !due && p.Bytes < archive.PackBytes {
			continue
		}
		if l.length > 0 && time.Since(began) > l.length {
			s.log.Info("the archive goes on with the next look", "waitingBytes", sum.Bytes)
			break
		}
		err := s.packPile(ctx, p, due, func(bodies int, bytes int64) {
			sum.Packs++
			sum.Bodies += bodies
			sum.Waiting -= bodies
			sum.Bytes -= bytes
			if l.each != nil {
				l.each(sum)
			}
		})
		if err != nil {
			s.meter.Packed("FAILED")
			if ctx.Err() == nil {
				s.log.Error("bodies cannot be archived; they stay in the spool, and are tried again",
					"pile", p.String(), "do", archive.Advice(err), "err", err)
			}
			failed = errors.Join(failed, err)
			if ctx.Err() != nil || fault.Is(err, fault.Unavailable) {
				break // for the others it would be the same
			}
		}
	}
	s.meter.Spooled(sum.Bytes)
	return sum, failed
}

// packPile makes packs of a pile, of all of it or only while there are full ones in it, and tells of
// each how many bodies, and bytes of the spool, it took.
func (s *Service) packPile(ctx context.Context, pile db.SpooledPile, all bool, each func(bodies int, bytes int64)) error {
	ctx, lock, ok, err := s.db.LockPile(ctx, pile.Pile)
	if err != nil || !ok { // another process is at it
		return err
	}
	defer lock.Unlock()
	for pile.Bytes > 0 && (all || pile.Bytes >= archive.PackBytes) {
		bodies, n, err := s.packOnce(ctx, lock, pile.Pile)
		if err != nil {
			return cmp.Or(context.Cause(ctx), err)
		}
		if bodies == 0 {
			break // others were there between the look and the lock
		}
		each(bodies, n)
		pile.Bytes -= n
	}
	return nil
}

// packOnce makes one pack. Until its last step the spool has every body; after it, the pack. What a
// crash leaves in the store has the name of the next attempt.
func (s *Service) packOnce(ctx context.Context, lock db.PileLock, pile archive.Pile) (bodies int, bytes int64, err error) {
	began := time.Now()
	waiting, err := s.db.SpooledBodies(ctx, pile, archive.PackBodies)
	if err != nil || len(waiting) == 0 {
		return 0, 0, err
	}
	sequence, err := s.db.NextPack(ctx, pile, s.settings.Collector)
	if err != nil {
		return 0, 0, err
	}
	if err := s.at("chosen"); err != nil {
		return 0, 0, err
	}
	name := pile.Name(s.settings.Collector, sequence)
	pack, bytes, err := s.upload(ctx, lock, pile, name, waiting)
	if err != nil || len(pack.Entries) == 0 {
		return 0, 0, err
	}
	if err := s.at("written"); err != nil {
		return 0, 0, err
	}
	if err := s.settings.Archive.Verify(ctx, pack); err != nil {
		return 0, 0, err
	}
	if err := s.at("verified"); err != nil {
		return 0, 0, err
	}
	if err := s.db.MakePartitionsFor(ctx, pile.Hour); err != nil {
		return 0, 0, err
	}
	err = s.db.Write(ctx, func(tx *db.Tx) error {
		if err := tx.Holds(ctx, lock); err != nil {
			return err
		}
		return tx.InsertPack(ctx, db.Pack{
			Name: name, Pile: pile, Collector: s.settings.Collector, Sequence: sequence, Posts: pack.Posts, Lines: pack.Lines,
		}, pack.Entries)
	})
	if err != nil {
		return 0, 0, err
	}
	s.meter.Packed("OK")
	s.log.Info("bodies archived", "pack", name, "bodies", len(pack.Entries), "bytes", pack.Posts.Size, "took", time.Since(began).Round(time.Millisecond))
	return len(pack.Entries), bytes, s.at("committed")
}

// upload writes both objects of a pack with as many of the bodies as fit into it.
func (s *Service) upload(ctx context.Context, lock db.PileLock, pile archive.Pile, name string, waiting []db.SpooledBody) (pack archive.Pack, bytes int64, err error) {
	posts, err := s.settings.Archive.Create(ctx, name+archive.PostsSuffix)
	if err != nil {
		return pack, 0, err
	}
	defer posts.Abort()
	lines, err := s.settings.Archive.Create(ctx, name+archive.LinesSuffix)
	if err != nil {
		return pack, 0, err
	}
	defer lines.Abort()
	w := archive.NewWriter(pile, posts, lines)
	for len(waiting) > 0 && !w.Full() {
		n, size := 0, 0
		for n < len(waiting) && (n == 0 || size+waiting[n].Bytes <= packBatch) {
			size += waiting[n].Bytes
			n++
		}
		added, err := s.add(ctx, w, waiting[:n])
		if err != nil {
			return pack, 0, err
		}
		bytes += added
		waiting = waiting[n:]
	}
	if w.Len() == 0 {
		return pack, 0, nil
	}
	if pack, err = w.Close(name); err != nil {
		return pack, 0, err
	}
	if err := s.commit(ctx, lock, posts); err != nil {
		return pack, 0, err
	}
	if err := s.at("half written"); err != nil {
		return pack, 0, err
	}
	return pack, bytes, s.commit(ctx, lock, lines)
}

// commit puts an object there, unless another process may be writing one of its name by now.
func (s *Service) commit(ctx context.Context, lock db.PileLock, u *archive.Upload) error {
	if err := s.db.Holds(ctx, lock); err != nil {
		return err
	}
	return u.Commit()
}

// add adds bodies to a pack until it is full, and returns how many bytes of the spool they were.
func (s *Service) add(ctx context.Context, w *archive.Writer, some []db.SpooledBody) (bytes int64, err error) {
	uids := make([]measurement.ID, len(some))
	for i, b := range some {
		uids[i] = b.UID
	}
	bodies, err := s.db.Spooled(ctx, uids)
	if err != nil {
		return 0, err
	}
	for _, b := range some {
		if w.Full() {
			break
		}
		body := bodies[b.UID]
		if body == nil {
			s.log.Error("a body in the spool cannot be read, and stays there", "uid", b.UID)
			continue
		}
		if err := w.Add(b.UID, body); err != nil {
			return bytes, err
		}
		bytes += int64(b.Bytes)
		delete(bodies, b.UID)
	}
	return bytes, nil
}

// at is where tests make a process fail.
func (s *Service) at(step string) error {
	if s.packing == nil {
		return nil
	}
	return s.packing(step)
}

// Body is the body of a measurement or of a discarded submission, byte for byte, from wherever it
// is. It fails with NOT_FOUND when there is none; with UNAVAILABLE when the archive cannot be used at
// the moment; and with INTERNAL when the archived copy is damaged, which waiting does not mend.
func (s *Service) Body(ctx context.Context, uid measurement.ID) ([]byte, error) {
	stored, err := s.db.StoredBody(ctx, uid)
	if err != nil || stored.Here != nil {
		return stored.Here, err
	}
	if s.settings.Archive == nil {
		return nil, fault.New(fault.Unavailable, "This body is archived, and this server has no archive.")
	}
	body, err := s.settings.Archive.Body(ctx, stored.Posts, stored.Entry)
	var damage *archive.Damage
	switch {
	case errors.As(err, &damage):
		s.reportDamage(ctx, stored.Pack, damage)
		return nil, fault.Wrap(err, fault.Internal, "The archived copy of this body is damaged. We know of it.")
	case fault.Is(err, fault.NotFound):
		// A disk that is not mounted looks the same; `vantage archive verify` tells.
		s.meter.Damaged()
		return nil, fault.Wrap(err, fault.Unavailable, "The archive does not have this body at the moment.").After(time.Minute)
	}
	return body, err
}

// reportDamage has everybody know that a pack is not what it was, whoever found it.
func (s *Service) reportDamage(ctx context.Context, pack int64, damage *archive.Damage) {
	s.meter.Damaged()
	s.log.Error("the archive is damaged", "object", damage.Object, "problem", damage.Problem, "do", "put the object back from a copy, then run `vantage archive verify`")
	if err := s.saveDamage(ctx, pack, true); err != nil {
		s.log.Error("it could not be recorded that the archive is damaged", "object", damage.Object, "err", err)
	}
}

func (s *Service) saveDamage(ctx context.Context, pack int64, damaged bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return s.db.Write(ctx, func(tx *db.Tx) error {
		news, err := tx.SaveDamage(ctx, pack, damaged)
		if err == nil && news {
			s.log.Info("the state of a pack changed", "pack", pack, "damaged", damaged)
		}
		return err
	})
}

// ReportDamage records that an object of a pack is not what it was, as a download found.
func (s *Service) ReportDamage(ctx context.Context, pack db.Pack, damage *archive.Damage) {
	s.reportDamage(ctx, pack.ID, damage)
}

// A Verification is how far VerifyArchive came.
type Verification struct {
	Packs, Damaged, Repaired int
	Bytes                    int64
	Problems                 []string // of the last pack
}

// VerifyArchive reads the packs of [since, until) whole and compares them with what was put there. It
// records which are damaged, and which are whole again, and tells progress after each. It fails
// when the store cannot be used, or has nothing at all, as a disk that is not mounted: neither is damage.
func (s *Service) VerifyArchive(ctx context.Context, q db.PackQuery, progress func(Verification)) (sum Verification, err error) {
	if s.settings.Archive == nil {
		return sum, fault.New(fault.Invalid, "There is no archive.")
	}
	p := db.Page{N: 100}
	for {
		packs, err := s.db.Packs(ctx, q, p)
		if err != nil {
			return sum, err
		}
		for _, pack := range packs {
			if sum.Packs == 0 {
				if empty, err := s.settings.Archive.Empty(ctx); err != nil {
					return sum, err
				} else if empty {
					return sum, fault.New(fault.Unavailable, "The archive is empty, and should not be. See whether ARCHIVE_URL is right and its disk is mounted.")
				}
			}
			if err := s.verifyPack(ctx, pack, &sum); err != nil {
				return sum, err
			}
			progress(sum)
		}
		if len(packs) < p.N {
			return sum, nil
		}
		p.After = []string{strconv.FormatInt(packs[len(packs)-1].ID, 10)}
	}
}

func (s *Service) verifyPack(ctx context.Context, pack db.Pack, sum *Verification) error {
	entries, err := s.db.PackedBodies(ctx, pack)
	if err != nil {
		return err
	}
	err = s.settings.Archive.Verify(ctx, archive.Pack{Posts: pack.Posts, Lines: pack.Lines, Entries: entries})
	var damage *archive.Damage
	sum.Packs++
	sum.Bytes += pack.Posts.Size + pack.Lines.Size
	sum.Problems = nil
	switch {
	case errors.As(err, &damage):
		sum.Damaged++
		sum.Problems = []string{damage.Error()}
		s.reportDamage(ctx, pack.ID, damage)
		return nil
	case err != nil:
		return err
	case !pack.DamagedAt.IsZero():
		sum.Repaired++
		return s.saveDamage(ctx, pack.ID, false)
	}
	return nil
}

// OpenPacked reads an object of a pack from an offset on.
func (s *Service) OpenPacked(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	if s.settings.Archive == nil {
		return nil, fault.New(fault.Unavailable, "This server has no archive.")
	}
	return s.settings.Archive.Read(ctx, name, offset, -1)
}
