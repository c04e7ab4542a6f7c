# SPDX-License-Identifier: BSD-3-Clause
"""The rules that tests/tidy holds the source against. A rule is a function from a tree (a dict of path to text) to findings (path,
line, text); RULES gives each its name, a tree that breaks it and a tree that keeps it, so that the rules are tested too."""

import pathlib
import re
import subprocess
import tempfile

# --- reading C ---

_NOISE = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def code_of(text):
    """The text with comments and strings blanked out, every line where it was."""
    return _NOISE.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)


def line_at(text, offset):
    """The number of the line that offset is in."""
    return text.count("\n", 0, offset) + 1


def c_files(tree, *folders):
    """Paths and texts of the C sources and headers under these folders, in order."""
    for path in sorted(tree):
        if path.endswith((".c", ".h")) and path.startswith(folders):
            yield path, tree[path]


def includes(text):
    """Line numbers and names of what a file includes, with their brackets or quotes."""
    for match in re.finditer(r'^\s*#\s*include\s+(<[^>]+>|"[^"]+")', text, re.M):
        yield line_at(text, match.start()), match.group(1)


def functions(text):
    """Name, first and last line of each function's body: its braces stand at the start of their lines."""
    code = code_of(text).split("\n")
    begin = None
    for number, line in enumerate(code, 1):
        if line.startswith("{"):
            begin = number
        elif line.startswith("}") and begin:
            head = " ".join(code[max(0, begin - 6):begin - 1])
            names = re.findall(r"(\w+)\s*\(", re.split(r"[;}]", head)[-1])
            names = [name for name in names if name not in ("__attribute__", "format", "printf")]
            yield (names[0] if names else "?"), begin, number
            begin = None


def calls(text, names):
    """Line and name of each call of one of these functions; members of structures of the same name don't count."""
    pattern = re.compile(r"(?<![\w.>])(%s)\s*\(" % "|".join(names))
    for match in pattern.finditer(code_of(text)):
        yield line_at(text, match.start()), match.group(1)


# --- floors ---

FLOORS = [
    {"base"},
    {"os", "wire", "memory"},
    {"loop", "ring"},
    {"transport/common"},
    {"device/*", "transport/*", "backend/*", "client"},
    {"driver", "backend/filter"},
    {"backend/block/remote"},
    {"control"},
    {"daemon", "cli"},
]


def folder_of(path):
    """The folder that a path under src/ counts to: a device, a transport and a kind of backend are a folder each."""
    parts = path.split("/")[:-1]
    if parts[:3] == ["backend", "block", "remote"]:
        return "backend/block/remote"
    return "/".join(parts[:2]) if parts and parts[0] in ("device", "transport", "backend") else "/".join(parts[:1])


def floor_of(folder):
    """The floor's number, or None for a folder that is on none."""
    for number, names in enumerate(FLOORS):
        if folder in names:
            return number
    kind = folder.split("/")[0] + "/*"
    return next((number for number, names in enumerate(FLOORS) if kind in names and "/" in folder), None)


def floors(tree):
    """A folder includes lower floors and itself, never a neighbour."""
    for path, text in c_files(tree, "src/"):
        own = folder_of(path[len("src/"):])
        if floor_of(own) is None:
            yield path, 1, f"the folder {own or 'src'} is on no floor"
            continue
        for line, name in includes(text):
            if name[0] == "<" or folder_of(name[1:-1]) == own:
                continue
            other = folder_of(name[1:-1])
            if not other or floor_of(other) is None:
                yield path, line, f"includes {name}, which is on no floor: write it relative to src/"
            elif floor_of(other) >= floor_of(own):
                yield path, line, f"{own} (floor {floor_of(own)}) includes {name} of floor {floor_of(other)}"


def public_headers(tree):
    """A public header includes public headers and the C library's only."""
    standard = {"<%s.h>" % name for name in ("stdbool", "stddef", "stdint", "stdatomic", "sys/types", "sys/uio")}
    for path, text in c_files(tree, "include/"):
        for line, name in includes(text):
            if not name.startswith("<sidecard/") and name not in standard:
                yield path, line, f"a public header includes {name}"


# --- what may be called where ---

def asserts(tree):
    """Nothing that a peer can reach asserts."""
    for path, text in c_files(tree, "src/wire/", "src/transport/", "src/ring/", "src/device/"):
        for line, _ in calls(text, ["assert"]):
            yield path, line, "assert: refuse with an error, or sdc_bug for what no peer can bring about"


def unfinished(tree):
    """No notes of unfinished work."""
    for path, text in sorted(tree.items()):
        if not path.startswith(("src/", "include/")):
            continue
        for match in re.finditer(r"\b(TODO|FIXME|XXX|HACK)\b", text):
            yield path, line_at(text, match.start()), match.group()


# What implements the PCI device interface has a transport's work to do beside a device's: it finds its queues in guest memory and has
# registers. It may use what transports share.
PCI_DEVICES = ("src/device/nvme/",)
SHARED = re.compile(r'"(ring/nvme_\w+\.h|ring/fetch_log\.h|memory/payload\.h|transport/common/\w+\.h)"')


# The numbers of a device's specification, which its driver goes by too.
NUMBERS = re.compile(r'"wire/(nvme|virtio_blk)\.h"')


def device_includes(tree):
    """A device sees neither guest memory's table nor rings, the operating system or sockets."""
    banned = re.compile(r'"(memory|ring|os|wire|transport|backend|control|cli|client|driver)/|'
                        r'<(sys/socket|sys/un|sys/mman|unistd|fcntl)\.h>')
    for path, text in c_files(tree, "src/device/"):
        for line, name in includes(text):
            if not banned.match(name) or NUMBERS.match(name) or (path.startswith(PCI_DEVICES) and SHARED.match(name)):
                continue
            yield path, line, f"a device includes {name}"


def device_spans(tree):
    """A device never looks into a span: guest memory is not its to parse."""
    for path, text in c_files(tree, "src/device/"):
        for match in re.finditer(r"(\.|->)\s*(base|host)\b", code_of(text)):
            yield path, line_at(text, match.start()), "a device takes a pointer into guest memory"


# The folders and files that every request goes through. Memory is taken there only by what makes something that lives long, which its name
# says, and by the functions below, which keep what they took for the requests that follow.
HOT = ("src/ring/", "src/memory/payload.c", "src/device/", "src/transport/common/", "src/backend/", "src/loop/")
MAKES = re.compile(r"_new$|_open$|^open_|_open_|_start$|_init$|^sdc_pci_add_|^sdc_loop_fd$|^(sdc_uring_watch|watch_fd)$")
KEEPS = {
    ("src/memory/payload.c", "reserve"),            # spans, for requests of more than a few buffers
    ("src/transport/common/dma.c", "grow"),         # copies and windows, up to as many as the device has had under way
    ("src/device/nvme/queue.c", "grow"),            # commands, up to as many as the driver has had in flight
    ("src/transport/common/virtqueue.c", "grow"),   # requests, up to as many as the driver has had in flight
    ("src/transport/common/map_use.c", "sdc_map_use_switch"), # once for each map of memory
    ("src/transport/common/guest_memory.c", "sdc_guest_memory_publish_other"), # likewise
    ("src/transport/common/guest_memory.c", "make_lists"), # when a client shows more files than ever
    ("src/loop/timers.c", "make_room"),             # up to as many as were set
    ("src/loop/files.c", "make_room"),              # up to as many as were added
    ("src/loop/uring_buffers.c", "make_room"),      # up to as many as there were regions of guest memory
    # Once when a queue goes on where another process was killed.
    ("src/ring/inflight.c", "inflight_line_up"),
    ("src/ring/inflight.c", "sdc_inflight_recover"),
    ("src/ring/inflight_packed.c", "recover"),
    ("src/ring/inflight_packed.c", "sdc_inflight_recover_packed"),
    # Remote memory only, where a request costs messages to the client and back.
    ("src/memory/payload.c", "grow_segments"),
    ("src/memory/payload.c", "sdc_payload_make_bounce"),
    ("src/transport/common/remote_queue.c", "start_op"),
}
ALLOCATIONS = ["malloc", "calloc", "realloc", "reallocarray", "strdup", "aligned_alloc", "posix_memalign"]


def hot_allocations(tree):
    """No memory is taken for a request."""
    for path, text in c_files(tree, *HOT):
        bodies = list(functions(text))
        for line, name in calls(text, ALLOCATIONS):
            inside = next((function for function, begin, end in bodies if begin <= line <= end), "?")
            if not MAKES.search(inside) and (path, inside) not in KEEPS:
                yield path, line, f"{name} in {inside}, which runs for every request"


SYSTEM_CALLS = """read write pread pwrite readv writev open openat close creat dup dup2 fcntl ioctl mmap munmap mprotect madvise socket
socketpair bind listen accept accept4 connect send sendto sendmsg recv recvfrom recvmsg shutdown getsockopt setsockopt poll ppoll select
epoll_create1 epoll_ctl epoll_wait eventfd timerfd_create signalfd memfd_create pipe pipe2 fork vfork execve execv kill sigaction
sigprocmask fallocate fsync fdatasync ftruncate truncate unlink rename stat fstat lstat statx statfs fstatfs flock clock_gettime
nanosleep usleep sleep getrusage syscall io_uring_enter prctl chmod fchmod chown fchown fchownat""".split()


def system_calls(tree):
    """System calls are made by os, loop and the backends only."""
    for path, text in c_files(tree, "src/"):
        if path.startswith(("src/os/", "src/loop/", "src/backend/")):
            continue
        defined = {name for name, _, _ in functions(text)}
        for line, name in calls(text, [name for name in SYSTEM_CALLS if name not in defined]):
            yield path, line, f"{name}: system calls are made by os, loop and backend"


BANNED = {
    "strcpy": "snprintf or memcpy with the size", "strcat": "snprintf", "sprintf": "snprintf", "vsprintf": "vsnprintf",
    "gets": "getline", "strtok": "strcspn", "atoi": "sdc_parse_number", "atol": "sdc_parse_number", "atoll": "sdc_parse_number",
    "alloca": "an array of a known size", "strncpy": "snprintf or memcpy", "rand": "a generator with a seed of its own",
}


def banned_functions(tree):
    """None of the functions that cannot be used safely."""
    for path, text in c_files(tree, "src/", "include/", "fuzz/"):
        for line, name in calls(text, list(BANNED)):
            yield path, line, f"{name}: use {BANNED[name]}"


# --- shape ---

FILE_LINES, FUNCTION_LINES, COLUMNS = 700, 60, 140


def file_length(tree):
    """A file is about one thing."""
    for path, text in c_files(tree, "src/", "include/", "fuzz/", "tests/", "examples/"):
        if text.count("\n") > FILE_LINES:
            yield path, FILE_LINES, f"{text.count(chr(10))} lines; {FILE_LINES} at most: make it two"


def function_length(tree):
    """A function does one job."""
    for path, text in c_files(tree, "src/", "include/", "fuzz/"):
        for name, begin, end in functions(text):
            if end - begin - 1 > FUNCTION_LINES:
                yield path, begin, f"{name} has {end - begin - 1} lines; {FUNCTION_LINES} at most: make it two"


def line_length(tree):
    """Lines are short enough to be read beside one another."""
    for path, text in sorted(tree.items()):
        for number, line in enumerate(text.split("\n"), 1):
            if len(line) > COLUMNS and path.endswith((".c", ".h", ".py", "meson.build")):
                yield path, number, f"{len(line)} columns; {COLUMNS} at most"


def white_space(tree):
    """No tabs, nothing behind the end of a line, one newline at the end of a file."""
    for path, text in sorted(tree.items()):
        if not path.endswith((".c", ".h", ".py", "meson.build")):
            continue
        for number, line in enumerate(text.split("\n"), 1):
            if "\t" in line or line != line.rstrip():
                yield path, number, "a tab, or white space at the end of the line"
        if text and (not text.endswith("\n") or text.endswith("\n\n")):
            yield path, text.count("\n") + 1, "a file ends in one newline"


def license_line(tree):
    """Every source begins with its licence."""
    for path, text in sorted(tree.items()):
        if not path.endswith((".c", ".h", ".py")) or not text:
            continue
        first = [line for line in text.split("\n")[:2] if not line.startswith("#!")][0]
        if first.lstrip("/# ") != "SPDX-License-Identifier: BSD-3-Clause":
            yield path, 1, "the first line is SPDX-License-Identifier: BSD-3-Clause"


def guards(tree):
    """Every header may be included twice."""
    for path, text in c_files(tree, "src/", "include/", "fuzz/", "tests/"):
        if path.endswith(".h") and not re.search(r"^#pragma once$", text, re.M):
            yield path, 1, "#pragma once is missing"


def prefixes(tree):
    """All names in public headers begin with sdc_ or SDC_."""
    name = re.compile(r"^\s*#\s*define\s+(\w+)|^(?:SDC_PUBLIC\s[^;(]*?|typedef\s[^;(]*?)\b(\w+)\s*\(|"
                      r"\b(?:struct|enum|union)\s+(\w+)", re.M)
    for path, text in c_files(tree, "include/"):
        code = code_of(text)
        for match in name.finditer(code):
            found = next(group for group in match.groups() if group)
            if not found.startswith(("sdc_", "SDC_")) and found != "__attribute__":
                yield path, line_at(code, match.start()), f"{found} does not begin with sdc_ or SDC_"


def self_contained(tree):
    """Every public header can be included alone."""
    headers = [path for path, _ in c_files(tree, "include/")]
    with tempfile.TemporaryDirectory() as folder:
        for path in headers:
            file = pathlib.Path(folder, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(tree[path], encoding="utf-8")
        for path in headers:
            command = ["cc", "-std=c17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", folder + "/include", "-x", "c", "-"]
            done = subprocess.run(command, input=f"#include <{path[len('include/'):]}>\n", capture_output=True, text=True, check=False)
            if done.returncode != 0:
                yield path, 1, "cannot be included alone: " + done.stderr.strip().split("\n")[0]


# --- the list ---

_LONG = "static void f(void)\n{\n" + "    g();\n" * (FUNCTION_LINES + 1) + "}\n"
_FITS = "static void f(void)\n{\n" + "    g();\n" * FUNCTION_LINES + "}\n"
_SPDX = "// SPDX-License-Identifier: BSD-3-Clause\n"

# Name, rule, a tree that breaks it, a tree that keeps it.
RULES = [
    ("a folder includes lower floors only", floors,
     {"src/transport/virtio_pci/a.c": '#include "transport/vfio_user/session.h"\n'},
     {"src/transport/virtio_pci/a.c": '#include "transport/common/msix.h"\n#include "transport/virtio_pci/card.h"\n'}),
    ("no folder includes a higher floor", floors,
     {"src/wire/a.c": '#include "loop/loop.h"\n'}, {"src/loop/a.c": '#include "os/fd.h"\n'}),
    ("public headers include public headers only", public_headers,
     {"include/sidecard/a.h": '#include "base/check.h"\n'},
     {"include/sidecard/a.h": "#include <sidecard/error.h>\n#include <stdint.h>\n"}),
    ("nothing that a peer reaches asserts", asserts,
     {"src/ring/a.c": "void f(int a) { assert(a); }\n"},
     {"src/ring/a.c": 'static_assert(1, "assert(x)"); // assert(y)\n'}),
    ("nothing is left to do", unfinished,
     {"src/base/a.c": "// TODO: all of it\n"}, {"src/base/a.c": "// todos are elsewhere\n"}),
    ("devices see no memory, rings, or system", device_includes,
     {"src/device/x/a.c": '#include "memory/map.h"\n'},
     {"src/device/x/a.c": '#include <sidecard/memory.h>\n#include "wire/virtio_blk.h"\n'}),
    ("devices on PCI see what transports share", device_includes,
     {"src/device/nvme/a.c": '#include "ring/ring.h"\n'},
     {"src/device/nvme/a.c": '#include "ring/nvme_sq.h"\n#include "transport/common/msix.h"\n'}),
    ("devices don't look into spans", device_spans,
     {"src/device/x/a.c": "char *f(struct sdc_span *s) { return s->base; }\n"},
     {"src/device/x/a.c": "// s->base\nint f(int basement);\n"}),
    ("no request takes memory", hot_allocations,
     {"src/ring/ring.c": "int sdc_ring_take(void)\n{\n    malloc(1);\n}\n"},
     {"src/ring/ring.c": "int sdc_ring_start(int a,\n    int b)\n{\n    malloc(1);\n}\n"}),
    ("system calls are made by os, loop and backend", system_calls,
     {"src/control/a.c": "int f(void) { return socket(1, 2, 3); }\n"},
     {"src/control/a.c": "void f(struct x *x) { x->read(x); x->ops.write(x); }\n", "src/os/a.c": "int g = open(0);\n"}),
    ("no dangerous function is called", banned_functions,
     {"src/cli/a.c": "void f(char *a) { sprintf(a, a); }\n"}, {"src/cli/a.c": "void f(char *a) { snprintf(a, 1, a); }\n"}),
    (f"files have at most {FILE_LINES} lines", file_length,
     {"src/base/a.c": "\n" * (FILE_LINES + 1)}, {"src/base/a.c": "\n" * FILE_LINES}),
    (f"functions have at most {FUNCTION_LINES} lines", function_length, {"src/base/a.c": _LONG}, {"src/base/a.c": _FITS}),
    (f"lines have at most {COLUMNS} columns", line_length,
     {"src/base/a.c": "x" * (COLUMNS + 1)}, {"src/base/a.c": "x" * COLUMNS}),
    ("white space is where it should be", white_space, {"src/base/a.c": "int a; \n"}, {"src/base/a.c": "int a;\n"}),
    ("every source names its licence first", license_line, {"src/base/a.c": "// hello\n"}, {"src/base/a.c": _SPDX}),
    ("every header has #pragma once", guards, {"src/base/a.h": "int a;\n"}, {"src/base/a.h": "#pragma once\n"}),
    ("names in public headers begin with sdc_", prefixes,
     {"include/sidecard/a.h": "SDC_PUBLIC int block_open(void);\n"},
     {"include/sidecard/a.h": "#define SDC_A 1\nSDC_PUBLIC struct sdc_a *sdc_f(void);\n"}),
    ("every public header can be included alone", self_contained,
     {"include/sidecard/a.h": "uint32_t a(void);\n"}, {"include/sidecard/a.h": "#include <stdint.h>\nuint32_t a(void);\n"}),
]
