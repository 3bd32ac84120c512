# The one door to everything: `make demo`, `make test`, `make bench`, `make lint`, `make install`, `make reference`.

PREFIX ?= /usr/local
DESTDIR ?=
# Where systemd looks: in a home directory that is another place.
UNITDIR ?= $(PREFIX)/$(if $(filter $(HOME)/%,$(PREFIX)),share,lib)/systemd/user
CARGO ?= cargo
TARGET = $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)

.PHONY: all needs build release demo test bench lint install uninstall reference clean

all: build

# What the build needs besides Rust, where it can be installed.
needs:
	@tests/env/install-build-needs

build: needs
	$(CARGO) build --workspace --locked

release: needs
	$(CARGO) build --workspace --release --locked

# Builds, then shows the whole way from nothing to a project and back, in a home of its own.
demo: build
	tests/demo/demo.sh $(TARGET)/debug

# Installs what the tests talk to where that is possible, builds, and runs everything.
test: needs
	tests/env/run-tests

# One line per measurement; the same as JSON in target/bench.json.
bench: release
	$(TARGET)/release/terok-bench --json $(TARGET)/bench.json

lint: needs
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny --log-level error check licenses bans sources; \
	else echo "cargo-deny is not installed: licences, bans and sources are not checked"; fi

# Programs, user units, completions and man pages below $(DESTDIR)$(PREFIX). With sudo nothing is built: Rust is the
# user's, and so is the build.
install:
	@if [ -z "$$SUDO_USER" ]; then $(MAKE) --no-print-directory release; fi
	@test -x $(TARGET)/release/terokd || { echo "nothing is built yet: run \`make release\` first" >&2; exit 1; }
	install -D -m 755 $(TARGET)/release/terokd $(DESTDIR)$(PREFIX)/bin/terokd
	install -D -m 755 $(TARGET)/release/terokctl $(DESTDIR)$(PREFIX)/bin/terokctl
	install -d $(DESTDIR)$(UNITDIR)
	sed 's#@BINDIR@#$(PREFIX)/bin#' systemd/terokd.service > $(DESTDIR)$(UNITDIR)/terokd.service
	install -m 644 systemd/terokd.socket systemd/terokd-gate.socket $(DESTDIR)$(UNITDIR)/
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions \
	  $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d $(DESTDIR)$(PREFIX)/share/man/man1
	$(TARGET)/release/terokctl completions bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/terokctl
	$(TARGET)/release/terokctl completions zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_terokctl
	$(TARGET)/release/terokctl completions fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/terokctl.fish
	$(TARGET)/release/terokctl man $(DESTDIR)$(PREFIX)/share/man/man1

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/terokd $(DESTDIR)$(PREFIX)/bin/terokctl \
	  $(DESTDIR)$(UNITDIR)/terokd.service $(DESTDIR)$(UNITDIR)/terokd.socket \
	  $(DESTDIR)$(UNITDIR)/terokd-gate.socket \
	  $(DESTDIR)$(PREFIX)/share/bash-completion/completions/terokctl \
	  $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_terokctl \
	  $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/terokctl.fish \
	  $(DESTDIR)$(PREFIX)/share/man/man1/terokctl*.1

# Writes the generated reference pages; a test fails when they are not current.
reference: build
	UPDATE_REFERENCE=1 $(CARGO) test -q -p terok-tests --test it reference::

clean:
	$(CARGO) clean
