"""System calls that no program needs here, refused by a filter in the kernel (seccomp).

They get round the other walls (io_uring opens sockets, memfd hides memory, a new user namespace has
all capabilities) or reach other processes. Numbers are for x86-64 and arm64; elsewhere there is
no filter, and the middle tier does not count as isolation.
"""

import ctypes
import errno
import platform
import struct

_ARCHS = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER_MODE = 38, 22, 2
_LOAD, _AND, _JUMP_EQUAL, _JUMP_GE, _JUMP_BITS, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEW*: user, pid, net, ipc, uts, mount, cgroup
_CLONE, _CLONE3, _PRLIMIT, _SOCKETPAIR = (56, 220), 435, (302, 261), (53, 199)
_STREAM, _SEQPACKET, _TYPE_BITS = 1, 5, 0xF

# name: number on x86-64, on arm64 (None: does not exist there)
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "syslog": (103, 116),
    "quotactl": (179, 60),
    "acct": (163, 89),
}
_SOCKET: dict[str, tuple[int | None, int | None]] = {"socket": (41, 198)}
# Landlock does not see these either. A program is told that the file system has none.
_ATTRIBUTES: dict[str, tuple[int | None, int | None]] = {
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "setxattrat": (463, 463),
    "removexattrat": (466, 466),
}
# Landlock does not see these; with the user's own id they would reach all of the user's files. They
# do nothing and report success, since shutil.copy and others stop at an error.
_PRETENDED: dict[str, tuple[int | None, int | None]] = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
}


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def install(*, refuse_sockets: bool, pretend_modes: bool) -> None:
    """Filter this process's system calls from now on, and its children's.

    Args:
        refuse_sockets: No socket at all (pairs that stay connected and pipes work).
        pretend_modes: Changes of modes, owners and times do nothing and report success.

    Raises:
        OSError: If the kernel or the processor has no such filter.
    """
    if platform.machine() not in _ARCHS:
        raise OSError(errno.ENOSYS, f"no system call filter for {platform.machine()}")
    code = build_filter(platform.machine(), refuse_sockets, pretend_modes)
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(code) // 8, code)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _FILTER_MODE, ctypes.byref(program), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "seccomp")


def build_filter(machine: str, refuse_sockets: bool, pretend_modes: bool) -> bytes:
    """Return the filter's instructions (classic BPF, 8 bytes each)."""
    audit_arch, column = _ARCHS[machine]
    refused = _REFUSED | (_SOCKET if refuse_sockets else {})
    answers = [(numbers[column], errno.EPERM) for numbers in refused.values()]
    answers += [(_CLONE3, errno.ENOSYS)]  # its flags cannot be read here; libc falls back to clone
    if pretend_modes:
        answers += [(numbers[column], 0) for numbers in _PRETENDED.values()]
    answers += [(numbers[column], errno.ENOTSUP) for numbers in _ATTRIBUTES.values()]
    code = [
        (_LOAD, 0, 0, 4),  # architecture
        (_JUMP_EQUAL, 1, 0, audit_arch),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # number of the call
        (_JUMP_GE, 0, 1, 0x40000000),  # the x32 variants
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]
    for number, answer in answers:
        if number is not None:
            code += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | answer)]
    code += _pairs_stay_connected(_SOCKETPAIR[column]) if refuse_sockets else []
    code += [
        (_JUMP_EQUAL, 0, 3, _CLONE[column]),
        (_LOAD, 0, 0, 16),  # first argument: flags
        (_JUMP_BITS, 0, 1, _NEW_NAMESPACES),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_LOAD, 0, 0, 0),
        (_JUMP_EQUAL, 0, 3, _PRLIMIT[column]),
        (_LOAD, 0, 0, 16),  # first argument: whose limits; 0 is the caller
        (_JUMP_EQUAL, 1, 0, 0),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


def _pairs_stay_connected(number: int) -> list[tuple[int, int, int, int]]:
    """Refuse pairs of datagram sockets: each can send to any address that it names."""
    return [
        (_JUMP_EQUAL, 0, 6, number),
        (_LOAD, 0, 0, 24),  # second argument: type and flags
        (_AND, 0, 0, _TYPE_BITS),
        (_JUMP_EQUAL, 2, 0, _STREAM),
        (_JUMP_EQUAL, 1, 0, _SEQPACKET),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_LOAD, 0, 0, 0),
    ]
