# Every target sets up what it needs first. ARGS is passed on: make test ARGS="-k engine".
.PHONY: help up test cluster-test check bench setup

help: ## list the targets
	@awk -F ': ## ' '/^[a-z-]+: ## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: ## run the whole stack on 127.0.0.1 and build an example; Ctrl-C ends it (ARGS=--help: options)
	@scripts/up $(ARGS)

test: ## run every test (ARGS: for pytest)
	@scripts/test $(ARGS)

cluster-test: ## install the chart in a Kubernetes made for the test (ARGS: for pytest)
	@scripts/cluster-test $(ARGS)

check: ## lint, types, import contracts, locks
	@scripts/check

bench: ## measure against buildctl and a Go server (CASE= one case, ROUNDS=15)
	@scripts/bench $(if $(CASE),--case=$(CASE)) $(if $(ROUNDS),--rounds=$(ROUNDS)) $(ARGS)

setup: ## install what is missing and build the pinned tools, once
	@scripts/setup dev >/dev/null
