// Submit a build that outlives this program, and follow it:
//
//	go run . DIR IMAGE
//
// Follow a build that was submitted before:
//
//	go run . ID
package main

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openfaas/go-sdk/builder"
)

const attempts = 60

var errAway = errors.New("the builder stayed away")

// Event is one object of a log, or of a build.
type Event struct {
	BuildID string   `json:"buildId"`
	Status  string   `json:"status"`
	Log     []string `json:"log"`
	After   *int     `json:"after"`
	Image   string   `json:"image"`
	Digest  string   `json:"digest"`
	Error   string   `json:"error"`
}

// Builds has the builder's URL, and the payload secret.
type Builds struct {
	URL    string
	Secret []byte
}

// Submit queues a build, and returns its id. All attempts have one key, so that a lost answer does
// not make a second build. With a callback, the builder sends the end of the build there: ../callback.
func (b Builds) Submit(dir, image, callback string) (string, error) {
	work, err := os.MkdirTemp("", "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	tar := filepath.Join(work, "req.tar")
	if err := builder.MakeTar(tar, filepath.Clean(dir), &builder.BuildConfig{Image: image}); err != nil {
		return "", err
	}
	signature, err := b.sign(tar)
	if err != nil {
		return "", err
	}
	headers := map[string]string{
		"Content-Type":    "application/octet-stream",
		"Prefer":          "respond-async",
		"Idempotency-Key": `"` + rand.Text() + `"`,
	}
	if callback != "" {
		headers["X-Callback-Url"] = callback
	}
	for range attempts {
		reply, err := b.ask("POST", "/build", signature, tar, headers)
		if err != nil {
			return "", err
		}
		if reply == nil {
			continue
		}
		var build Event
		err = json.NewDecoder(reply.Body).Decode(&build)
		reply.Body.Close()
		if err == nil && build.BuildID != "" {
			return build.BuildID, nil
		}
	}
	return "", errAway
}

// Follow gives each line of the log to onLog, and returns its last object, which has the result.
func (b Builds) Follow(id string, onLog func(string)) (Event, error) {
	after := 0
	for attempt := 0; attempt < attempts; attempt++ {
		target := fmt.Sprintf("/builds/%s/log?after=%d", id, after)
		reply, err := b.ask("GET", target, b.mac([]byte("GET "+target)), "", nil)
		if err != nil {
			return Event{}, err
		}
		if reply == nil {
			continue
		}
		lines := bufio.NewReader(reply.Body)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				break // the connection was lost, and the build goes on
			}
			var e Event
			if err := json.Unmarshal(line, &e); err != nil {
				break
			}
			if e.Status != "in_progress" {
				reply.Body.Close()
				return e, nil
			}
			for _, text := range e.Log {
				onLog(text)
			}
			if e.After != nil {
				after = *e.After
			}
			attempt = 0
		}
		reply.Body.Close()
	}
	return Event{}, errAway
}

// ask sends a request with its proof, and a file as its body unless the name is empty. Without an
// answer and without an error, it is to be sent again.
func (b Builds) ask(method, target, signature, file string, headers map[string]string) (*http.Response, error) {
	request, err := http.NewRequest(method, b.URL+target, nil)
	if err != nil {
		return nil, err
	}
	if file != "" {
		body, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		about, err := body.Stat()
		if err != nil {
			return nil, err
		}
		// The transport closes it.
		request.Body, request.ContentLength = body, about.Size()
	}
	now := strconv.FormatFloat(float64(time.Now().UnixMicro())/1e6, 'f', 6, 64)
	request.Header.Set("X-Build-Signature", signature)
	request.Header.Set("X-Build-Timestamp", now+" "+b.mac([]byte(now+" "+signature)))
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	pause := time.Second
	reply, err := http.DefaultClient.Do(request)
	if err == nil {
		if reply.StatusCode < 300 {
			return reply, nil
		}
		text, _ := io.ReadAll(reply.Body)
		reply.Body.Close()
		if !slices.Contains([]int{429, 502, 503, 504}, reply.StatusCode) {
			return nil, fmt.Errorf("refused: %d: %s", reply.StatusCode, text)
		}
		if seconds, err := strconv.Atoi(reply.Header.Get("Retry-After")); err == nil {
			pause = time.Duration(seconds) * time.Second
		}
	}
	log.Printf("the builder is away or busy: trying again in %s", pause)
	time.Sleep(pause)
	return nil, nil
}

func (b Builds) mac(data []byte) string {
	mac := hmac.New(sha256.New, b.Secret)
	mac.Write(data)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

func (b Builds) sign(file string) (string, error) {
	content, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer content.Close()
	mac := hmac.New(sha256.New, b.Secret)
	if _, err := io.Copy(mac, content); err != nil {
		return "", err
	}
	return "sha256=" + hex.EncodeToString(mac.Sum(nil)), nil
}

func main() {
	log.SetFlags(0)
	if len(os.Args) < 2 || len(os.Args) > 3 {
		log.Fatal("usage: go run . DIR IMAGE, or go run . ID")
	}
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(arguments []string) error {
	secret, err := os.ReadFile(env("OPENFAAS_PAYLOAD_SECRET", ".run/payload-secret"))
	if err != nil {
		return err
	}
	// Old versions of faas-cli want the URL with /build.
	given := env("OPENFAAS_REMOTE_BUILDER", "http://127.0.0.1:8080")
	builds := Builds{
		URL:    strings.TrimSuffix(strings.TrimSuffix(given, "/"), "/build"),
		Secret: bytes.TrimSpace(secret),
	}
	id := arguments[0]
	if len(arguments) == 2 {
		if id, err = builds.Submit(arguments[0], arguments[1], os.Getenv("CALLBACK_URL")); err != nil {
			return err
		}
		log.Printf("build %s is queued", id)
	}
	result, err := builds.Follow(id, func(line string) { fmt.Println(line) })
	if err != nil {
		return err
	}
	if result.Status != "success" {
		return fmt.Errorf("build failed: %s", result.Error)
	}
	fmt.Println(strings.TrimSuffix(result.Image+"@"+result.Digest, "@"))
	return nil
}

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
