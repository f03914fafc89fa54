// Build a directory with the OpenFaaS Go SDK and push it:
//
//	go run . [-plain] [-secret NAME=FILE]... DIR IMAGE
package main

import (
	"encoding/json"
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

func main() {
	log.SetFlags(0)
	secrets := map[string]string{}
	plain := flag.Bool("plain", false, "wait for the end instead of showing the log as it grows")
	flag.Func("secret", "NAME=FILE: a build secret; may be repeated", func(text string) error {
		name, file, _ := strings.Cut(text, "=")
		value, err := os.ReadFile(file)
		secrets[name] = string(value)
		return err
	})
	flag.Parse()
	if flag.NArg() != 2 {
		log.Fatal("DIR and IMAGE are missing")
	}
	if err := build(flag.Arg(0), flag.Arg(1), secrets, *plain); err != nil {
		log.Fatal(err)
	}
}

func build(dir, image string, secrets map[string]string, plain bool) error {
	given := env("OPENFAAS_REMOTE_BUILDER", "http://127.0.0.1:8080")
	// Old versions of faas-cli want it with /build.
	address, err := url.Parse(strings.TrimSuffix(strings.TrimSuffix(given, "/"), "/build"))
	if err != nil {
		return err
	}
	key, err := os.ReadFile(env("OPENFAAS_PAYLOAD_SECRET", ".run/payload-secret"))
	if err != nil {
		return err
	}
	options := []builder.BuilderOption{builder.WithHmacAuth(strings.TrimSpace(string(key)))}
	if len(secrets) > 0 {
		publicKey, err := fetchPublicKey(address)
		if err != nil {
			return err
		}
		options = append(options, builder.WithBuildSecretsKey([]byte(publicKey)))
	}
	work, err := os.MkdirTemp("", "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	tar := filepath.Join(work, "req.tar")
	if err := builder.MakeTar(tar, filepath.Clean(dir), &builder.BuildConfig{Image: image}); err != nil {
		return err
	}

	client := &http.Client{Transport: patient{http.DefaultTransport}}
	b := builder.NewFunctionBuilder(address, client, options...)
	if plain {
		result, err := b.BuildWithSecrets(tar, secrets)
		if err != nil {
			return err
		}
		return show(result)
	}
	stream, err := b.BuildWithSecretsStream(tar, secrets)
	if err != nil {
		return err
	}
	last := builder.BuildResult{}
	for result, err := range stream.Results() {
		if err != nil {
			return err
		}
		if result.Status != builder.BuildInProgress {
			last = result
			continue
		}
		if err := show(result); err != nil {
			return err
		}
	}
	return show(last)
}

// show prints a result's log, and holds it to the statuses that are no failure: a stream that ends
// without success or failed was cut.
func show(result builder.BuildResult) error {
	for _, line := range result.Log {
		fmt.Println(line)
	}
	switch result.Status {
	case builder.BuildInProgress:
		return nil
	case builder.BuildSuccess:
		fmt.Println(result.Image)
		return nil
	case builder.BuildFailed:
		return fmt.Errorf("build failed: %s", result.Error)
	}
	return fmt.Errorf("the builder was lost before the build's end")
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

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
