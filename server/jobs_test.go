package server_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/openvantage/vantage/access"
	"github.com/openvantage/vantage/server"
)

func TestJobsPage(t *testing.T) {
	t.Parallel()
	a := start(t)
	admin, operator := a.issue(t, access.Admin), a.issue(t, access.Operator)
	at := a.URL() + "/admin/jobs"
	browser := http.Header{"Accept": {"text/html"}}
	form := func(token string) []byte { return []byte(url.Values{"token": {token}}.Encode()) }
	with := func(h http.Header, more ...string) http.Header {
		h = h.Clone()
		for i := 0; i < len(more); i += 2 {
			h.Set(more[i], more[i+1])
		}
		return h
	}
	post := with(browser, "Content-Type", "application/x-www-form-urlencoded")

	res, _ := a.send(t, http.MethodPost, at+"/sign-in", post, form(admin))
	if res.StatusCode != http.StatusSeeOther || res.Header.Get("Location") != "/admin/jobs/" || len(res.Cookies()) != 1 {
		t.Fatalf("an ADMIN is answered %s with %v", res.Status, res.Header)
	}
	c := res.Cookies()[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/admin/jobs" || c.MaxAge <= 0 {
		t.Errorf("the cookie is %+v", c)
	}
	signed := http.Header{"Cookie": {c.Name + "=" + c.Value}}
	eventually(t, "the queues are known", func() bool {
		_, body := a.send(t, http.MethodGet, at+"/api/queues?limit=9", signed, nil)
		return strings.Contains(body, "pager") && strings.Contains(body, "mail")
	})

	for name, x := range map[string]struct {
		method, path string
		header       http.Header
		body         []byte
		status       int
		location     string
		contains     string
	}{
		"a browser is asked to sign in":                     {"GET", "/", browser, nil, 303, "/admin/jobs/sign-in", ""},
		"a program is refused":                              {"GET", "/api/queues?limit=5", nil, nil, 401, "", "UNAUTHENTICATED"},
		"an operator is refused":                            {"GET", "/api/queues?limit=5", bearer(operator), nil, 403, "", "FORBIDDEN"},
		"an operator cannot sign in":                        {"POST", "/sign-in", post, form(operator), 403, "", "role=\"alert\""},
		"neither can whoever guesses":                       {"POST", "/sign-in", post, form("vadm_guess"), 401, "", "role=\"alert\""},
		"nor from another site":                             {"POST", "/sign-in", with(post, "Sec-Fetch-Site", "cross-site"), form(admin), 403, "", "another site"},
		"the form is shown to anybody":                      {"GET", "/sign-in", browser, nil, 200, "", "Token of an ADMIN"},
		"who is signed in is told so":                       {"GET", "/sign-in", with(signed, "Accept", "text/html"), nil, 200, "", "a admin"},
		"the cookie shows the page":                         {"GET", "/", with(signed, "Accept", "text/html"), nil, 200, "", "/admin/jobs/assets/"},
		"and what is behind it":                             {"GET", "/api/queues?limit=9", signed, nil, 200, "", "pager"},
		"a bearer token does, too":                          {"GET", "/api/queues?limit=9", bearer(admin), nil, 200, "", "mail"},
		"another site changes nothing with the cookie":      {"PUT", "/api/queues/mail/pause", with(signed, "Sec-Fetch-Site", "cross-site"), nil, 403, "", "another site"},
		"nor does one that is known by its origin alone":    {"PUT", "/api/queues/mail/pause", with(signed, "Origin", "https://evil.example"), nil, 403, "", "another site"},
		"a body that is too long is refused":                {"POST", "/api/jobs/cancel", signed, []byte(strings.Repeat("x", 1<<20)), 400, "", "INVALID"},
		"a cookie of nobody is none":                        {"GET", "/", with(http.Header{"Cookie": {c.Name + "=x"}}, "Accept", "text/html"), nil, 303, "/admin/jobs/sign-in", ""},
		"the path alone leads there":                        {"GET", "", browser, nil, 303, "/admin/jobs/", ""},
		"signing out needs a click":                         {"GET", "/sign-out", signed, nil, 303, "/admin/jobs/sign-in", ""},
		"River's own page cannot be framed or reach others": {"GET", "/", with(signed, "Accept", "text/html"), nil, 200, "", "<div id=\"root\""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			res, body := a.send(t, x.method, at+x.path, x.header, x.body)
			if res.StatusCode != x.status || res.Header.Get("Location") != x.location || !strings.Contains(body, x.contains) {
				t.Errorf("answered %s, %v: %.300s", res.Status, res.Header, body)
			}
			if p := res.Header.Get("Content-Security-Policy"); x.path != "" && (!strings.Contains(p, "default-src 'none'") || !strings.Contains(p, "frame-ancestors 'none'")) {
				t.Errorf("the policy is %q", p)
			}
			if x.status != 303 && len(res.Cookies()) > 0 {
				t.Errorf("it set %v", res.Cookies())
			}
		})
	}

	t.Run("the cookie opens nothing else", func(t *testing.T) {
		t.Parallel()
		got := a.raw(t, with(signed, "Content-Type", "application/json"), []byte(`{"query":"{ viewer { role } }"}`))
		if !strings.Contains(got.Raw, `"PUBLIC"`) {
			t.Errorf("answered %s", got.Raw)
		}
	})

	t.Run("what an ADMIN changes is written down", func(t *testing.T) {
		t.Parallel()
		if res, body := a.send(t, http.MethodPost, at+"/api/jobs/cancel", signed, []byte(`{"ids":["123456"]}`)); res.StatusCode >= 500 {
			t.Errorf("answered %s: %s", res.Status, body)
		}
		var n int
		if err := a.sql.QueryRow(t.Context(), `select count(*) from audit where actor = 'a admin' and action = 'queue.change'
			and after::text like '%123456%POST /api/jobs/cancel%'`).Scan(&n); err != nil || n != 1 {
			t.Errorf("%d entries: %v", n, err)
		}
	})

	t.Run("signing out takes the cookie away", func(t *testing.T) {
		t.Parallel()
		res, _ := a.send(t, http.MethodPost, at+"/sign-out", signed, nil)
		if cs := res.Cookies(); len(cs) != 1 || cs[0].Value != "" || cs[0].MaxAge >= 0 || cs[0].Path != "/admin/jobs" {
			t.Errorf("it set %v", cs)
		}
	})
}

func TestSecretsStaySecret(t *testing.T) {
	t.Parallel()
	a := start(t, func(c *server.Config) {
		c.PagerDutyRoutingKey, c.SlackWebhookURL = "R0secret", "https://hooks.example.org/T0/secret"
		c.SMTPURL, c.MailFrom = "smtp://user:secret@mail.example.org", "probes@example.org"
	})
	res, _ := a.send(t, http.MethodGet, a.URL()+"/readyz", nil, nil)
	if res.StatusCode != http.StatusOK {
		t.Errorf("answered %s", res.Status)
	}
	if err := a.stop(); err != nil {
		t.Error(err)
	}
	if strings.Contains(a.logs.String(), "secret") {
		t.Errorf("the log is %s", a.logs)
	}
}
