# Sourced by images/build before a recipe.
#
# A recipe (NAME/recipe) defines two functions, run in its own folder with these helpers:
#   resolve_image     prints "package version" lines: all that the image is made from
#   build_image OUT   fills the folder OUT
#
# They find: $work, a folder that goes away afterwards; $work/versions, what resolve_image printed; $apt, the private apt.

# Every time stamp in an image.
export SOURCE_DATE_EPOCH=1735689600

# with_dependencies PACKAGE...: the packages that an empty system would get, as "package version" lines.
with_dependencies() {
  APT_CONFIG=$apt/apt.conf apt-get -q install --simulate "$@" | awk '$1 == "Inst" { gsub(/[()]/, "", $3); print $2, $3 }' | sort
}

# alone PACKAGE...: these packages and nothing that they depend on, as "package version" lines.
alone() {
  APT_CONFIG=$apt/apt.conf apt-cache show --no-all-versions "$@" | awk '$1 == "Package:" { p = $2 } $1 == "Version:" { print p, $2 }' | sort
}

# extract ROOT PACKAGE...: unpacks packages in the resolved versions, without running anything of theirs.
extract() {
  local root=$1 package version deb
  shift
  mkdir -p "$root" "$work/new-debs" "$apt/debs"
  for package in "$@"; do
    version=$(awk -v p="$package" '$1 == p { print $2 }' "$work/versions")
    deb=${package}_${version//:/%3a}
    if ! compgen -G "$apt/debs/${deb}_*.deb" >/dev/null; then
      (cd "$work/new-debs" && APT_CONFIG=$apt/apt.conf apt-get -q download "$package=$version" >/dev/null)
      mv "$work/new-debs/${deb}_"*.deb "$apt/debs/"
    fi
    dpkg-deb -x "$apt/debs/${deb}_"*.deb "$root"
  done
}
