package service

import (
	"context"
	"slices"
	"time"

	"github.com/openvantage/vantage/events"
	"github.com/openvantage/vantage/fault"
)

// Here is the place in the log up to which this process has seen everything, and how far that
// view may be behind the database.
func (s *Service) Here() (at events.Position, lag time.Duration) {
	seq, _ := s.tail.Head()
	return events.Position{Seq: seq}, s.db.Now().Sub(time.UnixMicro(s.caughtUp.Load()))
}

// Follow calls each with every event that comes after the position, in order, until each
// reports false or ctx ends; with nil, from now on. A slow caller falls behind and reads the
// stored log; nobody waits for it. It fails with RESYNC when the log no longer reaches back
// to the position, or never reached so far.
func (s *Service) Follow(ctx context.Context, after *events.Position, each func(events.Event) bool) error {
	seq, _ := s.tail.Head()
	at := events.Position{Seq: seq}
	if after != nil {
		at = *after
		if err := s.reachable(ctx, at); err != nil {
			return err
		}
	}
	for {
		_, moved := s.tail.Head()
		evs, head, ok := s.tail.After(at.Seq)
		if !ok {
			var err error
			if evs, head, err = s.stored(ctx, at); err != nil {
				return err
			}
		}
		for _, e := range evs {
			if !each(e) {
				return nil
			}
			at = e.Position()
		}
		at.Seq = max(at.Seq, head)
		if !ok {
			continue
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Service) reachable(ctx context.Context, at events.Position) error {
	floor, err := s.db.LogFloor(ctx)
	if err != nil {
		return err
	}
	if at.Seq < floor {
		return fault.New(fault.Resync, "The log no longer reaches back to this cursor. Load the present state and continue from its cursor.")
	}
	if seq, _ := s.tail.Head(); at.Seq <= seq {
		return nil
	}
	head, err := s.db.LogHead(ctx)
	if err == nil && at.Seq > head.Seq {
		err = fault.New(fault.Resync, "This cursor lies beyond the end of the log. Load the present state and continue from its cursor.")
	}
	return err
}

// stored reads a part of the stored log, and says up to where it is complete.
func (s *Service) stored(ctx context.Context, at events.Position) ([]events.Event, int64, error) {
	const some = 500
	seq, _ := s.tail.Head() // before reading: what comes after it may be missing
	evs, err := s.db.EventsAfter(ctx, at, some)
	if err != nil {
		return nil, 0, err
	}
	if err := s.reachable(ctx, at); err != nil { // retention may have passed by meanwhile
		return nil, 0, err
	}
	if len(evs) == some {
		return evs, at.Seq, nil
	}
	return evs, seq, nil
}

// FollowHeartbeats calls each with the heartbeats accepted from now on, as many at a time as
// have come, until each reports false or ctx ends. A caller that falls far behind misses some.
func (s *Service) FollowHeartbeats(ctx context.Context, each func([]events.Heartbeat) bool) error {
	s.listeners.Add(1)
	defer s.listeners.Add(-1)
	began := s.db.Now()
	at, _ := s.beats.Head()
	for {
		_, moved := s.beats.Head()
		beats, head, ok := s.beats.After(at)
		at = head
		fresh := slices.IndexFunc(beats, func(h events.Heartbeat) bool { return h.ReceivedAt.After(began) })
		if fresh >= 0 && !each(beats[fresh:]) {
			return nil
		}
		if !ok {
			continue
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
