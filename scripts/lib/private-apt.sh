# Sourced by bash scripts. An apt configuration of our own: it reads the mirrors that the machine is configured for, and
# neither reads nor changes the package lists and the sources of the machine.

# The Debian release of this machine, for example "bookworm".
debian_codename() { (. /etc/os-release && echo "${VERSION_CODENAME:-}"); }

# debian_mirror RELEASE: the address that the machine's sources name for the component main of RELEASE.
debian_mirror() {
  apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
    awk -v release="$1" '$1 == release && $2 == "main" { print $3; exit }'
}

# private_apt DIR STATUS RELEASE...: writes DIR/apt.conf (use it as APT_CONFIG) for the given releases, where STATUS is a
# dpkg status file: the machine's own to install here, an empty one to resolve for an empty system.
private_apt() {
  local dir=$1 status=$2 host mirror security release
  shift 2
  host=$(debian_codename)
  mirror=$(debian_mirror "$host")
  security=$(debian_mirror "$host-security")
  if [ -z "$mirror" ]; then
    echo "no Debian mirror found: expected a source for '$host main' in /etc/apt/sources.list or /etc/apt/sources.list.d; add one and run this again" >&2
    return 1
  fi
  mkdir -p "$dir"/{etc/preferences.d,state/lists/partial,cache/archives/partial}
  for release in "$@"; do
    case $release in
      *-security) [ -z "$security" ] || echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $security $release main" ;;
      *) echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $release main" ;;
    esac
  done >"$dir/etc/sources.list"
  cat >"$dir/apt.conf" <<C
Dir::Etc::sourcelist "$dir/etc/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferences "$dir/etc/preferences";
Dir::Etc::preferencesparts "$dir/etc/preferences.d";
Dir::State "$dir/state";
Dir::State::lists "$dir/state/lists";
Dir::State::status "$status";
Dir::Cache "$dir/cache";
Dir::Cache::archives "$dir/cache/archives";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "5";
C
  case $status in
    # What apt marks as installed automatically stays in the machine's own record.
    /var/lib/dpkg/*) echo 'Dir::State::extended_states "/var/lib/apt/extended_states";' >>"$dir/apt.conf" ;;
  esac
}

# apt_patiently COMMAND...: runs an apt command; while another one holds a lock, waits for it, ten minutes at most.
apt_patiently() {
  local log deadline=$((SECONDS + 600)) told=
  log=$(mktemp)
  until "$@" >"$log" 2>&1; do
    if ! grep -qE 'Could not get lock|Unable to (acquire|lock)|is another process using it' "$log" || [ $SECONDS -ge $deadline ]; then
      cat "$log" >&2
      rm -f "$log"
      return 1
    fi
    [ -n "$told" ] || { echo "waiting for another apt to finish (10 minutes at most)" >&2; told=1; }
    sleep 2
  done
  rm -f "$log"
}
