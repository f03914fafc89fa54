// Receive callbacks of builds:
//
//	go run . [HOST:PORT]
package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const maxBodyBytes = 20_000

// Event is a callback's body.
type Event struct {
	Type      string `json:"type"`
	Timestamp string `json:"timestamp"`
	Data      struct {
		BuildID string `json:"buildId"`
		Status  string `json:"status"`
		Image   string `json:"image"`
		Digest  string `json:"digest"`
		Error   string `json:"error"`
	} `json:"data"`
}

// Verify reads the event in a callback's body; its error says in one line what is wrong. Give it
// the body's bytes as they were received: parsed and written again, they may differ.
func Verify(body []byte, headers http.Header, webhookSecret string, payloadSecret []byte) (Event, error) {
	var event Event
	webhook, err := standardwebhooks.NewWebhook(webhookSecret)
	if err != nil {
		return event, fmt.Errorf("the webhook secret is not whsec_ and base64: %w", err)
	}
	if err := webhook.Verify(body, headers); err != nil {
		return event, fmt.Errorf("%w: %s", err, hint(err))
	}
	// The same body under the payload secret, as a request to build is signed.
	mac := hmac.New(sha256.New, payloadSecret)
	mac.Write(body)
	wanted := "sha256=" + hex.EncodeToString(mac.Sum(nil))
	if !hmac.Equal([]byte(headers.Get("X-Build-Signature")), []byte(wanted)) {
		return event, errors.New("X-Build-Signature does not match: compare the payload secrets")
	}
	return event, json.Unmarshal(body, &event)
}

func hint(err error) string {
	switch {
	case errors.Is(err, standardwebhooks.ErrRequiredHeaders):
		return "this is not a callback, or a proxy removed webhook-* headers"
	case errors.Is(err, standardwebhooks.ErrMessageTooOld):
		return "compare the clocks; an old callback may have been sent again"
	case errors.Is(err, standardwebhooks.ErrMessageTooNew):
		return "compare the clocks"
	case errors.Is(err, standardwebhooks.ErrNoMatchingSignature):
		return "compare the webhook secrets; verify the bytes as received"
	}
	return "is this a callback?"
}

type receiver struct {
	webhookSecret string
	payloadSecret []byte

	lock sync.Mutex
	seen map[string]bool // keep it in a database: a callback may come twice, with one id
}

func (r *receiver) ServeHTTP(response http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(response, request.Body, maxBodyBytes))
	if err != nil {
		http.Error(response, "too large for a callback", http.StatusRequestEntityTooLarge)
		return
	}
	event, err := Verify(body, request.Header, r.webhookSecret, r.payloadSecret)
	if err != nil {
		log.Printf("refused: %v", err)
		http.Error(response, err.Error(), http.StatusUnauthorized)
		return
	}
	id := request.Header.Get("webhook-id")
	r.lock.Lock()
	first := !r.seen[id]
	r.seen[id] = true
	r.lock.Unlock()
	if first {
		fmt.Println(event.Type, event.Data.BuildID, event.Data.Status)
	}
	response.WriteHeader(http.StatusNoContent)
}

func main() {
	log.SetFlags(0)
	address := "127.0.0.1:9000"
	if len(os.Args) > 1 {
		address = os.Args[1]
	}
	receiver := &receiver{
		webhookSecret: string(secret("WEBHOOK_SECRET_FILE", ".run/webhook-secret")),
		payloadSecret: secret("OPENFAAS_PAYLOAD_SECRET", ".run/payload-secret"),
		seen:          map[string]bool{},
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("receiving on http://%s/\n", listener.Addr())
	log.Fatal(http.Serve(listener, receiver))
}

func secret(variable, otherwise string) []byte {
	if file := os.Getenv(variable); file != "" {
		otherwise = file
	}
	text, err := os.ReadFile(otherwise)
	if err != nil {
		log.Fatalf("set %s to the file with the secret: %v", variable, err)
	}
	return bytes.TrimSpace(text)
}
