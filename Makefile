# Two commands do everything on a fresh machine with Go and Node: make run, make test.

SHELL       := /bin/sh
VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LINT        := .cache/bin/golangci-lint-$(shell sed -n 's|.*golangci-lint/v2 \(v[0-9.]*\).*|\1|p' tools/go.mod)
VERSITYGW   := .cache/bin/versitygw-$(shell sed -n 's|.*versitygw \(v[0-9.]*\).*|\1|p' tools/versitygw/go.mod)
MAILPIT     := .cache/bin/mailpit-$(shell sed -n 's|.*mailpit \(v[0-9.]*\).*|\1|p' tools/mailpit/go.mod)
WEB_SOURCES := $(shell find web -name node_modules -prune -o -path web/dist -prune -o -name '*.go' -prune -o -type f -print)
FUZZTIME    ?= 30s
RULES       := ./alert ./coverage ./probe
# Their tests mostly wait for servers and databases of their own: one package at a time, many tests at once.
FLOWS       := ./service ./server

# One setting for build, vet and lint, so that they share the build cache.
export CGO_ENABLED := 0
# Go and npm keep their caches in HOME.
ifneq ($(shell test -w "$$HOME" && echo yes),yes)
export HOME := $(CURDIR)/.cache/home
endif

.PHONY: help run test build web generate lint bench soak e2e fuzz tools mailpit versitygw clean

help: ## Show this help
	@awk -F ': ## | ## ' '/^[a-z0-9]+:.* ## / { sub(/:.*/, "", $$1); printf "  make %-9s %s\n", $$1, $$NF }' $(MAKEFILE_LIST)

run: build ## Start a server with its own database and a small simulated network
	@PG_BINDIR=$$(sh scripts/need.sh postgres) && export PG_BINDIR && exec bin/vantage serve --demo

test: mailpit versitygw ## Run every test, in the end those in a browser
	@echo "Looking for mistakes with go vet."
	@go vet -tags e2e ./...
	@PG_BINDIR=$$(sh scripts/need.sh postgres) && export PG_BINDIR && \
	echo "Playing 10,000 histories of each rule. Rules are pure, so there are no data races to look for." && \
	go test -vet=off -shuffle=on -timeout 15m $(RULES) && \
	if sh scripts/need.sh gcc >/dev/null; then \
		echo "Running the other tests, looking for data races." && race=-race && export CGO_ENABLED=1; \
	else \
		echo "Running the other tests. There is no C compiler, so data races go unseen." && race=; \
	fi && \
	go test $$race -vet=off -shuffle=on -timeout 15m $$(go list ./... | grep -vxFe "$$(go list $(RULES) $(FLOWS))") && \
	go test $$race -vet=off -shuffle=on -timeout 15m -p 1 -parallel 8 $(FLOWS)
	@$(MAKE) --no-print-directory e2e

build: web ## Build the program: bin/vantage
	@echo "Building bin/vantage $(VERSION)."
	@go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)" -o bin/vantage .

web: .cache/web.built ## Build the web pages, if their sources changed

.cache/web.installed: web/package-lock.json
	@echo "Installing what the web pages are built with."
	@cd web && npm ci --no-audit --no-fund --loglevel=error
	@mkdir -p $(@D) && touch $@

.cache/web.built: .cache/web.installed $(WEB_SOURCES)
	@echo "Building the web pages."
	@cd web && npm run --silent build
	@touch $@

generate: .cache/cldr-48.2.0 ## Bring generated code up to date
	@echo "Generating code."
	@CLDR_PACKAGES=$(CURDIR)/$</node_modules go generate ./...

.cache/cldr-48.2.0:
	@echo "Fetching the country data of Unicode CLDR."
	@mkdir -p $@.new && npm install --prefix $@.new --no-audit --no-fund --loglevel=error cldr-core@48.2.0 cldr-localenames-full@48.2.0 && mv $@.new $@

lint: tools ## Check format and style
	@echo "Checking the format."
	@bad=$$(find . -name node_modules -prune -o -name '*.go' -print | xargs gofmt -l) && \
	if [ -n "$$bad" ]; then echo "Run gofmt -w on:" $$bad; exit 1; fi
	@echo "Checking the style."
	@$(LINT) run ./...

# Real bodies and fingerprints are not part of the project; what needs them says so.
export VANTAGE_SHARED ?= $(CURDIR)/../shared
OONI := $(VANTAGE_SHARED)/data/ooni

bench: build ## Measure how fast and how large things are
	@echo "Measuring the parts: scoring on one core, the engine, then the flows on a durable database."
	@GOMAXPROCS=1 go test -run '^$$' -bench . ./jsonlex ./measurement
	@go test -run '^$$' -bench . ./archive
	@go test -run '^$$' -bench 'Get|Price|Spend|ParseRequest|HTTPNormal|Idle|Deliver|Resume' ./engine
	@PG_BINDIR=$$(sh scripts/need.sh postgres) && export PG_BINDIR && go test -run '^$$' -bench . -timeout 30m ./service
	@echo "Measuring the whole program."
	@PG_BINDIR=$$(sh scripts/need.sh postgres) && export PG_BINDIR && \
	go run ./e2e/bench $$(test -d $(OONI)/fingerprints && echo -fingerprints $(OONI)/fingerprints)

soak: build ## Have 2,000 subscribers connect, stall, vanish and resume for ten minutes
	@PG_BINDIR=$$(sh scripts/need.sh postgres) && export PG_BINDIR && go run ./e2e/bench -soak 10m -subscribers 2000

e2e: build ## Test the built program with a real browser and reference clients
	@echo "Installing what the browser tests and the reference clients are run with."
	@for d in e2e/browser e2e/clients; do (cd $$d && npm ci --no-audit --no-fund --loglevel=error) || exit 1; done
	@PG_BINDIR=$$(sh scripts/need.sh postgres) && CHROMIUM=$$(sh scripts/need.sh chromium) && export PG_BINDIR CHROMIUM && \
	echo "Testing bin/vantage with $$CHROMIUM." && VANTAGE_BIN=$(CURDIR)/bin/vantage go test -tags e2e -vet=off -count=1 -timeout 10m ./e2e/...

fuzz: ## Feed every parser random input, FUZZTIME=30s each
	@sh scripts/fuzz.sh $(FUZZTIME)

tools: $(LINT) ## Build the tools that lint needs

$(LINT): tools/go.mod tools/go.sum
	@echo "Building $(@F). This takes two or three minutes, once."
	@cd tools && go build -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

mailpit: $(MAILPIT) ## Build the mail server that letters are tested with

$(MAILPIT): tools/mailpit/go.mod tools/mailpit/go.sum
	@echo "Building $(@F). This takes a minute, once."
	@cd tools/mailpit && go build -o ../../$@ github.com/axllent/mailpit

versitygw: $(VERSITYGW) ## Build the S3 server that the archive is tested with

$(VERSITYGW): tools/versitygw/go.mod tools/versitygw/go.sum
	@echo "Building $(@F). This takes two minutes, once."
	@cd tools/versitygw && go build -o ../../$@ github.com/versity/versitygw/cmd/versitygw

clean: ## Remove everything that was built
	@rm -rf bin .cache web/node_modules e2e/browser/node_modules e2e/clients/node_modules
	@find web/dist -mindepth 1 ! -name README -delete
