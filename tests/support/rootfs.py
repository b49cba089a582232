"""A root filesystem of one static busybox: a megabyte or two, made in milliseconds."""

from __future__ import annotations

import os
import shutil
import subprocess

BUSYBOX = ("/bin/busybox", "/usr/bin/busybox")

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
app:x:1000:1000:An application,,,:/home/app:/bin/sh
other:x:1001:1001::/home/other:/bin/sh
4242:x:77:77:a numeric name:/:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
"""

GROUP = """\
root:x:0:
daemon:x:1:
tty:x:5:
staff:x:50:app,other
seventyseven:x:77:
video:x:44:app
app:x:1000:
other:x:1001:
nogroup:x:65534:
"""

DIRECTORIES = {
    "bin": 0o755,
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "home/app": 0o755,
    "proc": 0o555,
    "root": 0o700,
    "run": 0o755,
    "sys": 0o555,
    "tmp": 0o1777,
    "usr": 0o755,
    "usr/bin": 0o755,
    "var": 0o755,
    "var/tmp": 0o1777,
}


def busybox() -> str:
    """The path of a statically linked busybox; raises FileNotFoundError if there is none."""
    for path in BUSYBOX:
        if os.path.exists(path):
            with open(path, "rb") as file:
                if b"/ld-" not in file.read(4096):  # it names no program interpreter
                    return path
    raise FileNotFoundError("no static busybox: install the package busybox-static")


def build(target: str) -> str:
    """Fill the new directory `target` with a root filesystem; returns `target`.

    It has every applet of busybox, most as symbolic links, `sh`, `sleep` and `true` as hard
    links; users root, app (1000, in staff and video), other, and one whose name is a number.
    """
    os.mkdir(target, 0o755)
    for name, mode in DIRECTORIES.items():
        path = os.path.join(target, name)
        os.mkdir(path)
        os.chmod(path, mode)  # whatever the umask
    program = os.path.join(target, "bin", "busybox")
    shutil.copyfile(busybox(), program)
    os.chmod(program, 0o755)
    names = subprocess.run([program, "--list"], stdout=subprocess.PIPE, text=True, check=True)
    for name in names.stdout.split():
        link = os.path.join(target, "bin", name)
        if name == "busybox":
            continue
        if name in ("sh", "sleep", "true"):
            os.link(program, link)
        else:
            os.symlink("busybox", link)
    write(target, "etc/passwd", PASSWD)
    write(target, "etc/group", GROUP)
    write(target, "etc/hostname", "from-the-rootfs\n")
    write(target, "etc/notexec", "#!/bin/sh\necho never\n")
    if os.geteuid() == 0:
        os.chown(os.path.join(target, "home/app"), 1000, 1000)
    return target


def write(target: str, name: str, text: str, mode: int = 0o644) -> str:
    """Put a file into the rootfs at `target`; returns its path on the host."""
    path = os.path.join(target, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)
    return path
