#!/bin/bash
# Installs the Debian or Ubuntu packages that are missing for what is about to be done:
#
#   tools/setup.sh run     to build and boot
#   tools/setup.sh test    to test, beyond what `run` takes
#   tools/setup.sh coverage  to count what the hosted tests run
#
# Silent, and done in a moment, when nothing is missing. Otherwise says what is missing and what
# for, and installs it as root or by sudo; where neither is to be had, prints the line to type
# and ends with status 1.
set -u

# want PACKAGE WHAT-FOR TEST...: the package is missing when the test fails.
want() {
    local package=$1 reason=$2
    shift 2
    "$@" >/dev/null 2>&1 && return
    packages+=("$package")
    reasons+=("$reason")
}

has() { command -v "$1"; }
# Debian's modules belong to Debian's interpreter, whatever python3 is first in the path.
module() { /usr/bin/python3 -c "import $1"; }
# Clang's run-time libraries are a package of their own, and lie here or there: a link tells.
clang_links() {
    local out
    out=$(mktemp) && echo "$2" | clang -x c - "$1" -o "$out"
    local status=$?
    rm -f "$out"
    return $status
}
needs_of_run() {
    want gcc "to compile" has gcc
    want binutils "to link" has ld
    want make "to build" has make
    want nasm "to assemble" has nasm
    want python3 "to run the tools" /usr/bin/python3 -c "import ctypes, pty, termios"
    want acpica-tools "to compile the ACPI tables of guests" has iasl
    want grub-common "to make the bootable image" has grub-mkrescue
    want grub-pc-bin "to make the bootable image" test -d /usr/lib/grub/i386-pc
    want xorriso "to make the bootable image" has xorriso
    want mtools "to make the bootable image" has mformat
    case ${ENGINE:-auto} in
    bochs) needs_of_bochs ;;
    qemu | kvm) needs_of_qemu ;;
    nested) needs_of_nested ;;
    *) # by KVM or without; a CPU model may be one of Bochs's, which then emulates VMX
        needs_of_qemu
        [ -n "${CPU:-}" ] && needs_of_bochs
        ;;
    esac
}

needs_of_bochs() {
    want bochs "to emulate a CPU with VMX" has bochs
    want seabios "to emulate a CPU with VMX" test -e /usr/share/seabios/bios-256k.bin
    want bochs-term "to run Bochs without a window" \
        compgen -G '/usr/lib/*/bochs/plugins/libbx_term_gui.so'
}

needs_of_nested() {
    needs_of_bochs
    want lz4 "to pack the files of a Linux that runs KVM" has lz4
    want xz-utils "to unpack that Linux's modules" has xz
}

needs_of_qemu() {
    want qemu-system-x86 "to run under KVM, or to emulate a CPU with AMD-V" has qemu-system-x86_64
}

needs_of_test() {
    needs_of_bochs
    needs_of_nested
    needs_of_qemu
    want bochsbios "to test under another firmware" test -e /usr/share/bochs/BIOS-bochs-latest
    want libc6-dev "to build the hosted tests" test -e /usr/include/stdio.h
    want libcmocka-dev "to build the hosted tests" test -e /usr/include/cmocka.h
    want libzydis-dev "to test the decoder of instructions" test -e /usr/include/Zydis/Zydis.h
    want pkgconf "to build the examples" has pkg-config
    want chromium "to look at the picture of memory" has chromium
    want clang "to check the sources by a second compiler" has clang
    want clang-format-14 "to check the layout of the sources" has clang-format-14
    want libclang-rt-dev "to fuzz" clang_links -fsanitize=fuzzer \
        "int LLVMFuzzerTestOneInput(void) { return 0; }"
    want python3-pytest "to test the whole machine" module pytest
    want python3-pexpect "to test the whole machine" module pexpect
    want python3-pytest-xdist "to test the whole machine" module xdist
}

needs_of_coverage() {
    want acpica-tools "to compile the ACPI tables of guests" has iasl
    want libc6-dev "to build the hosted tests" test -e /usr/include/stdio.h
    want libcmocka-dev "to build the hosted tests" test -e /usr/include/cmocka.h
    want libzydis-dev "to build the hosted tests" test -e /usr/include/Zydis/Zydis.h
    want clang "to count what is run" has clang
    want libclang-rt-dev "to count what is run" clang_links -fprofile-instr-generate \
        "int main(void) { return 0; }"
    want llvm "to say what was run" has llvm-cov
}

# Fills `packages` with what is missing for what was asked for.
find_missing() {
    packages=()
    reasons=()
    local what
    for what in "$@"; do
        case $what in
        run) needs_of_run ;;
        test) needs_of_test ;;
        coverage) needs_of_coverage ;;
        *)
            echo "usage: tools/setup.sh [run] [test] [coverage]" >&2
            exit 2
            ;;
        esac
    done
}

find_missing "$@"
[ ${#packages[@]} -eq 0 ] && exit 0

echo "setup: missing:"
for i in "${!packages[@]}"; do
    printf 'setup:   %-20s %s\n' "${packages[i]}" "${reasons[i]}"
done
mapfile -t wanted < <(printf '%s\n' "${packages[@]}" | sort -u)

by_hand() {
    echo "setup: $1; type this, then try again:" >&2
    local apt="${2:+$2 }apt-get"
    echo "  $apt update && $apt install -y --no-install-recommends ${wanted[*]}" >&2
    exit 1
}

if ! command -v apt-get >/dev/null; then
    echo "setup: this machine has no apt-get; install what stands for these Debian packages:" \
        "${wanted[*]}" >&2
    exit 1
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || by_hand "installing needs root, and there is no sudo here"
    # A password is asked for only where somebody can type it.
    if ! sudo -n true 2>/dev/null; then
        [ -t 0 ] || by_hand "installing needs root, and sudo wants a password" sudo
        echo "setup: installing needs root; sudo may ask for your password"
    fi
    as_root=(sudo)
fi

apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@"
}
install_all() { apt install -y --no-install-recommends "${wanted[@]}"; }

log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "setup: installing ${wanted[*]}"
# The lists of a fresh machine are empty or old: refresh them, unless the packages come without.
if ! install_all >"$log" 2>&1; then
    if ! { apt update && install_all; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        by_hand "apt-get failed (its last lines are above)" "${as_root[*]}"
    fi
fi
find_missing "$@"
if [ ${#packages[@]} -ne 0 ]; then
    echo "setup: apt-get installed them, and yet these are not to be found: ${packages[*]}" >&2
    exit 1
fi
echo "setup: done"
