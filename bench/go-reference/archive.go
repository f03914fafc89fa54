package main

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

const (
	contextName = "context"
	configName  = "com.openfaas.docker.config"
)

type buildConfig struct {
	Image     string            `json:"image"`
	BuildArgs map[string]string `json:"buildArgs"`
	Platforms []string          `json:"platforms"`
	SkipPush  bool              `json:"skipPush"`
}

type link struct{ target, path string }

type stamp struct {
	path string
	time time.Time
}

// unpack writes the context below directory, times included, for BuildKit compares these to tell
// what has changed, and returns the request's configuration.
func unpack(r io.Reader, directory string) (*buildConfig, error) {
	var config *buildConfig
	var links []link
	var stamps []stamp
	archive := tar.NewReader(r)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if header.Name == configName {
			config = &buildConfig{}
			if err := json.NewDecoder(archive).Decode(config); err != nil {
				return nil, fmt.Errorf("%s: %w", configName, err)
			}
			continue
		}
		if !filepath.IsLocal(header.Name) {
			return nil, fmt.Errorf("unsafe name %q", header.Name)
		}
		path := filepath.Join(directory, header.Name)
		mode := header.FileInfo().Mode().Perm()
		switch header.Typeflag {
		case tar.TypeDir:
			if err := os.MkdirAll(path, mode); err != nil {
				return nil, err
			}
			stamps = append(stamps, stamp{path, header.ModTime})
		case tar.TypeReg:
			if err := writeFile(path, archive, mode, header.ModTime); err != nil {
				return nil, err
			}
		case tar.TypeSymlink:
			links = append(links, link{header.Linkname, path})
		default:
			return nil, fmt.Errorf("%s: entries of type %q are not taken", header.Name, header.Typeflag)
		}
	}
	if config == nil {
		return nil, errors.New("no " + configName)
	}
	return config, finish(links, stamps)
}

func writeFile(path string, content io.Reader, mode os.FileMode, modified time.Time) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		file, err = os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Chtimes(path, modified, modified)
}

// finish makes the links last, so that nothing is written through one, and then sets the times of
// directories, which writing into them would change.
func finish(links []link, stamps []stamp) error {
	for _, l := range links {
		if err := os.Symlink(l.target, l.path); err != nil {
			return err
		}
	}
	for _, s := range stamps {
		if err := os.Chtimes(s.path, s.time, s.time); err != nil {
			return err
		}
	}
	return nil
}
