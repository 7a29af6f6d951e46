//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A process is a server under measurement.
type process struct {
	cmd *exec.Cmd
	api string // host and port
}

// A subject is the program under measurement, on a data directory.
type subject struct {
	process
	binary, data string
	cold         time.Duration // how long the first start took
}

// start runs the program and returns how long it took until it was ready.
func (s *subject) start(ctx context.Context) (time.Duration, error) {
	s.api = freeAddress(ctx)
	s.cmd = exec.CommandContext(ctx, s.binary, "serve")
	s.cmd.Env = append(os.Environ(), "DATABASE_URL=", "DATA_DIR="+s.data, "LISTEN="+s.api, "HEARTBEAT_LISTEN="+freeAddress(ctx), "HEARTBEAT_MIN_INTERVAL=0", "LOG_LEVEL=warn",
		"RATE_OPERATOR=10000000/1000000000", "RATE_PROBE=10000000/1000000000") // or points would end before the server does
	return s.launch(ctx, "/readyz")
}

// launch starts the process and waits until a path of it is served.
func (p *process) launch(ctx context.Context, path string) (time.Duration, error) {
	p.cmd.Stderr = os.Stderr
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) } // it has a database to stop
	p.cmd.WaitDelay = 20 * time.Second
	began := time.Now()
	if err := p.cmd.Start(); err != nil {
		return 0, err
	}
	err := eventually(ctx, 30*time.Second, "the server gets ready", func() bool { return p.serves(ctx, path) })
	if err != nil {
		p.stop()
	}
	return time.Since(began), err
}

func (p *process) serves(ctx context.Context, path string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.api+path, nil)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait() // what it says is on standard error
}

func (s *subject) command(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, s.binary, args...)
	cmd.Env, cmd.Stderr = append(os.Environ(), "DATABASE_URL=", "DATA_DIR="+s.data), os.Stderr
	return cmd.Run()
}

func (s *subject) token(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, s.binary, "token", "create", "--role", "OPERATOR", "--name", "bench")
	cmd.Env, cmd.Stderr = append(os.Environ(), "DATABASE_URL=", "DATA_DIR="+s.data), os.Stderr
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

func freeAddress(ctx context.Context) string {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "127.0.0.1:0"
	}
	defer l.Close()
	return l.Addr().String()
}

// settled is the resident memory once it changes no more, at most half a minute from now.
func (p *process) settled(ctx context.Context) (mb float64, err error) {
	same := 0
	for range 30 {
		if err := pause(ctx, time.Second); err != nil {
			return 0, err
		}
		now, err := p.resident()
		if err != nil {
			return 0, err
		}
		if same++; now < .998*mb || now > 1.002*mb {
			same = 0
		}
		if mb = now; same == 5 {
			break
		}
	}
	return mb, nil
}

// quiet is as long as Go's runtime waits for garbage, less what a look takes: then it collects anyway.
const quiet = 110 * time.Second

// collected waits until the runtime has collected because nothing went on, which is when it gives back
// what it does not need, and for patience at most.
func (p *process) collected(ctx context.Context, patience time.Duration) error {
	last := 0.0
	for end := time.Now().Add(patience); time.Now().Before(end); {
		f, err := p.figures(ctx)
		if err != nil {
			return err
		}
		now := f["go_memstats_last_gc_time_seconds"]
		if last > 0 && now-last > quiet.Seconds() {
			return nil
		}
		last = now
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
	return nil
}

// resident is the memory of the server process, without PostgreSQL, in MB.
func (p *process) resident() (float64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			kb, err := strconv.ParseFloat(f[1], 64)
			return kb / 1024, err
		}
	}
	return 0, errors.New("no VmRSS")
}

// cpuTime is what the server process has used, user and system.
func (p *process) cpuTime() time.Duration {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// A share is processor time of a virtual machine, in ticks: what others took, and all.
type share struct{ others, all float64 }

func stolen() (s share) {
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return s
	}
	const steal = 8 // Source: proc_stat(5)
	line, _, _ := strings.Cut(string(raw), "\n")
	for i, f := range strings.Fields(line)[:steal+1] {
		n, _ := strconv.ParseFloat(f, 64)
		s.all += n
		if i == steal {
			s.others = n
		}
	}
	return s
}

// since is the percentage of others since s.
func (s share) since() float64 {
	now := stolen()
	return 100 * (now.others - s.others) / max(1, now.all-s.all)
}

// ownTime is what this process has used.
func ownTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A footprint is what a process takes, in MB: from the machine, and of that what Go uses.
type footprint struct{ resident, heap, stacks float64 }

func (p *process) footprint(ctx context.Context) (f footprint, err error) {
	said, err := p.figures(ctx)
	if err != nil {
		return f, err
	}
	f.heap, f.stacks = said["go_memstats_heap_inuse_bytes"]/(1<<20), said["go_memstats_stack_inuse_bytes"]/(1<<20)
	f.resident, err = p.resident()
	return f, err
}

// figures are what /metrics says, by name and labels as written there.
func (p *process) figures(ctx context.Context) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.api+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	out := map[string]float64{}
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), "} ")
		if value != "" {
			name += "}"
		} else {
			name, value, _ = strings.Cut(lines.Text(), " ")
		}
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			out[name] = v
		}
	}
	return out, nil
}
