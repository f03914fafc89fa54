// Command go-reference is what the benchmarks measure the builder against: the Function Builder API
// as one would write it in Go on BuildKit's own client. It reads a request into memory, checks its
// signature, unpacks it into a temporary directory and solves that.
package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"log"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/moby/buildkit/client"
)

const maxBody = 1 << 30

type server struct {
	buildkit *client.Client
	secret   []byte
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "address of POST /build")
	address := flag.String("buildkit", "unix:///run/buildkit/buildkitd.sock", "address of BuildKit")
	secretFile := flag.String("secret", "/var/openfaas/secrets/payload-secret", "file of the payload secret")
	flag.Parse()

	secret, err := os.ReadFile(*secretFile)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	buildkit, err := client.New(ctx, *address)
	if err != nil {
		log.Fatal(err)
	}
	defer buildkit.Close()

	s := &server{buildkit: buildkit, secret: bytes.TrimSpace(secret)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /build", s.build)
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	web := &http.Server{Addr: *listen, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = web.Shutdown(grace)
	}()
	if err := web.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

func (s *server) build(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	body, err := readBody(w, r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if !s.signed(body, r.Header.Get("X-Build-Signature")) {
		http.Error(w, "wrong signature", http.StatusUnauthorized)
		return
	}
	directory, err := os.MkdirTemp("", "build-")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer os.RemoveAll(directory)
	config, err := unpack(bytes.NewReader(body), directory)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}

	reply := newReply(w, strings.Contains(r.Header.Get("Accept"), "application/x-ndjson"), start)
	digest, err := solve(r.Context(), s.buildkit, filepath.Join(directory, contextName), config, reply.progress)
	reply.end(config.Image, digest, err)
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	var body bytes.Buffer
	if r.ContentLength > 0 && r.ContentLength <= maxBody {
		// ReadFrom wants room for its last, empty read, or it doubles the buffer.
		body.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, maxBody))
	return body.Bytes(), err
}

func (s *server) signed(body []byte, header string) bool {
	given, found := strings.CutPrefix(header, "sha256=")
	mac, err := hex.DecodeString(given)
	if !found || err != nil {
		return false
	}
	hash := hmac.New(sha256.New, s.secret)
	hash.Write(body)
	return hmac.Equal(mac, hash.Sum(nil))
}
