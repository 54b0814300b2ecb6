#!/usr/bin/env bash
# Debian packages that the tests use beside Python's: PostgreSQL for the stack, a browser for the pages, and the library
# that vLLM's CPU build loads. Installs what is missing where it may (as root, with apt-get), else says what to install.
set -euo pipefail
missing=()
ldconfig -p | grep -q 'libnuma\.so\.1' || missing+=(libnuma1)
if ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && ! command -v initdb >/dev/null; then
  missing+=(postgresql)
fi
if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; then
  missing+=(chromium chromium-driver)
fi
if ((${#missing[@]} == 0)); then
  exit 0
fi
if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
  echo "The tests need ${missing[*]}: apt-get install ${missing[*]}, as root" >&2
  exit 1
fi
echo "Installing ${missing[*]} ..."
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq --yes --no-install-recommends "${missing[@]}" >/dev/null
