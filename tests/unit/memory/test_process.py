"""What the system says of a process's memory."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_trainer.memory.process import memory_limit_bytes, peak_process_bytes


def test_a_container_has_its_own_limit(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:       24576000 kB\nMemFree:          100000 kB\n")
    assert memory_limit_bytes(tmp_path) == 24576000 * 1024
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    assert memory_limit_bytes(tmp_path) == 24576000 * 1024
    (group / "memory.max").write_text("4294967296\n")
    assert memory_limit_bytes(tmp_path) == 4 << 30


def test_nothing_is_known_elsewhere(tmp_path: Path) -> None:
    assert memory_limit_bytes(tmp_path) is None
    assert peak_process_bytes(tmp_path / "status") is None


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_the_peak_is_the_processes_own() -> None:
    """A small child of a large parent says a small number, and remembers what it has given back."""
    ballast = bytearray(os.urandom(1 << 20) * 200)
    code = (
        "from finetune_trainer.memory.process import peak_process_bytes as peak\n"
        "before = peak(); held = bytearray(b'x' * (64 << 20)); del held; print(before, peak())"
    )
    path = os.pathsep.join(sys.path)
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, check=True)
    before, after = map(int, done.stdout.split())
    assert before < len(ballast)
    assert after - before > 60 << 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the setting")
def test_memory_that_is_freed_need_not_come_from_the_system_again() -> None:
    code = (
        "import resource, sys\n"
        "from finetune_trainer.memory.process import keep_freed_memory\n"
        "if sys.argv[1] == 'kept': assert keep_freed_memory()\n"
        "def step(): return [bytearray(b'x' * (20 << 20)) for _ in range(8)]\n"
        "step()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(4): step()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )

    def faults(mode: str) -> int:
        env = {"PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", code, mode], env=env, capture_output=True, check=True)
        return int(done.stdout)

    assert faults("kept") < faults("given back") / 4
