// upstream answers questions about patterns and trees as BuildKit's own client would, for the
// vectors of tests/unit/aiobuildkit/fsutil: one question in JSON a line in, one answer a line out.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/moby/patternmatcher"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

type question struct {
	Glob     *string  `json:"glob"`     // for filepath.Match, with Paths
	Patterns []string `json:"patterns"` // with Paths, or to exclude with Tree
	Paths    []string `json:"paths"`
	Tree     []entry  `json:"tree"`
	Include  []string `json:"include"`
	Follow   []string `json:"follow"`
}

type entry struct {
	Path     string `json:"path"`
	Mode     uint32 `json:"mode"`
	Linkname string `json:"linkname"`
}

type answer struct {
	Refused  bool    `json:"refused,omitempty"`
	Matched  []bool  `json:"matched,omitempty"`
	Selected []entry `json:"selected,omitempty"`
}

func main() {
	decoder, encoder := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var q question
		if err := decoder.Decode(&q); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			log.Fatal(err)
		}
		a, err := reply(q)
		if err != nil {
			a = answer{Refused: true}
		}
		if err := encoder.Encode(a); err != nil {
			log.Fatal(err)
		}
	}
}

func reply(q question) (answer, error) {
	switch {
	case q.Glob != nil:
		return matchGlob(*q.Glob, q.Paths)
	case q.Tree != nil:
		return selectFrom(q)
	default:
		return match(q.Patterns, q.Paths)
	}
}

func matchGlob(glob string, names []string) (a answer, err error) {
	for _, name := range names {
		matched, err := filepath.Match(glob, name)
		if err != nil {
			return a, err
		}
		a.Matched = append(a.Matched, matched)
	}
	return a, nil
}

func match(patterns, paths []string) (a answer, err error) {
	matcher, err := patternmatcher.New(patterns)
	if err != nil {
		return a, err
	}
	for _, name := range paths {
		var matched bool
		var info patternmatcher.MatchInfo
		names := strings.Split(name, "/")
		for i := range names {
			matched, info, err = matcher.MatchesUsingParentResults(path.Join(names[:i+1]...), info)
			if err != nil {
				return a, err
			}
		}
		a.Matched = append(a.Matched, matched)
	}
	return a, nil
}

func selectFrom(q question) (a answer, err error) {
	filtered, err := fsutil.NewFilterFS(tree(q.Tree), &fsutil.FilterOpt{
		IncludePatterns: q.Include,
		ExcludePatterns: q.Patterns,
		FollowPaths:     q.Follow,
	})
	if err != nil {
		return a, err
	}
	filtered = fsutil.WithHardlinkReset(filtered)
	err = filtered.Walk(context.Background(), "/", func(_ string, found fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := found.Info()
		if err != nil {
			return err
		}
		stat := info.Sys().(*types.Stat)
		a.Selected = append(a.Selected, entry{stat.Path, stat.Mode, stat.Linkname})
		return nil
	})
	return a, err
}

// tree is a directory that exists in the question alone; it walks as fsutil's own does.
type tree []entry

func (t tree) Open(string) (io.ReadCloser, error) { return nil, os.ErrNotExist }

func (t tree) Walk(_ context.Context, target string, visit fs.WalkDirFunc) error {
	target = strings.TrimPrefix(path.Clean("/"+target), "/")
	skipped := "/"
	for _, e := range t {
		inside := target == "" || e.Path == target || strings.HasPrefix(e.Path, target+"/")
		if !inside || strings.HasPrefix(e.Path, skipped) {
			continue
		}
		stat := &types.Stat{Path: e.Path, Mode: e.Mode, Linkname: e.Linkname}
		switch err := visit(e.Path, &fsutil.DirEntryInfo{Stat: stat}, nil); {
		case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
			return nil
		case errors.Is(err, fs.SkipDir):
			skipped = e.Path + "/"
		case err != nil:
			return err
		}
	}
	return nil
}
