"""The macros and enumerators of the kernel's headers, of this machine and of others.

Nothing is compiled: a small preprocessor follows `#include` and `#if`, and the values of constant
expressions are computed here.  For scripts/gen.
"""

from __future__ import annotations

import os
import re

# machine: (Debian's triplet, what a compiler for it predefines)
MACHINES = {
    "x86_64": ("x86_64-linux-gnu", {"__x86_64__": "1", "__LP64__": "1"}),
    "i386": ("x86_64-linux-gnu", {"__i386__": "1"}),
    "x32": ("x86_64-linux-gnu", {"__x86_64__": "1", "__ILP32__": "1"}),
    "aarch64": ("aarch64-linux-gnu", {"__aarch64__": "1", "__LP64__": "1"}),
    "arm": ("arm-linux-gnueabihf", {"__arm__": "1", "__ARM_EABI__": "1"}),
    "riscv64": ("riscv64-linux-gnu", {"__riscv": "1", "__riscv_xlen": "64", "__LP64__": "1"}),
    "ppc64le": ("powerpc64le-linux-gnu", {"__powerpc64__": "1", "__LP64__": "1"}),
    "s390x": ("s390x-linux-gnu", {"__s390x__": "1", "__s390__": "1", "__LP64__": "1"}),
}
SIZES = {"int": 4, "unsigned int": 4, "char": 1, "short": 2, "__u32": 4, "__u64": 8, "size_t": 8}


class Headers:
    """The macros and enumerators of one machine, gathered by following its headers."""

    def __init__(self, machine: str) -> None:
        self.machine = machine
        self.triplet, predefined = MACHINES[machine]
        self.predefined = predefined
        self.roots = [f"/usr/{self.triplet}/include"]
        if os.path.isdir(f"/usr/include/{self.triplet}/asm"):
            self.roots = [f"/usr/include/{self.triplet}", "/usr/include"]
        self.macros: dict[str, str] = dict(predefined, __linux__="1")
        self.text: list[str] = []
        self.seen: set[str] = set()
        self.values: dict[str, int | None] = {}

    @property
    def present(self) -> bool:
        return os.path.isfile(os.path.join(self.roots[0], "asm", "unistd.h"))

    @property
    def version(self) -> str:
        """`6.1`, or nothing without headers."""
        code = self.value("LINUX_VERSION_CODE") or 0
        return f"{code >> 16}.{code >> 8 & 255}" if code else ""

    def read(self, name: str) -> None:
        """Follow one header; what is not installed is passed over."""
        path = next(
            (p for p in (os.path.join(r, name) for r in self.roots) if os.path.isfile(p)), ""
        )
        if not path or name.startswith(("sys/", "features", "bits/")):
            return
        with open(path, encoding="utf-8") as source:
            text = source.read()
        text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S).replace("\\\n", " ")
        taken = [True]  # for each open #if: is this branch read
        done = [True]  # has one branch of it been read
        for line in text.split("\n"):
            line = re.sub(r"//.*", "", line)
            directive = re.match(r"\s*#\s*(\w+)\s*(.*)", line)
            if directive is None:
                if all(taken):
                    self.text.append(line)
                continue
            self.directive(directive[1], directive[2].strip(), taken, done)

    def directive(self, word: str, rest: str, taken: list[bool], done: list[bool]) -> None:
        if word in ("if", "ifdef", "ifndef"):
            condition = all(taken) and self.condition(word, rest)
            taken.append(condition)
            done.append(condition)
        elif word in ("elif", "else"):
            condition = not done[-1] and all(taken[:-1])
            taken[-1] = condition and (word == "else" or self.condition("if", rest))
            done[-1] = done[-1] or taken[-1]
        elif word == "endif":
            taken.pop()
            done.pop()
        elif not all(taken):
            return
        elif word == "include":
            self.read(rest.strip('<>" '))
        elif word == "define":
            # Function-like macros only exist for #ifdef: an empty text has no value.
            name, opening, body = re.findall(r"(\w+)(\(?)\s*(.*)", rest, re.S)[0]
            self.macros[name] = "" if opening else body.strip()
        elif word == "undef":
            self.macros.pop(rest, None)

    def condition(self, word: str, rest: str) -> bool:
        if word != "if":
            name = rest.split()[0]
            return (name in self.macros) == (word == "ifdef")
        expression = re.sub(
            r"defined\s*\(?\s*(\w+)\s*\)?", lambda m: str(int(m[1] in self.macros)), rest
        )
        value = self.evaluate(expression, unknown=0)
        return bool(value)

    def gather(self, names: list[str]) -> None:
        """Read these headers and what they include."""
        for name in names:
            self.read(name)
        for body in re.findall(r"\benum\b\s*\w*\s*\{(.*?)\}", "\n".join(self.text), flags=re.S):
            previous = ""
            for entry in body.split(","):
                name, _, value = (part.strip() for part in entry.partition("="))
                if name:
                    default = f"({previous}) + 1" if previous else "0"
                    # A macro of the same name repeats the enumerator: `#define IFF_UP IFF_UP`.
                    self.macros[name] = value or default
                    previous = name

    def value(self, name: str) -> int | None:
        if name not in self.values:
            self.values[name] = None  # a name that needs itself has no value
            text = self.macros.get(name)
            self.values[name] = self.evaluate(text) if text else None
        return self.values[name]

    def evaluate(self, text: str, unknown: int | None = None) -> int | None:
        """The value of a C constant expression, None where it is none."""
        text = re.sub(r"\bsizeof\s*\(\s*([\w ]+?)\s*\)", lambda m: str(SIZES.get(m[1], "no")), text)
        text = re.sub(r"\(\s*(__u32|__u64|int|unsigned int|unsigned|long)\s*\)", "", text)
        text = re.sub(r"\b(0[xX][0-9a-fA-F]+|\d+)[uUlL]*\b", lambda m: m[1], text)
        text = re.sub(r"\b0+(\d+)\b", lambda m: "0o" + m[1], text)
        text = re.sub(r"'(.)'", lambda m: str(ord(m[1])), text)
        ioctl = re.match(
            r"_(IO|IOR|IOW|IOWR)\(\s*(\w+)\s*,\s*(\w+)\s*(?:,\s*([\w ]+?))?\s*\)$", text
        )
        if ioctl is not None:
            return self.ioctl(*ioctl.groups())
        names: dict[str, int] = {}
        for name in re.findall(r"(?<![\w.])[A-Za-z_]\w*", text):
            if not re.match(r"0[xo]", name):
                value = self.value(name)
                value = unknown if value is None else value
                if value is None:
                    return None
                names[name] = value
        text = text.replace("&&", " and ").replace("||", " or ")
        text = re.sub(r"!(?!=)", " not ", text).replace("/", "//")
        try:
            return int(eval(text, {"__builtins__": {}}, names))  # headers of this machine only
        except (SyntaxError, TypeError, ValueError, ZeroDivisionError):
            return None

    def ioctl(self, kind: str, group: str, number: str, argument: str | None) -> int | None:
        def known(name: str) -> int:
            return self.value(name) or 0

        size = SIZES.get(argument, 4) if argument else 0
        direction = {"IO": ["NONE"], "IOR": ["READ"], "IOW": ["WRITE"], "IOWR": ["READ", "WRITE"]}
        way = sum(known(f"_IOC_{word}") for word in direction[kind])
        way_shift = 16 + known("_IOC_SIZEBITS")
        letter = self.evaluate(group)
        if letter is None:
            return None
        return way << way_shift | size << 16 | letter << 8 | int(number, 0)
