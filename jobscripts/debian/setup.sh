#!/usr/bin/env bash
# Sets up a Debian 12 machine: packages, Kokkos + Kokkos Kernels, and the Release build in build/release.
# Safe to run again: whatever is there already is kept.
#
#   jobscripts/debian/setup.sh [TARGET...]     build targets, default: strata
#
# A Kokkos (3.4 .. 5.x) with Kokkos Kernels named by Kokkos_ROOT or CMAKE_PREFIX_PATH is used instead of building one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=jobscripts/debian/environment.sh
source jobscripts/debian/environment.sh

packages=(
  g++ cmake ninja-build make git ca-certificates dpkg-dev
  openmpi-bin libopenmpi-dev libhdf5-openmpi-dev libopenblas-openmp-dev
  libyaml-cpp-dev libcli11-dev libfmt-dev libspdlog-dev nlohmann-json3-dev librandom123-dev
  libpng-dev libjpeg62-turbo-dev
  libgtest-dev libbenchmark-dev python3 python3-venv python3-h5py python3-matplotlib slurm-wlm munge clang-format-14
)

say() { printf '%s  %s\n' "$(date +%T)" "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else
    command -v sudo >/dev/null || fail "missing packages and no right to install them; ask an administrator for: ${packages[*]}"
    sudo "$@"
  fi
}

install_packages() {
  local missing=() package
  for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ "${#missing[@]}" -eq 0 ] && return
  command -v apt-get >/dev/null || fail "this machine has no apt-get; install ${missing[*]} by other means"
  say "installing ${missing[*]}"
  as_root apt-get -qq update || fail "apt-get update failed: no package lists, check the network and /etc/apt"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null ||
    fail "apt-get could not install: ${missing[*]}"
}

# True when CMake finds a usable Kokkos and Kokkos Kernels by the caller's own Kokkos_ROOT / CMAKE_PREFIX_PATH.
own_kokkos_is_usable() {
  [ -n "${Kokkos_ROOT:-}${CMAKE_PREFIX_PATH:-}" ] || return 1
  local probe
  probe=$(mktemp -d)
  if cmake -S src/cmake/probe_kokkos -B "$probe" >"$probe/log" 2>&1; then
    say "using the Kokkos of Kokkos_ROOT / CMAKE_PREFIX_PATH"
    rm -rf "$probe"
  else
    say "the Kokkos of Kokkos_ROOT / CMAKE_PREFIX_PATH is not usable ($(grep -m1 -A1 'CMake Error' "$probe/log" | tail -1 | xargs)); building our own"
    rm -rf "$probe"
    return 1
  fi
}

# Kokkos and Kokkos Kernels out of Debian's source package "trilinos" (its binary package is Serial only).
build_kokkos() {
  local prefix=$PWD/build/deps work=$PWD/build/deps-work
  if [ -f "$prefix/complete" ]; then return; fi
  rm -rf "$work" "$prefix"
  mkdir -p "$work/lists/partial" "$work/source"
  say "fetching the source of Kokkos and Kokkos Kernels (Debian package trilinos)"
  # A deb-src view of the machine's own package sources, kept apart from the machine's lists.
  local file
  for file in /etc/apt/sources.list.d/*.sources; do
    [ -f "$file" ] && { sed 's/^Types:.*/Types: deb-src/' "$file"; echo; } >>"$work/strata.sources"
  done
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ -f "$file" ] && sed -n 's/^deb\(-src\)\?[[:space:]]/deb-src /p' "$file" >>"$work/strata.list"
  done
  local sources="$work/strata.sources"
  [ -s "$sources" ] || sources="$work/strata.list"
  [ -s "$sources" ] || fail "no package sources in /etc/apt, so the source package trilinos cannot be fetched"
  local apt=(apt-get -qq -o "Dir::Etc::SourceList=$sources" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$work/lists" -o APT::Sandbox::User=root)
  "${apt[@]}" update || fail "apt-get update failed for the source packages"
  (cd "$work/source" && "${apt[@]}" source --download-only trilinos >/dev/null) || fail "the source package trilinos could not be fetched"
  local archive
  archive=$(ls "$work"/source/trilinos_*.orig.tar.*)
  tar -xf "$archive" -C "$work/source" --wildcards --strip-components=2 '*/packages/kokkos/*' '*/packages/kokkos-kernels/*'
  rm -f "$archive"

  local common=(-G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_STANDARD=17 "-DCMAKE_INSTALL_PREFIX=$prefix"
    -DCMAKE_INSTALL_LIBDIR=lib -DCMAKE_POSITION_INDEPENDENT_CODE=ON -Wno-dev)
  say "building Kokkos (OpenMP, Serial)"
  run_logged "$work/kokkos.log" cmake -S "$work/source/kokkos" -B "$work/kokkos" "${common[@]}" \
    -DKokkos_ENABLE_OPENMP=ON -DKokkos_ENABLE_SERIAL=ON
  run_logged "$work/kokkos.log" cmake --build "$work/kokkos" --target install
  say "building Kokkos Kernels (BLAS)"
  run_logged "$work/kokkos-kernels.log" cmake -S "$work/source/kokkos-kernels" -B "$work/kokkos-kernels" "${common[@]}" \
    "-DKokkos_ROOT=$prefix" -DKokkosKernels_ENABLE_TPL_BLAS=ON -DKokkosKernels_ADD_DEFAULT_ETI=OFF
  run_logged "$work/kokkos-kernels.log" cmake --build "$work/kokkos-kernels" --target install
  rm -rf "$work"
  touch "$prefix/complete"
}

run_logged() {
  local log=$1
  shift
  "$@" >>"$log" 2>&1 || { tail -n 30 "$log" >&2; fail "'$1 $2 ...' failed; the whole log is $log"; }
}

build_strata() {
  local targets=("$@")
  [ "${#targets[@]}" -gt 0 ] || targets=(strata)
  say "building ${targets[*]} in build/release"
  cmake --preset release >build/configure.log 2>&1 || { grep -A5 'CMake Error' build/configure.log >&2; fail "configuration failed; the whole log is build/configure.log"; }
  cmake --build build/release --target "${targets[@]}" || fail "the build failed, see the compiler's message above"
}

install_packages
mkdir -p build
own_kokkos_is_usable || build_kokkos
build_strata "$@"
