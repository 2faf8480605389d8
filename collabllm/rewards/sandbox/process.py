"""Start a process in a tier, watch its limits, and end it with all that it started."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from collabllm.rewards.sandbox import bubblewrap
from collabllm.rewards.sandbox.inside.start import Job
from collabllm.rewards.sandbox.memory import disk_in_use, make_group, memory_in_use
from collabllm.rewards.sandbox.tier import (
    Limits,
    Tier,
    has_hidden_folders,
    new_user_id,
    readable_paths,
)

_START = Path(__file__).with_name("inside") / "start.py"
_TAIL_BYTES, _STATUS_BYTES = 8000, 4 * 2**20
_LOOK_EVERY_S, _END_WAIT_S = 0.1, 10.0
_JOIN = 'for file in $1; do echo $$ > "$file" || exit 1; done; shift; exec "$@"'
_ONE_THREAD = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB_MAXIMUM", "RAYON", "TBB")


class SandboxFailedError(RuntimeError):
    """The sandbox did not come up; it says nothing about the program."""


class Process:
    """One process in a sandbox. Use as a context: leaving it ends everything.

    Attributes:
        output: The end of what it printed.
        status: The lines that it sent on the status pipe, "ready" first.
        ended_by: None, or which limit ended it.
    """

    def __init__(
        self,
        tier: Tier,
        role: str,
        task: dict[str, Any],
        limits: Limits,
        pipes: Sequence[int] = (),
    ) -> None:
        self.tier, self.limits = tier, limits
        self.output, self.status = b"", b""
        self.ended_by: str | None = None
        self._role, self._task, self._pipes = role, task, tuple(pipes)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Process":
        with contextlib.ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, stack: contextlib.ExitStack) -> None:
        user_id = new_user_id()
        folder = bubblewrap.FOLDER
        if not self.tier.own_root:
            folder = tempfile.mkdtemp(prefix="collabllm-")
            stack.callback(_remove, folder)
            if user_id is not None:
                os.chown(folder, user_id, user_id)
        self.folder = folder
        self.group = make_group(self.limits)
        if self.group:
            stack.callback(self.group.remove)
        status_out, status_in = os.pipe()
        output_out, output_in = os.pipe()
        for handle in (status_out, output_out):
            os.set_blocking(handle, False)
            stack.callback(os.close, handle)
        job = self._job(folder, user_id, status_in)
        command = self.tier.command(self.limits, readable_paths())
        command += [sys.executable, "-I", "-X", "utf8", str(_START)]
        if self.group:
            files = " ".join(map(str, self.group.files))
            command = ["/bin/sh", "-c", _JOIN, "sh", files, *command]
        self.popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output_in,
            stderr=subprocess.STDOUT,
            env=_environment(folder),
            cwd="/",
            start_new_session=True,
            pass_fds=(status_in, *self._pipes),
        )
        stack.callback(self._end)
        for handle in (status_in, output_in):
            os.close(handle)
        self.status_fd, self.output_fd = status_out, output_out
        assert self.popen.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.popen.stdin.write(json.dumps(job).encode())
            self.popen.stdin.close()

    def _job(self, folder: str, user_id: int | None, status_fd: int) -> Job:
        limits = self.limits
        processes = limits.processes
        if user_id is None and not self.tier.own_root:  # the limit counts all the user's processes
            processes += _num_own_threads()
        return Job(
            role=self._role,
            task=self._task,
            folder=folder,
            readable=readable_paths(),
            limits={
                "cpu_s": limits.cpu_s,
                "address_bytes": limits.address_bytes,
                "file_bytes": limits.file_bytes,
                "processes": processes,
            },
            user_id=user_id,
            see_hidden_folders=not self.tier.own_root and has_hidden_folders(),
            supervise=not self.tier.own_root,
            landlock=self.tier.landlock,
            seccomp=self.tier.seccomp,
            own_network=self.tier.own_root or not self.tier.landlock,
            status_fd=status_fd,
        )

    def check_limits(self) -> None:
        """End the process if it holds more memory or disk than it may."""
        limits, pid = self.limits, self.popen.pid
        if self.group:
            too_much = self.group.has_overflowed()
        else:
            too_much = memory_in_use(pid) > limits.memory_bytes
        if too_much:
            self.ended_by = "memory"
        elif not self.tier.own_root and disk_in_use(self.folder, pid) > limits.disk_bytes:
            self.ended_by = "disk"
        if self.ended_by:
            self._end()

    def lines(self) -> Iterator[Any]:
        """Yield what it sent on the status pipe after "ready", JSON a line.

        Raises:
            SandboxFailedError: If it was never ready.
        """
        first, *rest = self.status.split(b"\n")
        if first != b"ready":
            told = (first or self.output).decode(errors="replace").strip()
            raise SandboxFailedError(f"{self.tier.name}: {told[-500:] or 'it did not start'}")
        for line in rest:
            with contextlib.suppress(ValueError):
                yield json.loads(line)

    def _end(self) -> None:
        # Without a process namespace a supervisor ends the rest; see inside/start.py.
        if self.popen.poll() is None:
            if self.tier.own_root:  # the group, since bwrap's child outlives it while it sets up
                os.killpg(self.popen.pid, signal.SIGKILL)
            else:
                self.popen.terminate()
        try:
            self.popen.wait(_END_WAIT_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait()


def watch(main: Process, others: Sequence[Process], wall_s: float) -> bool:
    """Read what processes say until the main one ends; return False if time was up first."""
    deadline = time.monotonic() + wall_s
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        for process in (main, *others):
            for name in ("status", "output"):
                selector.register(
                    getattr(process, f"{name}_fd"), selectors.EVENT_READ, (process, name)
                )
        if hasattr(os, "pidfd_open"):
            handle = os.pidfd_open(main.popen.pid)
            stack.callback(os.close, handle)
            selector.register(handle, selectors.EVENT_READ, None)
        next_look = time.monotonic() + _LOOK_EVERY_S
        while main.popen.poll() is None:
            now = time.monotonic()
            if now >= deadline:
                return False
            if now >= next_look:
                for process in (main, *others):
                    process.check_limits()
                next_look = time.monotonic() + _LOOK_EVERY_S
            for key, _ in selector.select(min(deadline, next_look) - now):
                if key.data:
                    process, name = key.data
                    if not _read(process, name, key.fd):
                        selector.unregister(key.fd)
        for process, name in [key.data for key in selector.get_map().values() if key.data]:
            while _read(process, name, getattr(process, f"{name}_fd")):
                pass
    return True


def _read(process: Process, name: str, handle: int) -> bool:
    try:
        data = os.read(handle, 65536)
    except BlockingIOError:
        return False
    if name == "output":
        process.output = (process.output + data)[-_TAIL_BYTES:]
    elif len(process.status) < _STATUS_BYTES:
        process.status += data
    return bool(data)


def _remove(folder: str) -> None:
    """Delete a folder by `rm`, which goes to any depth; `shutil.rmtree` calls itself at each."""
    for command in (["rm", "-rf"], ["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
        if os.path.lexists(folder):
            subprocess.run([*command, "--", folder], stderr=subprocess.DEVNULL, check=False)


def _environment(folder: str) -> dict[str, str]:
    own = {"HOME": folder, "TMPDIR": folder, "MPLCONFIGDIR": folder, "MPLBACKEND": "Agg"}
    own |= {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "USER": "sandbox", "LOGNAME": "sandbox"}
    own |= {f"{name}_NUM_THREADS": "1" for name in _ONE_THREAD}
    # Says which kernels of OpenBLAS are right for this processor.
    return own | {k: v for k, v in os.environ.items() if k == "OPENBLAS_CORETYPE"}


def _num_own_threads() -> int:
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid == os.geteuid():
                total += len(list((folder / "task").iterdir()))
    return total
