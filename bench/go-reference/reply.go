package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/moby/buildkit/client"
)

type message struct {
	Log      []string `json:"log,omitempty"`
	Image    string   `json:"image,omitempty"`
	Digest   string   `json:"digest,omitempty"`
	Status   string   `json:"status"`
	Error    string   `json:"error,omitempty"`
	Duration float64  `json:"duration"`
}

// A reply is one JSON object at the end, or, streamed, one a line as things happen.
type reply struct {
	w        http.ResponseWriter
	streamed bool
	start    time.Time
	log      []string
}

func newReply(w http.ResponseWriter, streamed bool, start time.Time) *reply {
	if streamed {
		w.Header().Set("Content-Type", "application/x-ndjson")
	} else {
		w.Header().Set("Content-Type", "application/json")
	}
	return &reply{w: w, streamed: streamed, start: start}
}

func (r *reply) progress(status *client.SolveStatus) {
	lines := logLines(status)
	if !r.streamed {
		r.log = append(r.log, lines...)
		return
	}
	if len(lines) > 0 {
		r.write(message{Log: lines, Status: "in_progress"})
		_ = http.NewResponseController(r.w).Flush()
	}
}

func (r *reply) end(image, digest string, err error) {
	last := message{Log: r.log, Image: image, Digest: digest, Status: "success"}
	if err != nil {
		last.Status, last.Error = "failed", "failed to solve: "+err.Error()
		if !r.streamed {
			r.w.WriteHeader(http.StatusInternalServerError)
		}
	}
	r.write(last)
}

func (r *reply) write(m message) {
	m.Duration = time.Since(r.start).Seconds()
	// A client that has gone away ends the build by its request's context.
	_ = json.NewEncoder(r.w).Encode(m)
}

func logLines(status *client.SolveStatus) []string {
	var lines []string
	for _, vertex := range status.Vertexes {
		started, took := time.Now(), ""
		if vertex.Started != nil {
			started = *vertex.Started
			if vertex.Completed != nil {
				took = fmt.Sprintf(" %.2fs", vertex.Completed.Sub(started).Seconds())
			}
		}
		lines = append(lines, "v: "+at(started)+" "+vertex.Name+took)
	}
	for _, s := range status.Statuses {
		lines = append(lines, fmt.Sprintf("s: %s %s %d", at(s.Timestamp), s.ID, s.Current))
	}
	for _, l := range status.Logs {
		for line := range strings.Lines(string(l.Data)) {
			lines = append(lines, "l: "+at(l.Timestamp)+" "+strings.TrimRight(line, "\r\n"))
		}
	}
	return lines
}

func at(t time.Time) string { return t.UTC().Format(time.RFC3339) }
