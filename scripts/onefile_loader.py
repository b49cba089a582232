"""The importer of the one-file build: the modules of one bytecode tree, found by offset.

`zipimport` reads the whole directory of the archive before it finds the first module, which costs
more than most of our imports together; here the build has written down where everything is.

Run by the header (onefile_start.py) with these names among its globals: `archive`, the open file;
`path`, its absolute name; `index`, {module: (is a package, offset of the code, size)}.
"""

import marshal
import posix
import sys
from _frozen_importlib import ModuleSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import FileIO
    from types import CodeType, ModuleType
    from typing import Optional, Sequence

    archive: FileIO
    path: str
    index: dict[str, tuple[bool, int, int]]


def identity(descriptor: int) -> "tuple[int, int]":
    facts = posix.fstat(descriptor)
    return facts.st_dev, facts.st_ino


def keep(descriptor: int) -> int:
    """A close-on-exec copy, out of the way of those that a caller hands to the container."""
    for number in range(200, 216):
        try:
            posix.fstat(number)
        except OSError:
            try:
                return posix.dup2(descriptor, number, False)
            except OSError:
                break
    return posix.dup(descriptor)


class Finder:
    """Finds and loads what is in `index`, from a descriptor that is held open.

    So the file may be replaced or deleted, and the root directory changed, while we run.
    """

    def __init__(self) -> None:
        self.descriptor = keep(archive.fileno())
        self.identity = identity(self.descriptor)

    def find_spec(
        self, name: str, path: "Optional[Sequence[str]]" = None, target: object = None
    ) -> "Optional[ModuleSpec]":
        found = index.get(name)
        if found is None:
            return None
        spec = ModuleSpec(name, self, origin=self.file(name), is_package=found[0])  # type: ignore[arg-type]
        if found[0]:
            spec.submodule_search_locations = [self.file(name)[: -len("/__init__.py")]]
        return spec

    def create_module(self, spec: "ModuleSpec") -> None:
        return None

    def exec_module(self, module: "ModuleType") -> None:
        name = module.__name__
        module.__file__ = self.file(name)
        exec(self.get_code(name), module.__dict__)

    def file(self, name: str) -> str:
        """Where the source is, as `zipimport` would say it."""
        return path + "/" + name.replace(".", "/") + ("/__init__.py" if index[name][0] else ".py")

    def is_package(self, name: str) -> bool:
        return index[name][0]

    def get_code(self, name: str) -> "CodeType":
        _, offset, size = index[name]
        try:
            held = identity(self.descriptor) == self.identity
        except OSError:
            held = False
        if not held:  # somebody closed what he did not open
            self.descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
            if identity(self.descriptor) != self.identity:
                raise ImportError(path + " was replaced while it ran", name=name)
        code: CodeType = marshal.loads(posix.pread(self.descriptor, size, offset))
        return code

    # For tracebacks and pkgutil; the slow way is good enough.
    def get_source(self, name: str) -> "Optional[str]":
        import zipimport

        return zipimport.zipimporter(path).get_source(name)

    def get_data(self, name: str) -> bytes:
        import zipimport

        return zipimport.zipimporter(path).get_data(name)


sys.meta_path.insert(0, Finder())
