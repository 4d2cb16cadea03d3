# Read by scripts/run, scripts/stop and scripts/env, which have gone to the clone's root: which instance, and what only root may do.

instance=${EVROC_INSTANCE:-evroc}
if ! [[ $instance =~ ^[a-z][a-z0-9-]{0,19}$ ]]; then
  echo "EVROC_INSTANCE=$instance: expected a small letter, then at most 19 small letters, digits or dashes" >&2
  exit 2
fi
# Debian keeps nft and the like where an ordinary user's PATH does not look.
export PATH="$PWD/.tools/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# as_root COMMAND...: only what the host must do for the cloud; building and all files of the caller stay the caller's.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    # sudo has a PATH of its own and drops the environment.
    sudo env PATH="$PATH" ${RUST_LOG:+RUST_LOG="$RUST_LOG"} ${EVROC_TEST_RUN:+EVROC_TEST_RUN="$EVROC_TEST_RUN"} "$@"
  else
    echo "root is needed for '$*': expected sudo, found none; run this as root" >&2
    return 1
  fi
}

say() { printf '== %s\n' "$*"; }
