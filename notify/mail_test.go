package notify_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/openvantage/vantage/notify"
	"github.com/openvantage/vantage/notify/notifytest"
)

const from = "Vantage <probes@example.org>"

var (
	bob   = notify.Facts{Name: "quiet-heron", Version: "2.0.1"}
	hello = notify.Letter{Letter: notify.Activation}
)

func TestMail(t *testing.T) {
	t.Parallel()
	box := notifytest.Start(t, "--smtp-auth-accept-any", "--smtp-auth-allow-insecure")
	n := sender(t, notify.Settings{SMTPURL: "smtp://" + box.SMTP, SMTPTLS: "none", MailFrom: from, UpdateURL: "https://example.org/update", AllowPrivate: true})
	kinds := []notify.LetterKind{
		notify.Activation, notify.UpdateNotice, notify.PortForwardingNotice, notify.FirstOutreach, notify.SecondOutreach, notify.SuspensionNotice,
	}
	for _, k := range kinds {
		if err := n.Mail(t.Context(), "key", "bob@example.net", notify.Letter{Letter: k}, bob); err != nil {
			t.Fatalf("%s: %v", k, err)
		}
	}
	mails := box.Mails(t)
	if len(mails) != len(kinds) {
		t.Fatalf("%d arrived", len(mails))
	}
	subjects := map[string]bool{}
	for i, m := range mails {
		subjects[m.Subject] = true
		if m.From.Address != "probes@example.org" || m.From.Name != "Vantage" || len(m.To) != 1 || m.To[0].Address != "bob@example.net" || len(m.Bcc) > 0 {
			t.Errorf("%s is from %v to %v and %v", kinds[i], m.From, m.To, m.Bcc)
		}
		if !strings.Contains(m.Subject, bob.Name) || !strings.HasPrefix(m.Text, "Hello,") || !strings.Contains(m.Text, "You can answer to this letter.") ||
			regexp.MustCompile(`\{\{|<no value>`).MatchString(m.Text) {
			t.Errorf("%s says %q: %q", kinds[i], m.Subject, m.Text)
		}
		// Whoever reads over an operator's shoulder must not learn what the program does.
		if word := regexp.MustCompile(`(?i)censor|block|countr|measure`).FindString(m.Subject + m.Text); word != "" {
			t.Errorf("%s speaks of %q", kinds[i], word)
		}
		if m.MessageID != mails[0].MessageID || !strings.HasSuffix(m.MessageID, "@example.org") || m.Headers["Auto-Submitted"] == nil {
			t.Errorf("%s has the id %q and %v", kinds[i], m.MessageID, m.Headers)
		}
	}
	if len(subjects) != len(kinds) {
		t.Errorf("the subjects are %v", subjects)
	}
	if !strings.Contains(mails[1].Text, "https://example.org/update") || !strings.Contains(mails[1].Text, "2.0.1") {
		t.Errorf("the notice of an update says %q", mails[1].Text)
	}
	if err := n.Mail(t.Context(), "k", "bob@example.net", notify.Letter{Letter: "LOVE"}, bob); !problem(t, err).Final {
		t.Errorf("an unknown letter ended with %v", err)
	}
	if err := n.Mail(t.Context(), "k", "bob@example.net", hello, notify.Facts{Name: "a\r\nBcc: eve@example.org"}); err != nil {
		t.Error(err)
	}
	if m := box.Mails(t)[len(kinds)]; len(m.Bcc) > 0 || m.Headers["Bcc"] != nil {
		t.Errorf("a name added headers: %v", m.Headers)
	}
}

func TestMailTLS(t *testing.T) {
	t.Parallel()
	cert, key, roots := certificate(t)
	secured := notifytest.Start(t, "--smtp-tls-cert", cert, "--smtp-tls-key", key, "--smtp-require-starttls", "--smtp-auth-accept-any")
	implicit := notifytest.Start(t, "--smtp-tls-cert", cert, "--smtp-tls-key", key, "--smtp-require-tls")
	open := notifytest.Start(t)
	for name, c := range map[string]struct {
		url, policy string
		roots       *x509.CertPool
		want        string
	}{
		"a server with TLS gets the letter, and the password": {url: "smtp://u:p@" + secured.SMTP, roots: roots},
		"so does one that speaks nothing else":                {url: "smtps://" + implicit.SMTP, roots: roots},
		"one without gets none, as the setting is":            {url: "smtp://" + open.SMTP, want: "The mail server offers no TLS, which SMTP_TLS demands."},
		"one without gets it if that is allowed":              {url: "smtp://" + open.SMTP, policy: "opportunistic"},
		"one that nobody vouches for gets none":               {url: "smtp://" + secured.SMTP, want: "The mail server's certificate cannot be trusted."},
		"nor from the first byte":                             {url: "smtps://" + implicit.SMTP, want: "The mail server's certificate cannot be trusted."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := sender(t, notify.Settings{SMTPURL: c.url, SMTPTLS: c.policy, MailFrom: from, AllowPrivate: true})
			n.Trust(c.roots)
			err := n.Mail(t.Context(), "k", "bob@example.net", hello, bob)
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if p := problem(t, err); p.Text != c.want || p.Final {
				t.Errorf("it ended with %+v", p)
			}
		})
	}
}

func TestMailProblems(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		at, answer string // what the server answers to which command
		want       notify.Problem
	}{
		"an unknown mailbox is final, and not named": {"RCPT", "550 5.1.1 <bob@example.net>: no such user", notify.Problem{Text: "The mail server refused the letter with 550 5.1.1.", Final: true}},
		"a full one may be emptied":                  {"RCPT", "452 4.2.2 bob@example.net is over quota", notify.Problem{Text: "The mail server refused the letter with 452 4.2.2."}},
		"a sender that is refused may be a setting":  {"MAIL", "550 5.7.1 no", notify.Problem{Text: "The mail server refused the letter with 550 5.7.1."}},
		"a server that is busy":                      {"DATA", "451 4.3.0 later", notify.Problem{Text: "The mail server refused the letter with 451 4.3.0."}},
		"one that cuts off":                          {"RCPT", "", notify.Problem{Text: "The mail server cannot be reached, or broke off."}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := sender(t, notify.Settings{SMTPURL: "smtp://" + script(t, c.at, c.answer), SMTPTLS: "none", MailFrom: from, AllowPrivate: true})
			if p := problem(t, n.Mail(t.Context(), "k", "bob@example.net", hello, bob)); p != c.want {
				t.Errorf("it ended with %+v", p)
			}
		})
	}

	t.Run("a server that takes the letter and then hangs has it", func(t *testing.T) {
		t.Parallel()
		n := sender(t, notify.Settings{SMTPURL: "smtp://" + script(t, "QUIT", ""), SMTPTLS: "none", MailFrom: from, AllowPrivate: true})
		if err := n.Mail(t.Context(), "k", "bob@example.net", hello, bob); err != nil {
			t.Error(err)
		}
	})

	t.Run("a server that says nothing is given up", func(t *testing.T) {
		t.Parallel()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		n := sender(t, notify.Settings{SMTPURL: "smtp://" + l.Addr().String(), SMTPTLS: "none", MailFrom: from, AllowPrivate: true})
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		began := time.Now()
		if p := problem(t, n.Mail(ctx, "k", "bob@example.net", hello, bob)); p.Text != "The mail server did not answer in time." || p.Final {
			t.Errorf("it ended with %+v", p)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// script is a mail server that says yes to everything but one command. An empty answer hangs up.
func script(t *testing.T, at, answer string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		say := func(s string) { _, _ = fmt.Fprint(c, s+"\r\n") }
		say("220 here")
		lines := bufio.NewScanner(c)
		for data := false; lines.Scan(); {
			line := lines.Text()
			switch command, _, _ := strings.Cut(line, " "); {
			case data && line != ".":
			case data:
				data = false
				say("250 taken")
			case command == at && answer == "":
				return
			case command == at:
				say(answer)
			case command == "EHLO":
				say("250-here\r\n250 ENHANCEDSTATUSCODES")
			case command == "DATA":
				data = true
				say("354 go on")
			case command == "QUIT":
				say("221 bye")
				return
			default:
				say("250 yes")
			}
		}
	}()
	return l.Addr().String()
}

// certificate is one for this machine, and who vouches for it.
func certificate(t *testing.T) (cert, key string, roots *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, form, form, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, b []byte) string {
		name = filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(parsed)
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", secret), roots
}
