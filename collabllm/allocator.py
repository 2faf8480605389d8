"""Keep glibc from returning large blocks to the system after every use: their pages cost time."""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGEST = 2**31 - 1  # bytes; mallopt takes an int


def keep_large_blocks() -> bool:
    """Let freed tensors stay with this process, so that the next ones need no new pages.

    glibc maps every block over 32 MiB anew and unmaps it when it is freed; a batch's logits are
    larger than that. Memory that was used once stays with the process. Without glibc nothing
    happens.

    Returns:
        Whether it was set.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30) and libc.mallopt(_M_TRIM_THRESHOLD, _LARGEST)
    )
