package migrations_test

import (
	"fmt"
	"io/fs"
	"regexp"
	"strings"
	"testing"

	"github.com/openvantage/vantage/migrations"
)

func TestFS(t *testing.T) {
	t.Parallel()
	names, err := fs.Glob(migrations.FS, "*")
	if err != nil {
		t.Fatal(err)
	}
	form := regexp.MustCompile(`^\d{4}(_[a-z]+){2,}\.(up|down)\.sql$`)
	for i, name := range names { // sorted: down comes before up
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if !form.MatchString(name) {
				t.Error("it is not called number, verb, noun")
			}
			if want := fmt.Sprintf("%04d_", i/2+1); !strings.HasPrefix(name, want) {
				t.Errorf("the next number is %s", want)
			}
			step, _, _ := strings.Cut(name, ".")
			for _, way := range []string{".up.sql", ".down.sql"} {
				if text, err := fs.ReadFile(migrations.FS, step+way); err != nil || strings.TrimSpace(string(text)) == "" {
					t.Errorf("%s%s is missing or empty: %v", step, way, err)
				}
			}
		})
	}
	if len(names) == 0 {
		t.Error("there are no migrations")
	}
}
