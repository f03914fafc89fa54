# Every target sets up what it needs first. ARGS is passed on: make test ARGS="-k engine".
.PHONY: help up test test-all test-pythons cluster-test tenants soak fuzz search check screenshots audit bench bench-pool dist image docs setup

help: ## list the targets
	@awk -F ': ## ' '/^[a-z-]+: ## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: ## run the whole stack on 127.0.0.1 and build an example; Ctrl-C ends it (ARGS=--help: options)
	@scripts/up $(ARGS)

test: ## run the tests, but two long ones (ARGS: for pytest; what it names runs, long or not)
	@scripts/test $(ARGS)

test-all: ## run the long tests too, as CI does
	@scripts/test --long $(ARGS)

test-pythons: ## run the core of the tests on other Pythons on PATH (PYTHONS="python3.13")
	@scripts/test-pythons $(PYTHONS)

cluster-test: ## install the chart in a Kubernetes made for the test (ARGS: for pytest)
	@scripts/cluster-test $(ARGS)

tenants: ## builds of many functions at once, each image compared with its tar (BUILDS=2000)
	@BUILDS=$(or $(BUILDS),2000) scripts/test tests/adversarial/tenants/test_content.py -s $(ARGS)

soak: ## builds of all kinds at full slots while things break (TIME=30m)
	@scripts/soak $(if $(TIME),--time=$(TIME)) $(ARGS)

fuzz: ## fuzz what reads strangers' bytes (TIME=60s for each, TARGET= one of them)
	@scripts/fuzz $(if $(TIME),--time=$(TIME)) $(if $(TARGET),--target=$(TARGET)) $(ARGS)

search: ## the property tests with new examples, and 20 times as many: some minutes (ARGS: for pytest)
	@scripts/test tests/unit -m hypothesis --hypothesis-profile=search --numprocesses=logical --dist=worksteal $(ARGS)

screenshots: ## take the pictures of the web pages and the command that the documents show
	@scripts/screenshots

check: ## lint, types, import contracts, locks
	@scripts/check

audit: ## look the locked packages up among known vulnerabilities; needs PyPI's advisory service
	@scripts/audit $(ARGS)

bench: ## measure against buildctl and a Go server (CASE= one case, ROUNDS=15; ARGS=delta, resources, sizes, queue or fairness)
	@scripts/bench $(if $(CASE),--case=$(CASE)) $(if $(ROUNDS),--rounds=$(ROUNDS)) $(ARGS)

bench-pool: ## measure a pool of BuildKits (CASE=warm, moves, loss, rate, traffic, holds, watch or spread)
	@scripts/bench pool $(if $(CASE),--case=$(CASE)) $(ARGS)

dist: ## make the wheels and sdists of both distributions in dist/
	@scripts/dist

image: ## build the builder's image for amd64 and arm64 with a builder that runs (IMAGE=, PLATFORMS=, ARGS=--sbom)
	@scripts/image $(IMAGE) $(ARGS)

docs: ## build the site of the documents in site/, with each link checked (ARGS=serve shows it)
	@scripts/docs $(ARGS)

setup: ## install what is missing and build the pinned tools, once
	@scripts/setup dev >/dev/null
