# Every target sets up what it needs first. ARGS is passed on: make test ARGS="-k engine".
.PHONY: help up test check setup

help: ## list the targets
	@awk -F ': ## ' '/^[a-z]+: ## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: ## run the whole stack on 127.0.0.1 and build an example; Ctrl-C ends it (ARGS=--help: options)
	@scripts/up $(ARGS)

test: ## run every test (ARGS: for pytest)
	@scripts/test $(ARGS)

check: ## lint, types, import contracts, locks
	@scripts/check

setup: ## install what is missing and build the pinned tools, once
	@scripts/setup dev >/dev/null
