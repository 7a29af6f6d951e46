package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// A progress tells on standard error how far something long is: on a terminal as a bar in one line, elsewhere as a
// line each ten seconds. The zero value of out says nothing.
type progress struct {
	out      io.Writer
	bar      bool
	began    time.Time
	last     time.Time
	now      func() time.Time
	previous string
}

func newProgress(quiet bool) *progress {
	p := &progress{now: time.Now}
	if quiet {
		return p
	}
	st, err := os.Stderr.Stat()
	p.out, p.bar = os.Stderr, err == nil && st.Mode()&os.ModeCharDevice != 0
	return p
}

// tell says that done of all is done, and what that is. All of 0 is unknown.
func (p *progress) tell(done, all int64, what string) {
	if p.out == nil {
		return
	}
	now, every := p.now(), 10*time.Second
	if p.bar {
		every = 100 * time.Millisecond
	}
	if p.began.IsZero() {
		p.began, p.last = now, now
	}
	if now.Sub(p.last) < every {
		return
	}
	p.last = now
	p.line(p.text(done, all, what, now))
}

func (p *progress) text(done, all int64, what string, now time.Time) string {
	if all == 0 {
		return what
	}
	share := min(1, float64(done)/float64(all))
	left := ""
	if share > 0 && share < 1 {
		left = ", " + time.Duration(float64(now.Sub(p.began))*(1-share)/share).Round(time.Second).String() + " left"
	}
	s := fmt.Sprintf("%3.0f %%  %s%s", 100*share, what, left)
	if p.bar {
		const width = 24
		n := int(share * width)
		s = "[" + strings.Repeat("#", n) + strings.Repeat(".", width-n) + "] " + s
	}
	return s
}

func (p *progress) line(s string) {
	if !p.bar {
		fmt.Fprintln(p.out, s)
		return
	}
	fmt.Fprint(p.out, "\r"+s+strings.Repeat(" ", max(0, len(p.previous)-len(s))))
	p.previous = s
}

// interrupt makes room for other output.
func (p *progress) interrupt() {
	if p.bar && p.previous != "" {
		fmt.Fprintln(p.out)
		p.previous = ""
	}
}

// end is the last line. Other output may follow.
func (p *progress) end(s string) {
	switch {
	case p.out == nil:
	case p.bar:
		p.line(s)
		fmt.Fprintln(p.out)
	default:
		fmt.Fprintln(p.out, s)
	}
}
