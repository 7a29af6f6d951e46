package notify_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/openvantage/vantage/alert"
	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/notify"
	"github.com/openvantage/vantage/programtest"
)

// A receiver is a server on this machine that keeps what it is sent.
type receiver struct {
	*httptest.Server
	requests chan request
}

type request struct {
	header http.Header
	body   []byte
}

// receive answers every request so.
func receive(t *testing.T, answer http.HandlerFunc) receiver {
	t.Helper()
	r := receiver{requests: make(chan request, 10)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		b, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		r.requests <- request{req.Header, b}
		answer(w, req)
	}))
	t.Cleanup(r.Close)
	return r
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func sender(t *testing.T, s notify.Settings) *notify.Sender {
	t.Helper()
	n, err := notify.New(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func problem(t *testing.T, err error) notify.Problem {
	t.Helper()
	var p *notify.Problem
	if !errors.As(err, &p) {
		t.Fatalf("it ended with %v", err)
	}
	return *p
}

const secret = "whk-0123456789abcdef"

func TestNew(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		s     notify.Settings
		field string
	}{
		"nothing needs to be set":             {notify.Settings{}, ""},
		"a chat without TLS is refused":       {notify.Settings{SlackURL: "http://example.org/secret"}, "SLACK_WEBHOOK_URL"},
		"a pager without TLS is refused":      {notify.Settings{PagerDutyURL: "http://example.org/"}, "PAGERDUTY_URL"},
		"private ones need no TLS":            {notify.Settings{SlackURL: "http://127.0.0.1/x", AllowPrivate: true}, ""},
		"a chat must have an address":         {notify.Settings{SlackURL: "secret:%zz"}, "SLACK_WEBHOOK_URL"},
		"a mail server must have one":         {notify.Settings{SMTPURL: "mail.example.org:secret", MailFrom: "a@example.org"}, "SMTP_URL"},
		"a mail server's port is a number":    {notify.Settings{SMTPURL: "smtp://u:secret@h:99999999999999999999", MailFrom: "a@example.org"}, "SMTP_URL"},
		"letters must have a sender":          {notify.Settings{SMTPURL: "smtp://u:secret@h"}, "MAIL_FROM"},
		"a policy of TLS must be one":         {notify.Settings{SMTPURL: "smtp://u:secret@h", MailFrom: "a@example.org", SMTPTLS: "maybe"}, "SMTP_TLS"},
		"a mail server with everything is ok": {notify.Settings{SMTPURL: "smtps://u:secret@h", MailFrom: "V <a@example.org>"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := notify.New(c.s)
			if c.field == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			f := fault.Of(err)
			if f == nil || f.Code != fault.Invalid || f.Field != c.field {
				t.Fatalf("it ended with %v", err)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("%q shows a secret", err)
			}
		})
	}
}

func TestNowhere(t *testing.T) {
	t.Parallel()
	n := sender(t, notify.Settings{})
	for channel, err := range map[string]error{
		"a page":   n.Page(t.Context(), "k", notify.Page{Signal: alert.Trigger}),
		"a digest": n.Post(t.Context(), notify.Digest{}),
		"a letter": n.Mail(t.Context(), "k", "bob@example.org", notify.Letter{Letter: notify.Activation}, notify.Facts{}),
	} {
		if !errors.Is(err, notify.Nowhere) {
			t.Errorf("%s ended with %v", channel, err)
		}
	}
}

func TestPage(t *testing.T) {
	t.Parallel()
	r := receive(t, status(http.StatusAccepted))
	n := sender(t, notify.Settings{PagerDutyKey: "R0", PagerDutyURL: r.URL, AllowPrivate: true})
	facts := `{"kind":"COVERAGE_BREACH","country":"IR","summary":"Iran lacks two networks.","members":["prb_1"]}`
	for _, s := range []alert.Signal{alert.Trigger, alert.Acknowledge, alert.Resolve} {
		p := notify.Page{Signal: s, At: time.Date(2026, 3, 1, 2, 3, 4, 0, time.UTC), Alert: json.RawMessage(facts)}
		if err := n.Page(t.Context(), "vantage:slo:IR:1", p); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{
		`{"routing_key":"R0","event_action":"trigger","dedup_key":"vantage:slo:IR:1","payload":{"summary":"Iran lacks two networks.","source":"vantage",` +
			`"severity":"critical","timestamp":"2026-03-01T02:03:04Z","class":"COVERAGE_BREACH","group":"IR","custom_details":` + facts + `}}`,
		`{"routing_key":"R0","event_action":"acknowledge","dedup_key":"vantage:slo:IR:1"}`,
		`{"routing_key":"R0","event_action":"resolve","dedup_key":"vantage:slo:IR:1"}`,
	} {
		if diff := cmp.Diff(want, string((<-r.requests).body)); diff != "" {
			t.Error(diff)
		}
	}
	if err := n.Page(t.Context(), "k", notify.Page{Signal: alert.Trigger, Alert: json.RawMessage(`{}`)}); !problem(t, err).Final {
		t.Errorf("what is no page ended with %v", err)
	}
	if err := n.Page(t.Context(), strings.Repeat("é", 300), notify.Page{Signal: alert.Resolve}); err != nil {
		t.Fatal(err)
	}
	var e struct {
		Key string `json:"dedup_key"`
	}
	if err := json.Unmarshal((<-r.requests).body, &e); err != nil || len([]rune(e.Key)) != 255 {
		t.Errorf("the key has %d characters: %v", len([]rune(e.Key)), err)
	}
}

func TestPost(t *testing.T) {
	t.Parallel()
	r := receive(t, status(http.StatusOK))
	n := sender(t, notify.Settings{SlackURL: r.URL, AllowPrivate: true})
	at := time.Date(2026, 3, 1, 2, 0, 0, 0, time.UTC)
	d := notify.Digest{From: at, To: at.Add(15 * time.Minute), Lines: []notify.DigestLine{
		{Change: alert.NowOpen, Country: "DE", Summary: "The probe <!channel> & co is offline."},
		{Change: alert.NowResolved, Country: "FR", Summary: "France is covered."},
	}}
	if err := n.Post(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	var got struct{ Text string }
	if err := json.Unmarshal((<-r.requests).body, &got); err != nil {
		t.Fatal(err)
	}
	want := "2026-03-01 02:00 to 02:15 UTC\n• opened DE: The probe &lt;!channel&gt; &amp; co is offline.\n• resolved FR: France is covered."
	if diff := cmp.Diff(want, got.Text); diff != "" {
		t.Error(diff)
	}
}

func TestCall(t *testing.T) {
	t.Parallel()
	r := receive(t, status(http.StatusNoContent))
	n := sender(t, notify.Settings{AllowPrivate: true})
	body := []byte(`{"kind": "ALERT_OPENED"}`)
	if err := n.Call(t.Context(), notify.Hook{URL: r.URL, Secret: secret}, "key-1", body); err != nil {
		t.Fatal(err)
	}
	got := <-r.requests

	t.Run("the signature is what README says", func(t *testing.T) {
		t.Parallel()
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(got.header.Get("Vantage-Timestamp") + "." + string(got.body)))
		if want := "v1=" + hex.EncodeToString(mac.Sum(nil)); got.header.Get("Vantage-Signature") != want {
			t.Errorf("it is %q, want %q", got.header.Get("Vantage-Signature"), want)
		}
		at, err := strconv.ParseInt(got.header.Get("Vantage-Timestamp"), 10, 64)
		if err != nil || time.Since(time.Unix(at, 0)).Abs() > time.Minute {
			t.Errorf("it was signed at %d: %v", at, err)
		}
	})
	t.Run("the body is sent byte for byte", func(t *testing.T) {
		t.Parallel()
		if string(got.body) != string(body) || got.header.Get("Vantage-Delivery") != "key-1" || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("got %q with %v", got.body, got.header)
		}
	})
}

func TestProblems(t *testing.T) {
	t.Parallel()
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(tls.Close)
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		url    string
		want   notify.Problem
	}{
		"an error of the receiver":     {answer: status(500), want: notify.Problem{Text: "It answered 500."}},
		"too many":                     {answer: status(429), want: notify.Problem{Text: "It answered 429."}},
		"a message that is refused":    {answer: status(400), want: notify.Problem{Text: "It answered 400.", Final: true}},
		"a key that is wrong for now":  {answer: status(403), want: notify.Problem{Text: "It answered 403."}},
		"a receiver that is not there": {url: "http://" + programtest.Free(t), want: notify.Problem{Text: "It cannot be reached, or broke off."}},
		"a certificate of nobody":      {url: tls.URL, want: notify.Problem{Text: "Its certificate cannot be trusted."}},
		"a name of nobody":             {url: "http://no..body/", want: notify.Problem{Text: "Its name has no address."}},
		"a redirect to a private place": {
			answer: func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://169.254.169.254/latest/meta-data", http.StatusTemporaryRedirect)
			},
			want: notify.Problem{Text: "It answered 307, and redirects are not followed."},
		},
		"one that breaks off": {
			answer: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			want:   notify.Problem{Text: "It cannot be reached, or broke off."},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.answer != nil {
				c.url = receive(t, c.answer).URL
			}
			n := sender(t, notify.Settings{SlackURL: c.url + "/T0/secret", AllowPrivate: true})
			if diff := cmp.Diff(c.want, problem(t, n.Post(t.Context(), notify.Digest{}))); diff != "" {
				t.Error(diff)
			}
		})
	}

	t.Run("of a huge answer only the beginning is read", func(t *testing.T) {
		t.Parallel()
		sent := make(chan int, 1)
		r := receive(t, func(w http.ResponseWriter, _ *http.Request) {
			piece, n := make([]byte, 1<<20), 0
			for ; n < 4096; n++ { // until nobody reads
				if _, err := w.Write(piece); err != nil {
					break
				}
			}
			sent <- n
		})
		n := sender(t, notify.Settings{SlackURL: r.URL, AllowPrivate: true})
		if err := n.Post(t.Context(), notify.Digest{}); err != nil {
			t.Error(err)
		}
		if n := <-sent; n > 64 {
			t.Errorf("%d MiB were taken", n)
		}
	})

	t.Run("huge headers are refused", func(t *testing.T) {
		t.Parallel()
		r := receive(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) })
		n := sender(t, notify.Settings{SlackURL: r.URL, AllowPrivate: true})
		if err := n.Post(t.Context(), notify.Digest{}); err == nil {
			t.Error("they were taken")
		}
	})

	t.Run("one that does not answer is given up", func(t *testing.T) {
		t.Parallel()
		silent := make(chan struct{})
		r := receive(t, func(http.ResponseWriter, *http.Request) { <-silent })
		t.Cleanup(func() { close(silent) })
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		n := sender(t, notify.Settings{SlackURL: r.URL, AllowPrivate: true})
		if p := problem(t, n.Post(ctx, notify.Digest{})); p.Text != "It did not answer in time." || p.Final {
			t.Errorf("it ended with %+v", p)
		}
	})
}

func TestPrivate(t *testing.T) {
	t.Parallel()
	r := receive(t, status(http.StatusOK))
	private := notify.Problem{Text: "Its address is in a private network, which NOTIFY_ALLOW_PRIVATE would allow."}
	_, port, err := net.SplitHostPort(r.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]"} {
		t.Run("a webhook at "+host+" is refused", func(t *testing.T) {
			t.Parallel()
			n := sender(t, notify.Settings{})
			err := n.Call(t.Context(), notify.Hook{URL: "https://" + host + ":" + port, Secret: secret}, "k", []byte("{}"))
			if diff := cmp.Diff(private, problem(t, err)); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("so is a mail server", func(t *testing.T) {
		t.Parallel()
		n := sender(t, notify.Settings{SMTPURL: "smtp://127.0.0.1:" + port, MailFrom: "a@example.org"})
		err := n.Mail(t.Context(), "k", "bob@example.org", notify.Letter{Letter: notify.Activation}, notify.Facts{})
		if p := problem(t, err); !strings.Contains(p.Text, "private network") {
			t.Errorf("it ended with %+v", p)
		}
	})
	t.Run("a webhook without TLS is refused", func(t *testing.T) {
		t.Parallel()
		if err := sender(t, notify.Settings{}).Call(t.Context(), notify.Hook{URL: "http://example.org"}, "k", nil); !problem(t, err).Final {
			t.Errorf("it ended with %v", err)
		}
	})
	if len(r.requests) > 0 {
		t.Error("something arrived")
	}

	for address, want := range map[string]bool{
		"8.8.8.8": true, "2606:4700::1": true, "::ffff:8.8.8.8": true,
		"10.0.0.1": false, "172.16.0.1": false, "192.168.1.1": false, "127.1.2.3": false, "169.254.169.254": false, "100.64.0.1": false,
		"0.1.2.3": false, "224.0.0.1": false, "255.255.255.255": false, "192.0.0.8": false, "198.18.0.1": false, "240.0.0.1": false,
		"::": false, "::1": false, "fe80::1": false, "fe80::1%eth0": false, "fc00::1": false, "ff02::1": false, "fec0::1": false,
		"::ffff:10.0.0.1": false, "::10.0.0.1": false, "64:ff9b::a00:1": false, "2002:a00:1::": false, "2001:db8::1": false, "2001::1": false,
	} {
		t.Run(address, func(t *testing.T) {
			t.Parallel()
			if got := notify.Public(netip.MustParseAddr(address)); got != want {
				t.Errorf("public is %v", got)
			}
		})
	}
}
