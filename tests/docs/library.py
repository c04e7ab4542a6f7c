# SPDX-License-Identifier: BSD-3-Clause
"""The library's manual pages against its headers: synopses, the names by which `man` finds them, and examples, which compile."""

import ast
import concurrent.futures
import re
import shlex
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAN = ROOT / "man"
HEADERS = ROOT / "include" / "sidecard"
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", str(HEADERS.parent)]
# What examples are compiled by. In C++ to leave members out is a warning, though their names are given.
COMPILERS = {
    "gcc": [*WARNINGS, "-x", "c"],
    "clang": [*WARNINGS, "-x", "c"],
    "g++": [*WARNINGS, "-std=c++20", "-Wno-missing-field-initializers", "-x", "c++"],
}


def spaced(text):
    return re.sub(r"\s*\*\s*", " *", re.sub(r"\s+", " ", text)).strip()


def declarations():
    """Every function that is declared SDC_PUBLIC: its name, header, and what it returns and takes."""
    for header in sorted(HEADERS.glob("*.h")):
        text = re.sub(r"//[^\n]*", "", header.read_text(encoding="utf-8")).replace("\\\n", "")
        text = re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
        for declaration in re.findall(r"\bSDC_PUBLIC\b([^;{]*)", text):
            declaration = re.sub(r"__attribute__\s*\(\(.*\)\)", "", declaration, flags=re.DOTALL)
            match = re.match(r"(.*?)\b(sdc_\w+)\s*\((.*)\)\s*$", declaration, re.DOTALL)
            yield match[2], header.name, [spaced(match[1]), *map(spaced, match[3].split(","))]


def synopses(page):
    """The functions in a page's SYNOPSIS: name, and what it says they return and take."""
    kind = name = None
    words = []
    for line in re.sub(r"^\.Sh DESCRIPTION.*", "", page, flags=re.MULTILINE | re.DOTALL).splitlines():
        macro, _, rest = line.partition(" ")
        if macro == ".Ft":
            kind = " ".join(shlex.split(rest))
        elif macro == ".Fn":
            name, *words = shlex.split(rest)
            yield name, [spaced(kind), *map(spaced, words)]
        elif macro == ".Fo":
            name, words = rest, []
        elif macro == ".Fa":
            words += shlex.split(rest)
        elif macro == ".Fc":
            yield name, [spaced(kind), *map(spaced, words)]


def installed_names():
    """man/meson.build's table: page, and the functions that it is found by."""
    table = re.search(r"^functions = (\{.*?^\})", (MAN / "meson.build").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return ast.literal_eval(table[1])


def check_functions(checks, pages):
    """Each public function is in the synopsis of one page, as its header has it, and nothing else is."""
    declared = {name: (header, form) for name, header, form in declarations()}
    checks.that(len(declared) > 80, f"only {len(declared)} public functions were found: is their form another one now?")
    found = {}
    for page, text in pages.items():
        returns = [name for name, form in synopses(text) if form[0] != "void"]
        checks.that(not returns or "\n.Sh RETURN VALUES\n" in text, f"man/{page}.3 does not say what {', '.join(returns)} return")
        for name, form in synopses(text):
            checks.that(name in declared, f"man/{page}.3 describes {name}(), which no public header declares")
            checks.that(name not in found, f"man/{page}.3 describes {name}(), and so does man/{found.get(name)}.3")
            found[name] = page
            if name not in declared:
                continue
            header, wanted = declared[name]
            checks.that(form == wanted, f"man/{page}.3: {name}() is {form}, in {header} it is {wanted}")
            checks.that(f".In sidecard/{header}\n" in text, f"man/{page}.3 describes {name}() and does not name sidecard/{header}")
            checks.that(re.search(rf"^\.Nm {name}\b", text, re.MULTILINE), f"man/{page}.3 has no {name} in NAME")
    for name, (header, _) in sorted(declared.items()):
        checks.that(name in found, f"no page describes {name}() (include/sidecard/{header})")
    names = installed_names()
    checks.that(set(names) == set(pages), f"man/meson.build has {sorted(set(names) ^ set(pages))} too few or too many of section 3")
    for page, listed in names.items():
        described = sorted(name for name, where in found.items() if where == page)
        checks.that(sorted(listed) == described, f"man/meson.build: {page} is found by {sorted(listed)}, it describes {described}")


def check_headers(checks, pages):
    for header in sorted(HEADERS.glob("*.h")):
        page = f"sidecard-{header.stem}"
        checks.that(f".In sidecard/{header.name}\n" in pages.get(page, ""),
                    f"include/sidecard/{header.name} has no man/{page}.3, or that does not name it")


def examples(page):
    """The programs, or parts of such, in a page's EXAMPLES, as they are read."""
    section = re.search(r"^\.Sh EXAMPLES\n(.*?)^\.Sh ", page, re.MULTILINE | re.DOTALL)
    for block in re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed$", section[1] if section else "", re.MULTILINE | re.DOTALL):
        yield block.replace("\\&", "").replace("\\-", "-").replace("\\e", "\\")


def compile_example(compiler, code):
    done = subprocess.run([compiler, *COMPILERS[compiler], "-"], input=code, capture_output=True, text=True, check=False, timeout=120)
    return done.stderr if done.returncode != 0 else ""


def check_examples(checks, pages):
    """Each page has examples, which compile alone, with warnings as errors."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = []
        for page, text in pages.items():
            found = list(examples(text))
            checks.that(found, f"man/{page}.3 has no example")
            for number, code in enumerate(found, 1):
                for compiler in COMPILERS:
                    jobs.append((f"man/{page}.3, example {number}, {compiler}", pool.submit(compile_example, compiler, code)))
        for title, job in jobs:
            checks.that(not job.result(), f"{title}:\n{job.result()}")


def check_library(checks):
    pages = {page.stem: page.read_text(encoding="utf-8") for page in sorted(MAN.glob("*.3"))}
    check_headers(checks, pages)
    check_functions(checks, pages)
    missing = [compiler for compiler in COMPILERS if not shutil.which(compiler)]
    checks.that(not missing, f"not installed, and examples in manual pages are compiled with it: {', '.join(missing)}")
    if not missing:
        check_examples(checks, pages)
