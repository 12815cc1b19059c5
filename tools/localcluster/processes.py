"""Starts daemons, records them, and ends only the daemons that it started.

Ids are used again, so a process is identified by its id, its start time and the boot. A signal goes through a pidfd
that is opened before the start time is compared. So no other process can get the id between the comparison and the
signal.

Every daemon also has an environment variable that names its plane. Its children inherit it (containerd's shims for
example). So a process is found even if a crash prevented its record. No other program sets this variable.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from localcluster.errors import ClusterError
from localcluster.home import Home

MARKER = "FINETUNE_LOCALCLUSTER_PLANE"
_LAST_LINES = 8


@dataclass(frozen=True)
class Process:
    """A started process: its name, command, id and start time."""

    name: str
    pid: int
    started: int
    """Clock ticks after boot, from /proc."""
    boot: str
    argv: tuple[str, ...]
    env: dict[str, str]

    def is_running(self) -> bool:
        """Returns True when this process runs. Another process with its id, or a zombie, does not count."""
        return self.boot == _boot_id() and start_time(self.pid) == self.started


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """Returns when the process started, in clock ticks after boot, or None when it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in parentheses, with any characters.
    fields = stat.rpartition(")")[2].split()
    state, started = fields[0], fields[19]
    return None if state in "ZX" else int(started)


def start(home: Home, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Process:
    """Starts a daemon in its own session and records it. Its output goes to a file in the logs folder.

    Raises:
        ClusterError: the program does not exist.
    """
    full_env = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(home.root),
        MARKER: str(home.root),
        **(env or {}),
    }
    log = str(log_of(home, name))
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        pid = os.posix_spawn(
            argv[0],
            list(argv),
            full_env,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
    except FileNotFoundError as missing:
        raise ClusterError(f"cannot start {name}: {argv[0]} does not exist") from missing
    process = Process(name, pid, start_time(pid) or 0, _boot_id(), tuple(argv), dict(env or {}))
    path = home.pids / f"{name}.json"
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(process)))
    fresh.replace(path)
    return process


def start_again(home: Home, name: str) -> Process:
    """Starts a daemon that has ended with the same command as before.

    Raises:
        ClusterError: it was never started.
    """
    before = recorded(home, name)
    if before is None:
        raise ClusterError(f"{name} was never started")
    if before.is_running():
        return before
    return start(home, name, before.argv, before.env)


def recorded(home: Home, name: str) -> Process | None:
    """Returns the process that was last started under this name, running or not."""
    try:
        text = (home.pids / f"{name}.json").read_text()
    except FileNotFoundError:
        return None
    fields = json.loads(text)
    return Process(**{**fields, "argv": tuple(fields["argv"])})


def all_recorded(home: Home) -> list[Process]:
    """Returns every recorded process, ordered by name."""
    names = [path.stem for path in sorted(home.pids.glob("*.json"))]
    return [process for name in names if (process := recorded(home, name))]


def forget(home: Home, name: str) -> None:
    """Removes the record of a process that was ended on purpose."""
    (home.pids / f"{name}.json").unlink(missing_ok=True)


def marked(home: Home) -> Iterator[int]:
    """Yields the ids of all running processes with this plane's marker."""
    wanted = f"{MARKER}={home.root}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            environment = (entry / "environ").read_bytes().split(b"\0")
            if wanted in environment and start_time(int(entry.name)) is not None:
                yield int(entry.name)


def stop(process: Process, *, grace: float) -> None:
    """Ends the process: SIGTERM and, after `grace` seconds, SIGKILL. With 0, only SIGKILL.

    Raises:
        ClusterError: it does not end after SIGKILL.
    """
    with _pidfd(process.pid) as fd:
        if fd is None or not process.is_running():
            return
        if grace > 0:
            signal.pidfd_send_signal(fd, signal.SIGTERM)
            if _ended(fd, grace):
                _reap(process.pid)
                return
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        if not _ended(fd, 10):
            raise ClusterError(f"{process.name} (pid {process.pid}) does not end after SIGKILL")
        _reap(process.pid)


def kill(pid: int, started: int | None) -> bool:
    """Sends SIGKILL to the process with this id and start time. Returns False when it has ended already."""
    with _pidfd(pid) as fd:
        if fd is None or started is None or start_time(pid) != started:
            return False
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        _ended(fd, 10)
        _reap(pid)
        return True


def send(pid: int, started: int, number: signal.Signals) -> bool:
    """Sends a signal to the process with this id and start time. Returns False when it has ended already."""
    with _pidfd(pid) as fd:
        if fd is None or start_time(pid) != started:
            return False
        signal.pidfd_send_signal(fd, number)
        return True


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int | None]:
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _ended(fd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _reap(pid: int) -> None:
    """Collects the exit status if the process is a child, so that no zombie stays."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def log_of(home: Home, name: str) -> Path:
    """Returns the log file of a component."""
    return home.logs / f"{name}.log"


def must_run(home: Home, process: Process) -> None:
    """Checks that the component runs.

    Raises:
        ClusterError: it has ended. The message has its last output.
    """
    if process.is_running():
        return
    log = log_of(home, process.name)
    lines = log.read_text(errors="replace").splitlines()[-_LAST_LINES:] if log.exists() else []
    words = "\n".join(f"    {line[:300]}" for line in lines)
    raise ClusterError(f"{process.name} has ended; its last lines ({log}):\n{words}")
