# Thin: every target is one script or one `cargo xtask` command, which say more with --help.
.PHONY: run stop test test-reference check bench bench-api soak

run: ## install what is missing, build, start the cloud in the background, print how to use it
	@scripts/run

stop: ## guests gracefully, then everything that `make run` started
	@scripts/stop

test: ## everything: packages, images, build, check, tests of crates and product, leftovers
	@cargo xtask test

test-reference: ## the API suite against Kubernetes' own server, which is built once (8 minutes)
	@cargo xtask test-reference

check: ## format, clippy, invariants, licences
	@cargo xtask check

bench-api: ## our API beside Kubernetes' own server and etcd, which are built once; see docs/performance.md
	@cargo xtask bench-api --write

bench: ## measurements; see bench/
	@cargo xtask bench

soak: ## our API compared with Kubernetes' in 20,000 random sequences, 10,000 crashes of the store, 10 minutes of fuzzing for each of 9 targets, then the tour again and again for an hour
	@cargo xtask soak
