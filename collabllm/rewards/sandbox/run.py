"""Run code that a model wrote, in a process without network, keys, files or endless time."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import site
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from collabllm.event_loop import run_blocking

_CHILD = Path(__file__).with_name("child.py")
_TAIL_CHARACTERS = 2000
_READ_ONLY = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime")


class SandboxUnavailableError(RuntimeError):
    """This system cannot isolate a program."""


@dataclass(frozen=True)
class Limits:
    """Of one program: seconds, bytes and numbers."""

    wall_s: float = 20.0
    cpu_s: int = 15
    memory_bytes: int = 2 * 2**30
    file_bytes: int = 8 * 2**20
    disk_bytes: int = 64 * 2**20
    processes: int = 32


@dataclass(frozen=True)
class ProgramResult:
    """How a program ended: `finished` is True when it reached its own last line."""

    finished: bool
    exit_status: int | None
    timed_out: bool
    output: str


def run_program(
    program: str, limits: Limits | None = None, *, allow_unsafe: bool = False
) -> ProgramResult:
    """Run a Python program with `python -I` in a sandbox, and tell whether it got to its end.

    The sandbox has its own user, process, network, mount and IPC namespaces (so no network, and no
    process survives), a temporary folder in memory that is all it can write, Landlock rules that
    let it read Python's own files only, limits on time, memory, files and processes, and none of
    the caller's environment.

    Args:
        program: Source text.
        limits: Defaults of `Limits`.
        allow_unsafe: Where the system offers no isolation, run with limits alone.

    Raises:
        SandboxUnavailableError: If there is no isolation and `allow_unsafe` is False.
    """
    limits = limits or Limits()
    if not allow_unsafe:
        check_isolation()
    return _run(program, limits, isolate=isolation_error() is None)


def check_isolation() -> None:
    """Check that programs can be isolated here.

    Raises:
        SandboxUnavailableError: If not.
    """
    error = isolation_error()
    if error is not None:
        raise SandboxUnavailableError(
            f"This system cannot isolate model-written code ({error}). Run on Linux with user "
            "namespaces and Landlock, or insist with --allow_unsafe_code."
        )


async def arun_program(
    program: str, limits: Limits | None = None, *, allow_unsafe: bool = False
) -> ProgramResult:
    """Do as `run_program` does, at most as many at once as there are processors."""
    async with _slots(asyncio.get_running_loop()):
        return await run_blocking(lambda: run_program(program, limits, allow_unsafe=allow_unsafe))


@lru_cache(maxsize=8)
def _slots(loop: asyncio.AbstractEventLoop) -> asyncio.Semaphore:
    return asyncio.Semaphore(os.cpu_count() or 1)


@lru_cache(maxsize=1)
def isolation_error() -> str | None:
    """Return why programs cannot be isolated here, or None where they can, found by trying."""
    if not sys.platform.startswith("linux"):
        return f"no namespaces on {sys.platform}"
    result = _run("pass", Limits(), isolate=True)
    return None if result.finished else result.output.strip() or "no isolation"


def _run(program: str, limits: Limits, isolate: bool) -> ProgramResult:
    token = secrets.token_hex(16)
    # The token proves that the last line was reached: exit() in the middle is not success.
    ended = f"\nimport os as _os\n_os.write(1, b'\\n{token}\\n')\n"
    with (
        tempfile.TemporaryDirectory(prefix="collabllm-") as folder,
        tempfile.TemporaryFile() as out,
    ):
        job = {
            "program": program + ended,
            "folder": folder,
            "read_only": _readable(),
            "limits": asdict(limits),
            "isolate": isolate,
        }
        child = subprocess.Popen(
            [sys.executable, "-I", str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={"PATH": "/usr/bin:/bin"},
            cwd="/",
            start_new_session=True,
        )
        timed_out = False
        try:
            child.communicate(json.dumps(job).encode(), timeout=limits.wall_s)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        out.seek(max(0, out.seek(0, os.SEEK_END) - _TAIL_CHARACTERS))
        output = out.read().decode(errors="replace")
    finished = token in output and child.returncode == 0 and not timed_out
    return ProgramResult(
        finished,
        None if timed_out else child.returncode,
        timed_out,
        output.replace(token, "").strip(),
    )


def _readable() -> list[str]:
    """Return Python's own folders and the system's libraries."""
    folders = {sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parent.parent)}
    folders |= {sysconfig.get_paths()["stdlib"], *site.getsitepackages()}
    return sorted({*folders, *_READ_ONLY})
