package simulation

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/openvantage/vantage/probe"
)

// A credential is what a probe must remember to be the same one in the next run. The Key is kept from before
// the registration on, so that one whose answer was lost is asked for again.
type credential struct {
	Key    string   `json:"key"`
	ID     probe.ID `json:"id,omitempty"`
	Secret string   `json:"secret,omitempty"`
}

// A state is the credentials of a run's probes by index, kept in a file if it has a path. The file holds those of
// every server and seed that it was used with, each under its run's name.
type state struct {
	mu      sync.Mutex
	path    string
	run     string
	savedAt time.Time
	content struct {
		Runs map[string][]credential `json:"runs"`
	}
}

// saveEvery bounds how often the whole file is written while many probes register.
const saveEvery = time.Second

// openState reads the state of an earlier run, or begins one. It fails when the file is something else.
func openState(path, baseURL string, seed uint64, probes int) (*state, error) {
	s := &state{path: path, run: fmt.Sprintf("%s seed %d", baseURL, seed)}
	if path != "" {
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err == nil {
			if err := json.Unmarshal(b, &s.content); err != nil || s.content.Runs == nil {
				return nil, fmt.Errorf("%s is not the state of a simulation: remove it, or name another file", path)
			}
		}
	}
	known := s.content.Runs[s.run]
	for len(known) < probes {
		known = append(known, credential{Key: rand.Text()})
	}
	if s.content.Runs == nil {
		s.content.Runs = map[string][]credential{}
	}
	s.content.Runs[s.run] = known
	return s, s.save()
}

func (s *state) credential(index int) credential {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.content.Runs[s.run][index]
}

// keep remembers a credential, in the file within saveEvery of a later call or with the last save.
func (s *state) keep(index int, c credential) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.content.Runs[s.run][index] = c
	if time.Since(s.savedAt) < saveEvery {
		return nil
	}
	return s.saveLocked()
}

func (s *state) save() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saveLocked()
}

// saveLocked replaces the file at once, so that a kill leaves the old one or the new one.
func (s *state) saveLocked() error {
	if s.path == "" {
		return nil
	}
	s.savedAt = time.Now()
	b, err := json.MarshalIndent(s.content, "", " ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(s.path), filepath.Base(s.path)+".*") // readable for us alone
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), s.path)
}
