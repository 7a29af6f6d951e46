//go:build e2e

package e2e

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openvantage/vantage/access"
)

// TestColdStart is not parallel: with others starting beside it the figure would say nothing.
func TestColdStart(t *testing.T) { //nolint:paralleltest // see above
	began := time.Now()
	serve(t)
	took := time.Since(began)
	t.Logf("from nothing to ready in %v", took.Round(time.Millisecond))
	if took > 10*time.Second {
		t.Errorf("a start with an empty data directory took %v", took)
	}
}

func TestSecondProcess(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	s := serve(t)

	beside := s.token(t, access.Operator)
	checkRole(ctx, t, s, beside, access.Operator)

	second := launch(t, s.dir, anyPorts, "serve")
	eventually(t, soon, "the second server gives up", func() bool { return !second.running() })
	if second.err == nil || !strings.Contains(second.said(), "is in use by process") {
		t.Errorf("a second server on the same data ended with %v and said %q", second.err, second.said())
	}
	checkRole(ctx, t, s, beside, access.Operator) // the first one goes on

	s.process.end(t, syscall.SIGTERM)
	if err := s.process.err; err != nil {
		t.Errorf("the server stopped with %v", err)
	}
	alone := s.token(t, access.Researcher)
	s.start(t)
	checkRole(ctx, t, s, beside, access.Operator)
	checkRole(ctx, t, s, alone, access.Researcher)
}

func checkRole(ctx context.Context, t *testing.T, s *server, token string, want access.Role) {
	t.Helper()
	var out struct {
		Viewer struct{ Role access.Role }
	}
	if err := newClient(s, token).Do(ctx, `{ viewer { role } }`, nil, &out); err != nil || out.Viewer.Role != want {
		t.Errorf("the token is of role %q, %v; want %s", out.Viewer.Role, err, want)
	}
}
