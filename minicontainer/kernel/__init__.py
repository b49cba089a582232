"""The door: every act that changes the machine is a name of this module.

    from minicontainer import kernel
    kernel.mount("proc", target, "proc", kernel.MS_NOSUID | kernel.MS_NODEV)

Always by attribute: `trace` rebinds the names here, a copied one would escape it.  The door knows
the kernel's interface and no policy: encode, call, return.  Paths are `str`, None is NULL, every
descriptor it makes is close-on-exec.  A failure is an `OSError` (of the right subclass) with
`call`, the call as strace would write it, and `detail` where the kernel explains itself.
A kernel or C library without a call gives ENOSYS; what to do then is decided above.

    libc        prototypes and encoding       acts       the calls of `os`
    mounting    mounts, contexts, openat2     signals    by number, signalfd
    processes   namespaces, capabilities      terminals  ioctl_tty(2)
    sockets     Unix sockets, flock           decode     calls as text
    constants, sysno (generated)              procfs, netlink: modules of their own
"""

from __future__ import annotations

from minicontainer.kernel.acts import *  # noqa: F403
from minicontainer.kernel.constants import *  # noqa: F403
from minicontainer.kernel.mounting import *  # noqa: F403
from minicontainer.kernel.processes import *  # noqa: F403
from minicontainer.kernel.signals import *  # noqa: F403
from minicontainer.kernel.sockets import *  # noqa: F403
from minicontainer.kernel.terminals import *  # noqa: F403

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select


def poll() -> select.poll:
    """A poll object. poll(2)"""
    import select

    return select.poll()
