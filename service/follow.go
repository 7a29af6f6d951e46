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

// Read returns a function that reads the log on from a position. Each call returns what there
// is now, without waiting, and the place up to which that is complete: from memory where
// that reaches back, otherwise a part of the stored log. It fails with RESYNC when the log no
// longer reaches back to the position, or never reached so far. It is for one caller at a time.
func (s *Service) Read(from events.Position) func(context.Context) ([]events.Event, events.Position, error) {
	at, checked := from, false
	return func(ctx context.Context) ([]events.Event, events.Position, error) {
		if !checked {
			if err := s.reachable(ctx, at); err != nil {
				return nil, at, err
			}
			checked = true
		}
		evs, head, ok := s.tail.After(at.Seq)
		if !ok {
			var err error
			if evs, head, err = s.stored(ctx, at); err != nil {
				return nil, at, err
			}
		}
		if n := len(evs); n > 0 {
			at = evs[n-1].Position()
		}
		if head > at.Seq {
			at = events.Position{Seq: head, RecordedAt: at.RecordedAt}
		}
		return evs, at, nil
	}
}

// Follow calls each with the events that come after the position, in order and as many at a
// time as there are, until each reports false or ctx ends; with nil, from now on. A slow
// caller falls behind and reads the stored log; nobody waits for it. Events are shared and
// must not be changed. It fails as Read does.
func (s *Service) Follow(ctx context.Context, after *events.Position, each func([]events.Event) bool) error {
	if after == nil {
		seq, _ := s.tail.Head()
		after = &events.Position{Seq: seq}
	}
	for next := s.Read(*after); ; {
		head, moved := s.tail.Head()
		evs, at, err := next(ctx)
		switch {
		case err != nil:
			return err
		case len(evs) > 0:
			if !each(evs) {
				return nil
			}
			continue
		case at.Seq < head:
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
	seq, _ := s.tail.Head()
	if at.Seq >= floor && at.Seq <= seq {
		return nil
	}
	head, err := s.db.LogHead(ctx)
	if err != nil {
		return err
	}
	gone := fault.New(fault.Resync, "The log no longer reaches back to this cursor. Load the present state and continue from its cursor.")
	switch {
	case at.Seq > head.Seq:
		gone = fault.New(fault.Resync, "This cursor lies beyond the end of the log. Load the present state and continue from its cursor.")
	case at.Seq >= floor:
		return nil
	}
	return gone.With("from", floor).With("to", head.Seq)
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
