// Package notifytest answers one question: what did a real mail server get?
//
// It starts mailpit, which make builds once, and asks it over its API. Nothing is a mock here, and
// where mailpit is missing tests fail rather than skip. Only tests import it.
package notifytest

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/openvantage/vantage/programtest"
)

// A Mailpit is a mail server of one test.
type Mailpit struct {
	SMTP string // host:port
	api  string
}

// A Mail is what it got.
type Mail struct {
	ID        string
	MessageID string
	From      struct{ Name, Address string }
	To, Bcc   []struct{ Name, Address string }
	Subject   string
	Text      string
	Headers   map[string][]string `json:"-"`
}

// Start starts a mail server with more arguments, until the test ends.
func Start(tb testing.TB, args ...string) *Mailpit {
	tb.Helper()
	m := &Mailpit{SMTP: programtest.Free(tb)}
	listen := programtest.Free(tb)
	m.api = "http://" + listen + "/api/v1/"
	args = append([]string{"--smtp", m.SMTP, "--listen", listen, "--database", filepath.Join(tb.TempDir(), "mail.db"), "--disable-version-check", "--smtp-disable-rdns", "--quiet"}, args...)
	cmd := exec.CommandContext(context.Background(), programtest.Find(tb, "mailpit"), args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	programtest.Answers(tb, m.api+"info", &said)
	return m
}

// Mails are all that it got, oldest first.
func (m *Mailpit) Mails(tb testing.TB) []Mail {
	tb.Helper()
	var list struct{ Messages []struct{ ID string } }
	m.get(tb, "messages?limit=100", &list)
	var all []Mail
	for _, found := range list.Messages {
		var one Mail
		m.get(tb, "message/"+found.ID, &one)
		m.get(tb, "message/"+found.ID+"/headers", &one.Headers)
		all = append(all, one)
	}
	slices.Reverse(all)
	return all
}

func (m *Mailpit) get(tb testing.TB, path string, into any) {
	tb.Helper()
	res, err := http.Get(m.api + path) //nolint:noctx // it is our own child
	if err != nil {
		tb.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		tb.Fatalf("%s answered %s", path, res.Status)
	}
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		tb.Fatal(err)
	}
}
