// Build a directory with the OpenFaaS Go SDK and push it:
//
//	go run . [-plain] [-secret NAME=FILE]... DIR IMAGE
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/openfaas/go-sdk/builder"
)

// Builds says where to build, and how.
type Builds struct {
	URL           *url.URL
	PayloadSecret string
	// Secrets are for RUN --mount=type=secret, by their names.
	Secrets map[string]string
	// Plain waits for the end instead of streaming the log.
	Plain bool
}

// Build builds a directory with a Dockerfile, and pushes the image. It gives each line of the log to
// onLog. Its error says in one line why there is no image.
func (b Builds) Build(dir, image string, onLog func(string)) (builder.BuildResult, error) {
	last := builder.BuildResult{}
	options := []builder.BuilderOption{builder.WithHmacAuth(b.PayloadSecret)}
	if len(b.Secrets) > 0 {
		publicKey, err := fetchPublicKey(b.URL)
		if err != nil {
			return last, err
		}
		options = append(options, builder.WithBuildSecretsKey([]byte(publicKey)))
	}
	work, err := os.MkdirTemp("", "build-")
	if err != nil {
		return last, err
	}
	defer os.RemoveAll(work)
	tar := filepath.Join(work, "req.tar")
	if err := builder.MakeTar(tar, filepath.Clean(dir), &builder.BuildConfig{Image: image}); err != nil {
		return last, err
	}

	client := &http.Client{Transport: patient{http.DefaultTransport}}
	functions := builder.NewFunctionBuilder(b.URL, client, options...)
	if b.Plain {
		if last, err = functions.BuildWithSecrets(tar, b.Secrets); err != nil {
			return last, err
		}
		return last, ended(last, onLog)
	}
	stream, err := functions.BuildWithSecretsStream(tar, b.Secrets)
	if err != nil {
		return last, err
	}
	for result, err := range stream.Results() {
		if err != nil {
			return last, err
		}
		last = result
		if result.Status == builder.BuildInProgress {
			for _, line := range result.Log {
				onLog(line)
			}
		}
	}
	return last, ended(last, onLog)
}

// ended is nil only for a success: a stream that ends without success or failed was cut.
func ended(result builder.BuildResult, onLog func(string)) error {
	switch result.Status {
	case builder.BuildSuccess, builder.BuildFailed:
		for _, line := range result.Log {
			onLog(line)
		}
		if result.Status == builder.BuildFailed {
			return fmt.Errorf("build failed: %s", result.Error)
		}
		return nil
	}
	return errors.New("the builder was lost before the build's end")
}

func fetchPublicKey(address *url.URL) (string, error) {
	reply, err := http.Get(address.JoinPath("/publickey").String())
	if err != nil {
		return "", err
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the builder has no key for build secrets: %s", reply.Status)
	}
	var key struct {
		PublicKey string `json:"public_key"`
	}
	return key.PublicKey, json.NewDecoder(reply.Body).Decode(&key)
}

// patient sends a request again while the builder is busy, as often as it says with Retry-After.
type patient struct{ http.RoundTripper }

func (p patient) RoundTrip(request *http.Request) (*http.Response, error) {
	for try := 1; ; try++ {
		reply, err := p.RoundTripper.RoundTrip(request)
		if err != nil || reply.StatusCode != http.StatusTooManyRequests || try == 60 {
			return reply, err
		}
		reply.Body.Close()
		seconds, err := strconv.Atoi(reply.Header.Get("Retry-After"))
		if err != nil {
			seconds = 5
		}
		log.Printf("the builder is busy: trying again in %d s", seconds)
		time.Sleep(time.Duration(seconds) * time.Second)
		if request.Body, err = request.GetBody(); err != nil {
			return nil, err
		}
	}
}

func main() {
	log.SetFlags(0)
	builds := Builds{Secrets: map[string]string{}}
	flag.BoolVar(&builds.Plain, "plain", false, "wait for the end instead of showing the log as it grows")
	flag.Func("secret", "NAME=FILE: a build secret; may be repeated", func(text string) error {
		name, file, _ := strings.Cut(text, "=")
		value, err := os.ReadFile(file)
		builds.Secrets[name] = string(value)
		return err
	})
	flag.Parse()
	if flag.NArg() != 2 {
		log.Fatal("usage: go run . [-plain] [-secret NAME=FILE]... DIR IMAGE")
	}
	key, err := os.ReadFile(env("OPENFAAS_PAYLOAD_SECRET", ".run/payload-secret"))
	if err != nil {
		log.Fatal(err)
	}
	builds.PayloadSecret = strings.TrimSpace(string(key))
	// Old versions of faas-cli want the URL with /build.
	given := env("OPENFAAS_REMOTE_BUILDER", "http://127.0.0.1:8080")
	if builds.URL, err = url.Parse(strings.TrimSuffix(strings.TrimSuffix(given, "/"), "/build")); err != nil {
		log.Fatal(err)
	}
	result, err := builds.Build(flag.Arg(0), flag.Arg(1), func(line string) { fmt.Println(line) })
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.Image)
}

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
