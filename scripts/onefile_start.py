# What the header of the one-file build hands to `python3 -c`; build drops the comments.
# It must parse on any Python, however old, and may hold no single quote.
import sys

del sys.argv[0]
if sys.version_info < (3, 9):
    import os

    # Back to the shell, which asks the others for their version first.
    os.environ["MINICONTAINER_PYTHON"] = "newer"
    os.execv("/bin/sh", ["sh"] + sys.argv)
import _frozen_importlib_external

# tag of a bytecode tree: magic number, offset and size of the member that loads it
trees = {}  # @TREES@
magic, start, size = trees.get(sys.implementation.cache_tag, ("", 0, 0))
if magic == _frozen_importlib_external.MAGIC_NUMBER.hex():
    import marshal

    with open(sys.argv[0], "rb", 0) as archive:
        archive.seek(start)
        code, index = marshal.loads(archive.read(size))
        exec(code, {"archive": archive, "path": sys.argv[0], "index": index})
else:
    sys.path.insert(0, sys.argv[0])
try:
    from minicontainer import cli

    cli.main(sys.argv)
except ImportError as failure:
    if failure.name not in ("_ctypes", "ctypes"):
        raise
    sys.stderr.write(
        "Error: %s has no ctypes module: install the full package python3, not python3-minimal\n"
        % sys.executable
    )
    sys.exit(125)
