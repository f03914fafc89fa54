// Says what a RUN step gets from each URL, a line each, and with `-direct` past the proxy of its
// environment. Go's HTTP client: busybox's wget ends with a segmentation fault where there is a proxy.
package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	through := http.DefaultTransport
	for _, url := range os.Args[1:] {
		if url == "-direct" {
			through = &http.Transport{}
			continue
		}
		client := http.Client{Transport: through}
		answer, err := client.Get(url)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(url, answer.StatusCode)
		answer.Body.Close()
	}
}
