"""What a figure was measured on: hardware, versions, commit. Standard library only."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TICKS_HZ = os.sysconf("SC_CLK_TCK")
PACKAGES = (
    "openvino",
    "onnxruntime",
    "onnxruntime-gpu",
    "numpy",
    "av",
    "aiortc",
    "starlette",
    "uvicorn",
)
BUSY_S = 0.1  # of CPU time that a loop counts for
# Says that it is ready, waits for the word, then counts for a while.
BUSY_LOOP = """
import sys, time
print("ready", flush=True)
sys.stdin.readline()
rounds, end = 0, time.process_time() + float(sys.argv[1])
while time.process_time() < end:
    sum(range(2000))
    rounds += 1
print(rounds)
"""
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def describe() -> dict[str, Any]:
    """Hardware, versions and commit, as the benchmarks' JSON lines hold them."""
    return {"hardware": hardware(), "versions": versions(), "commit": commit()}


def hardware() -> dict[str, Any]:
    """CPU, cores this process may use, what two of them do, memory in GiB, load of the last minute."""
    cpu = _proc_field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()
    flags = set(_proc_field("/proc/cpuinfo", "flags").split())
    memory_kib = _proc_field("/proc/meminfo", "MemTotal").removesuffix("kB").strip()
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return {
        "cpu": cpu,
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "two_against_one": two_against_one(),
        "flags": [name for name in FLAGS if name in flags],
        "memory_gib": round(int(memory_kib) / 2**20, 1) if memory_kib else None,
        "load_1min": round(os.getloadavg()[0], 2),
    }


def two_against_one() -> float:
    """Work of two processes at once, in the CPU time they get, over that of one alone.

    2 where the CPUs are whole cores, nearer to 1 where they are two threads of one; the best of
    three of each, since other programs only ever slow them down.
    """
    rounds = [(sum(_work_done(1)), sum(_work_done(2))) for _ in range(3)]
    alone, together = (max(column) for column in zip(*rounds, strict=True))
    return round(together / alone, 2)


def _work_done(processes: int) -> list[int]:
    """Rounds of a busy loop that each of so many processes turned in `BUSY_S`, begun together."""
    command = [sys.executable, "-S", "-c", BUSY_LOOP, str(BUSY_S)]
    busy = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    for process in busy:
        assert process.stdout
        process.stdout.readline()
    for process in busy:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    return [int(process.communicate()[0]) for process in busy]


def gpus() -> list[dict[str, str]]:
    """Name, driver and memory of each NVIDIA GPU, as its own tool tells; empty without one."""
    asked = ("name", "driver_version", "memory.total")
    command = ["nvidia-smi", f"--query-gpu={','.join(asked)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    rows = [[part.strip() for part in line.split(",")] for line in done.stdout.splitlines()]
    return [dict(zip(("name", "driver", "memory"), row, strict=True)) for row in rows]


def versions() -> dict[str, str]:
    """Python, the system and the packages that matter for speed; missing ones are left out."""
    found = {"python": platform.python_version(), "system": platform.platform(terse=True)}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit of the checkout, with `+changes` when tracked files differ from it."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}+changes" if changed else head


@dataclass(frozen=True, slots=True)
class CpuClock:
    """CPU seconds so far: of the whole machine, idle, and our own."""

    total_s: float
    idle_s: float
    ours_s: float

    def since(self, before: CpuClock) -> CpuShares:
        """How the machine was shared between `before` and now."""
        total_s = self.total_s - before.total_s
        idle_s = self.idle_s - before.idle_s
        ours_s = self.ours_s - before.ours_s
        cores = (os.cpu_count() or 1) / total_s
        return CpuShares(
            idle_cores=round(idle_s * cores, 2),
            ours_cores=round(ours_s * cores, 2),
            others_cores=round(max(0.0, total_s - idle_s - ours_s) * cores, 2),
        )


@dataclass(frozen=True, slots=True)
class CpuShares:
    """Cores that were idle, used by us, and used by anybody else (stolen time included)."""

    idle_cores: float
    ours_cores: float
    others_cores: float


def cpu_clock(root: int | None = None) -> CpuClock:
    """Read the clocks; ours are process `root` (this one) and all that it started."""
    fields = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    ours = sum(_processes_cpu_s(root or os.getpid()))
    return CpuClock(sum(fields) / TICKS_HZ, (fields[3] + fields[4]) / TICKS_HZ, ours)


def process_cpu_s(pid: int) -> float:
    """CPU seconds a process has used, its threads included; 0 when it is gone."""
    try:
        return _read_stat(pid)[1]
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def _processes_cpu_s(root: int) -> list[float]:
    """CPU seconds of `root` and of every living process below it."""
    parents: dict[int, tuple[int, float]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = _read_stat(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile
    found, below = [], {root}
    while below:
        found += [parents[pid][1] for pid in below if pid in parents]
        below = {pid for pid, (parent, _) in parents.items() if parent in below}
    return found


def _read_stat(pid: int) -> tuple[int, float]:
    """Parent and CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS_HZ


def print_header(title: str, about: dict[str, Any]) -> None:
    """Print what `describe` found, for people."""
    machine = about["hardware"]
    packages = " ".join(f"{name} {number}" for name, number in about["versions"].items())
    print(title)
    print(
        f"  {machine['cpu']}, {machine['cores']} cores ({' '.join(machine['flags'])}), "
        f"two at once do {machine['two_against_one']} times the work of one, "
        f"{machine['memory_gib']} GiB, load {machine['load_1min']}"
    )
    print(f"  {packages}")
    print(f"  commit {about['commit']}")


def _git(*args: str) -> str:
    done = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _proc_field(path: str, name: str) -> str:
    """The value of the first `name: value` line of a /proc file; empty when there is none."""
    try:
        text = Path(path).read_text()
    except OSError:
        return ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def print_json(result: dict[str, Any], out: Path | None) -> None:
    """Print a result as the one line that ends a benchmark, and write it to `out` too, if given."""
    line = json.dumps(result)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(line + "\n")
    print(line)
