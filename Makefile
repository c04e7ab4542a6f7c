# SPDX-License-Identifier: BSD-3-Clause
#
# The short names of what is mostly done here. Each target first sees to its packages (tools/install-deps says what
# it is going to install, and does nothing when all is there), so that on a fresh Debian 12 nothing has to be typed
# before.

PREFIX ?= /usr/local
export PREFIX

.PHONY: all demo check check-vm check-long bench install clean distclean help

all:
	@tools/install-deps build
	@tools/build product

demo:
	@tools/install-deps demo
	@tools/build product
	@tools/demo

check:
	@tools/install-deps check
	@tools/check

check-vm:
	@tools/install-deps vm
	@tools/build product
	@tests/vm/run

check-long:
	@tools/install-deps long
	@tools/check --long

# BENCH: words for tools/bench, as BENCH='--only=file --rounds=3'.
bench:
	@tools/install-deps perf
	@tools/build tests
	@tools/bench $(BENCH)

install: all
	@tools/build install

clean:
	@tools/build clean

distclean:
	rm -rf build build-*

help:
	@echo "make             build build/sidecard"
	@echo "make demo        serve a small disk, write, read back, verify, and measure for ten seconds"
	@echo "make check       all tests that need no virtual machine (less than six minutes)"
	@echo "make check-vm    virtual machines under QEMU; the first time makes a Debian 13 tree (root, half a GB)"
	@echo "make check-long  the long forms: fuzzing, repeated attacks, valgrind, soaks (about an hour)"
	@echo "make bench       measure beside what else there is: SPDK, qemu-storage-daemon, fio (BENCH='--list' says what)"
	@echo "make install     install under PREFIX (now $(PREFIX)) in DESTDIR"
	@echo "make clean       remove what was built, keep the tree of check-vm; make distclean removes that too"
