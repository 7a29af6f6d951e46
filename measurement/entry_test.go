package measurement_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/openvantage/vantage/fault"
	"github.com/openvantage/vantage/measurement"
)

func TestReportEntry(t *testing.T) {
	t.Parallel()
	report, err := measurement.ParseReportID(reportID)
	if err != nil {
		t.Fatal(err)
	}
	const good = `{"report_id": "` + reportID + `", "probe_cc": "IT", "probe_asn": "AS30722", "test_name": "web_connectivity"}`
	for name, post := range map[string]string{
		"in an envelope": `{"format": "json", "content": ` + good + `}`, "alone": " " + good + "\n",
		"with the envelope in another order": `{"content":` + good + `,"x":1,"format":"JSON"}`,
	} {
		e, err := measurement.ParseReportEntry([]byte(post), measurement.Limits{})
		if err != nil {
			t.Fatal(name, err)
		}
		if string(e.Content) != good || !e.HasReportID() || !e.Placed() {
			t.Errorf("%s: %s", name, e.Content)
		}
		if err := report.Check(e); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := e.CheckMetadata(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]struct{ from, to, field string }{
		"another country":        {`"IT"`, `"FR"`, "content.probe_cc"},
		"no country":             {`"probe_cc": "IT", `, ``, "content.probe_cc"},
		"another network":        {`AS30722`, `AS1`, "content.probe_asn"},
		"a network as a number":  {`"AS30722"`, `30722`, "content.probe_asn"},
		"another test":           {`"web_connectivity"`, `"telegram"`, "content.test_name"},
		"the id of another":      {`n1_abc`, `n1_xyz`, "content.report_id"},
		"a country in lowercase": {`"IT"`, `"it"`, "content.probe_cc"},
		"a network without AS":   {`"AS30722"`, `"30722"`, "content.probe_asn"},
		"a network with zeros":   {`"AS30722"`, `"AS030722"`, "content.probe_asn"},
		"a test in upper case":   {`"web_connectivity"`, `"Web_Connectivity"`, "content.test_name"},
	} {
		e, err := measurement.ParseReportEntry([]byte(strings.Replace(good, c.from, c.to, 1)), measurement.Limits{})
		if err != nil {
			t.Fatal(name, err)
		}
		if err = report.Check(e); err == nil {
			err = e.CheckMetadata()
		}
		if !fault.Is(err, fault.Invalid) || fault.Of(err).Field != c.field {
			t.Errorf("%s: %v, want INVALID of %s", name, err, c.field)
		}
	}
	for _, nowhere := range []string{
		strings.Replace(good, `"IT"`, `"ZZ"`, 1), strings.Replace(good, `"IT"`, `"zz"`, 1), strings.Replace(good, `AS30722`, `AS0`, 1),
	} {
		if e, err := measurement.ParseReportEntry([]byte(nowhere), measurement.Limits{}); err != nil || e.Placed() {
			t.Errorf("%s is somewhere: %v", nowhere, err)
		}
	}
	for name, c := range map[string]struct{ post, field string }{
		"a list": {`[]`, "body"}, "nothing": {``, "body"}, "cut short": {`{"format": "json", "content": {`, "content"},
		"YAML": {`{"format": "yaml", "content": "a: 1"}`, "format"}, "a text": {`{"format": "json", "content": "{}"}`, "content"},
		"an envelope in an envelope": {`{"format": "json", "content": {"format": "json", "content": ` + good + `}}`, "content"},
	} {
		if _, err := measurement.ParseReportEntry([]byte(c.post), measurement.Limits{}); !fault.Is(err, fault.Invalid) || fault.Of(err).Field != c.field {
			t.Errorf("%s: %v, want INVALID of %s", name, err, c.field)
		}
	}
}

func TestWithReportID(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, from, want string }{
		{"an empty one", `{"a": 1.50, "report_id": "", "b": "\u00e9"}`, `{"a": 1.50, "report_id": "ID", "b": "\u00e9"}`},
		{"null", `{"report_id":null}`, `{"report_id":"ID"}`},
		{"an object", `{"report_id":{"report_id":"x"},"z":0}`, `{"report_id":"ID","z":0}`},
		{"two of them", `{"report_id":"a","report_id" : "b"}`, `{"report_id":"ID","report_id" : "ID"}`},
		{"an escaped key", `{"report\u005fid":"a"}`, `{"report\u005fid":"ID"}`},
		{"one that is inside", `{"x":{"report_id":"a"}}`, `{"report_id":"ID","x":{"report_id":"a"}}`},
		{"none", `{ "x" : 1 }`, `{"report_id":"ID", "x" : 1 }`},
		{"nothing", `{ }`, `{"report_id":"ID" }`},
	} {
		e, err := measurement.ParseReportEntry([]byte(c.from), measurement.Limits{})
		if err != nil {
			t.Fatal(c.name, err)
		}
		if got := string(e.WithReportID("ID")); got != c.want || !json.Valid([]byte(got)) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// submitted is a post of a measurement as a text.
func submitted(t *testing.T, content, more string) []byte {
	t.Helper()
	text, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(`{"format":"json","content":` + string(text) + more + `}`)
}

func TestSubmission(t *testing.T) {
	t.Parallel()
	const good = `{"report_id":"","probe_cc":"IT","probe_asn":"AS30722","test_name":"web_connectivity","measurement_start_time":"2026-11-21 10:00:05",` +
		`"test_start_time":"2026-11-21 10:00:00","x":"<\u00e9\\ud83d\\ude00>"}`
	e, err := measurement.ParseSubmission(submitted(t, good, `,"nym":null,"zkp_request":null,"manifest_version":null,"protocol_version":null`), measurement.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if string(e.Content) != good || e.Credentials {
		t.Errorf("%s", e.Content)
	}
	id := e.NewReportID("7")
	if r, err := measurement.ParseReportID(id); err != nil || r.Check(e) != nil || e.HasReportID() || !strings.HasPrefix(id, "20261121T100000Z_webconnectivity_IT_30722_n7_") {
		t.Errorf("%s, %v", id, err)
	}
	again, err := measurement.ParseSubmission(submitted(t, good, `,"nym":"n"`), measurement.Limits{})
	if err != nil || !again.Credentials || again.NewReportID("7") != id {
		t.Errorf("the same again is %+v, %v", again, err)
	}
	other, err := measurement.ParseSubmission(submitted(t, strings.Replace(good, "<", ">", 1), ""), measurement.Limits{})
	if err != nil || other.NewReportID("7") == id {
		t.Errorf("two have one id: %v", err)
	}
	for name, c := range map[string]struct{ post, field string }{
		"no JSON": {`hello`, "body"}, "an object as content": {`{"format":"json","content":{}}`, "content"}, "no format": {`{"content":"{}"}`, "format"},
		"a text that is no JSON": {`{"format":"json","content":"hello"}`, "content"}, "a list in the text": {`{"format":"json","content":"[]"}`, "content"},
		"an envelope in the text": {`{"format":"json","content":"{\"format\":\"json\",\"content\":{}}"}`, "content"},
		"half a surrogate pair":   {`{"format":"json","content":"{\"a\":\"\ud800\"}"}`, "content.a"},
	} {
		if _, err := measurement.ParseSubmission([]byte(c.post), measurement.Limits{}); !fault.Is(err, fault.Invalid) || fault.Of(err).Field != c.field {
			t.Errorf("%s: %v, want INVALID of %s", name, err, c.field)
		}
	}
}

// FuzzEntry reads anything as either kind of post; what it writes an id into stays the same JSON otherwise.
func FuzzEntry(f *testing.F) {
	f.Add([]byte(`{"format":"json","content":{"report_id":"` + reportID + `","probe_cc":"IT","probe_asn":"AS30722","test_name":"web_connectivity"}}`))
	f.Add([]byte(`{"format":"json","content":"{\"report_id\":null,\"test_name\":\"ndt\"}","nym":"x"}`))
	f.Add([]byte(`{"report\u005fid":"a","report_id":[1]}`))
	f.Add([]byte(`{"format":"json","content":{"format":"json","content":{"a":1}}}`))
	f.Fuzz(func(t *testing.T, post []byte) {
		for _, parse := range []func([]byte, measurement.Limits) (*measurement.Entry, error){measurement.ParseReportEntry, measurement.ParseSubmission} {
			e, err := parse(post, measurement.Limits{})
			if err != nil {
				if !fault.Is(err, fault.Invalid) || fault.Of(err).Field == "" {
					t.Fatalf("error %v, want INVALID with a field", err)
				}
				continue
			}
			id := e.NewReportID("1")
			if e.Placed() && e.CheckMetadata() == nil {
				if _, err := measurement.ParseReportID(id); err != nil {
					t.Fatalf("%q got the report id %q: %v", e.Content, id, err)
				}
			}
			body := e.WithReportID(id)
			var before, after map[string]json.RawMessage
			if json.Unmarshal(e.Content, &before) != nil || json.Unmarshal(body, &after) != nil {
				t.Fatalf("%q became %q", e.Content, body)
			}
			if string(after["report_id"]) != `"`+id+`"` {
				t.Fatalf("%q became %q", e.Content, body)
			}
			delete(before, "report_id")
			delete(after, "report_id")
			if len(before) != len(after) {
				t.Fatalf("%q became %q", e.Content, body)
			}
			for k, v := range before {
				if string(after[k]) != string(v) {
					t.Fatalf("%q became %q", e.Content, body)
				}
			}
			if again, err := measurement.ParseReportEntry(body, measurement.Limits{}); err != nil || string(again.WithReportID(id)) != string(body) {
				t.Fatalf("%q does not stay: %v", body, err)
			}
		}
	})
}
