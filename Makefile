# Thin: every target is one script or one `cargo xtask` command, which say more with --help.
.PHONY: run stop test check bench soak

run: ## install what is missing, build, start the cloud in the background, print how to use it
	@scripts/run

stop: ## guests gracefully, then everything that `make run` started
	@scripts/stop

test: ## everything: packages, images, build, check, tests of crates and product, leftovers
	@cargo xtask test

check: ## format, clippy, invariants, licences
	@cargo xtask check

bench: ## measurements; see bench/
	@cargo xtask bench

soak: ## the tour again and again until it fails or an hour is over
	@cargo xtask soak
