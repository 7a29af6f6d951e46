//go:build e2e

package e2e

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/notify/notifytest"
	"github.com/openvantage/vantage/simulation"
)

// scenarioTimeout is generous: a story takes 130 seconds at most.
const scenarioTimeout = 3 * time.Minute

// pace is the rate that a story is told at: its own, but no faster than leaves a heartbeat a second to be late in.
// Those of days have to be fast, and no heartbeat of theirs matters so much.
func pace(s simulation.Scenario) string {
	rate := s.Rate
	if s.Length < 24*time.Hour {
		rate = min(rate, 200)
	}
	return strconv.FormatFloat(rate, 'g', -1, 64)
}

// TestScenarios has the command tell each story to a server of its own.
func TestScenarios(t *testing.T) {
	t.Parallel()
	for _, s := range simulation.Scenarios() {
		t.Run(s.Name+" ends in the decisions of the rule book", func(t *testing.T) {
			t.Parallel()
			mail := notifytest.Start(t)
			server := serve(t, "CLOCK_RATE="+pace(s),
				"SMTP_URL=smtp://"+mail.SMTP, "SMTP_TLS=none", "MAIL_FROM=probes@example.org", "NOTIFY_ALLOW_PRIVATE=true")
			settings := []string{"VANTAGE_URL=" + server.url, "VANTAGE_TOKEN=" + server.token(t, access.Operator)}
			p := launch(t, server.dir, settings, "simulate", "--scenario", s.Name, "--rate", pace(s))
			select {
			case <-p.exited:
			case <-time.After(scenarioTimeout):
				t.Fatalf("the story has no end:\n%s", p.said())
			}
			said := p.said()
			t.Log(said)
			if p.err != nil {
				t.Errorf("%v", p.err)
			}
			// With a mail server that works, nobody is left to a person who could be written to.
			if s.Name == "churn" && !strings.Contains(said, "gone INACTIVE") {
				t.Error("the operator who never answered was not given up")
			}
		})
	}
}
