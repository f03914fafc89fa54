module github.com/function-builder/function-builder/tools/go-sdk-client

go 1.24

require github.com/openfaas/go-sdk v0.2.22

require (
	github.com/alexellis/hmac/v2 v2.0.0 // indirect
	golang.org/x/crypto v0.39.0 // indirect
	golang.org/x/sys v0.33.0 // indirect
	gopkg.in/yaml.v3 v3.0.1 // indirect
)
