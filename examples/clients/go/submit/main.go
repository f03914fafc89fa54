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

// event is one object of a log, or of a build.
type event struct {
	BuildID string   `json:"buildId"`
	Status  string   `json:"status"`
	Log     []string `json:"log"`
	After   *int     `json:"after"`
	Image   string   `json:"image"`
	Digest  string   `json:"digest"`
	Error   string   `json:"error"`
}

type client struct {
	url    string
	secret []byte
}

func main() {
	log.SetFlags(0)
	if len(os.Args) < 2 || len(os.Args) > 3 {
		log.Fatal("give DIR and IMAGE, or the ID of a build")
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
	given := env("OPENFAAS_REMOTE_BUILDER", "http://127.0.0.1:8080")
	c := client{
		url:    strings.TrimSuffix(strings.TrimSuffix(given, "/"), "/build"),
		secret: bytes.TrimSpace(secret),
	}
	id := arguments[0]
	if len(arguments) == 2 {
		body, err := pack(arguments[0], arguments[1])
		if err != nil {
			return err
		}
		if id, err = c.submit(body); err != nil {
			return err
		}
		log.Printf("build %s is queued", id)
	}
	result, err := c.follow(id)
	if err != nil {
		return err
	}
	if result.Status != "success" {
		return fmt.Errorf("build failed: %s", result.Error)
	}
	fmt.Println(strings.TrimSuffix(result.Image+"@"+result.Digest, "@"))
	return nil
}

func pack(dir, image string) ([]byte, error) {
	work, err := os.MkdirTemp("", "build-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	tar := filepath.Join(work, "req.tar")
	config := &builder.BuildConfig{Image: image}
	if err := builder.MakeTar(tar, filepath.Clean(dir), config); err != nil {
		return nil, err
	}
	return os.ReadFile(tar)
}

// submit returns the build's id. All attempts have one key, so that a lost answer does not make a
// second build.
func (c client) submit(body []byte) (string, error) {
	key := rand.Text()
	for range attempts {
		headers := map[string]string{
			"Content-Type":    "application/octet-stream",
			"Prefer":          "respond-async",
			"Idempotency-Key": `"` + key + `"`,
		}
		if callback := os.Getenv("CALLBACK_URL"); callback != "" {
			headers["X-Callback-Url"] = callback // see ../callback
		}
		reply, err := c.ask("POST", "/build", body, headers)
		if err != nil {
			return "", err
		}
		if reply == nil {
			continue
		}
		var build event
		err = json.NewDecoder(reply.Body).Decode(&build)
		reply.Body.Close()
		if err == nil && build.BuildID != "" {
			return build.BuildID, nil
		}
	}
	return "", errAway
}

// follow prints the log, and returns its last object, which has the result.
func (c client) follow(id string) (event, error) {
	after := 0
	for attempt := 0; attempt < attempts; attempt++ {
		reply, err := c.ask("GET", fmt.Sprintf("/builds/%s/log?after=%d", id, after), nil, nil)
		if err != nil {
			return event{}, err
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
			var e event
			if err := json.Unmarshal(line, &e); err != nil {
				break
			}
			if e.Status != "in_progress" {
				reply.Body.Close()
				return e, nil
			}
			for _, text := range e.Log {
				fmt.Println(text)
			}
			if e.After != nil {
				after = *e.After
			}
			attempt = 0
		}
		reply.Body.Close()
	}
	return event{}, errAway
}

// ask sends a request with its proof. Without an answer and without an error, it is to be sent again.
func (c client) ask(method, target string, body []byte, headers map[string]string) (*http.Response, error) {
	request, err := http.NewRequest(method, c.url+target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	signed := body
	if body == nil {
		signed = []byte(method + " " + target)
	}
	signature := c.mac(signed)
	now := strconv.FormatFloat(float64(time.Now().UnixMicro())/1e6, 'f', 6, 64)
	request.Header.Set("X-Build-Signature", signature)
	request.Header.Set("X-Build-Timestamp", now+" "+c.mac([]byte(now+" "+signature)))
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

func (c client) mac(data []byte) string {
	mac := hmac.New(sha256.New, c.secret)
	mac.Write(data)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}
