# Sekimori. `make help` says what can be done; `make demo` and `make test` do
# all set-up themselves on a Debian or Ubuntu machine that has Go.
SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PREFIX  ?= /usr/local
DESTDIR ?=
GO      ?= go
# How long each fuzz target runs in `make test`.
FUZZTIME ?= 5s
# More for `make bench`: -only judge, -rounds 3.
BENCHFLAGS ?=

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# Namespaces, cgroups and TAP devices need root; ask for it only where it is missing.
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

export CGO_ENABLED := 0

KERNEL ?=

.PHONY: help demo demo-uml demo-kvm test test-kvm bench lint build kernel install clean

help: ## this list
	@echo 'usage: make TARGET'
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: build ## ARP spoofing, seen and then stopped: examples/arp_guard.star on this machine
	@scripts/deps demo
	@$(GO) build -trimpath -o bin/demo ./examples/demo
	@$(SUDO) bin/demo -seki bin/seki

demo-uml: build kernel ## the same on a kernel of its own, as an ordinary user
	@scripts/deps demo
	@$(GO) build -trimpath -o bin/demo ./examples/demo
	@bin/demo -seki bin/seki -machine uml

demo-kvm: build ## the same in a guest of KVM, with the newest kernel of /boot: make demo-kvm KERNEL=/boot/vmlinuz-...
	@scripts/deps demo
	@$(GO) build -trimpath -o bin/demo ./examples/demo
	@bin/demo -seki bin/seki -machine kvm -kernel "$(KERNEL)"

test: build ## everything: vet, unit and root tests, fuzzing, the race detector
	@scripts/deps test
	@$(MAKE) --no-print-directory kernel || echo 'no kernel for machine uml: its tests are skipped' >&2
	@scripts/guest-kernels || echo 'no Linux to boot on kvm: its tests are skipped' >&2
	@FUZZTIME=$(FUZZTIME) GO=$(GO) scripts/test

test-kvm: build ## what needs a Linux guest on KVM, in QEMU where this machine has no such KVM
	@scripts/deps test-kvm
	@scripts/guest-kernels
	@$(GO) test -count=1 -timeout 20m -v ./e2e/nested

bench: build ## each benchmark beside its peer, in one run; fails if a bar is missed
	@scripts/deps bench
	@cd bench && $(GO) build -trimpath -o ../bin/bench .
	@cd bench && $(SUDO) ../bin/bench -seki ../bin/seki $(BENCHFLAGS)

lint: ## go vet, staticcheck, gofmt and shellcheck
	@scripts/deps lint
	@GO=$(GO) scripts/lint

build: ## bin/seki and bin/seki-net, static
	@$(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/seki ./cmd/seki
	@$(GO) build -trimpath -ldflags '-s -w' -o bin/seki-net ./cmd/seki-net

kernel: build ## the kernel of machine uml, from Debian's source: minutes, once
	@bin/seki machine kernel path 2>/dev/null || { scripts/deps kernel && bin/seki machine kernel build; }

install: build ## bin/seki to $(PREFIX)/bin, with shell completion for bash
	install -D -m 755 bin/seki $(DESTDIR)$(PREFIX)/bin/seki
	install -m 755 bin/seki-net $(DESTDIR)$(PREFIX)/bin/seki-net
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	bin/seki completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/seki

clean: ## what the other targets made
	rm -rf bin
