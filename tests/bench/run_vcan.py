"""Run tests/bench/vcan where there are virtual CAN interfaces: here, or inside User-Mode Linux; never a silent skip.

    python tests/bench/run_vcan.py [--way auto|native|uml] [--time-limit SECONDS] [-- PYTEST ARGUMENTS]

Natively the bench has a network namespace of its own, with its own vcan0 and vcan1: it neither sees nor touches other
interfaces, and nothing is left behind.  User-Mode Linux is a kernel that runs as an ordinary process, and here it has
the host's files as its own; it needs no root and no KVM.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
TOOLS = ("can-utils", "tshark", "iproute2", "kmod")
UML_PACKAGES = ("user-mode-linux", "busybox-static")
UML_MODULES = "/usr/lib/uml/modules"
MEMORY_MIB = 1024
TIME_LIMIT_S = 900
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The link's MTU is that of CAN FD; sysfs is mounted anew to show this namespace's interfaces.
BENCH = """#!/bin/sh
set -eu
mount -t sysfs sysfs /sys
ip link set lo up
for name in vcan0 vcan1; do
    ip link add dev $name type vcan
    ip link set $name mtu 72 up
done
cd {checkout}
exec {python} -m pytest -p no:cacheprovider -vv --tb=short --durations=5 {arguments}
"""

# Modules are looked for below {scratch}, so that the host's /lib/modules stays as it is.  Its console is con0;
# behind the pipe pytest sees no terminal, and writes plain lines.
INIT = """#!/bin/sh
exec >/dev/tty1 2>&1
export PATH={search} HOME={scratch} LANG=C.UTF-8 TERM=dumb TMPDIR={scratch}/tmp PYTHONUNBUFFERED=1
mount -t proc proc /proc
mount -t tmpfs tmpfs {scratch}/tmp
modprobe -d {scratch} -a vcan can-raw can-gw
{{ sh {scratch}/bench.sh; echo $? >{scratch}/exit_code; }} 2>&1 | cat
busybox poweroff -f
"""


def main() -> int:
    """Run the bench and give pytest's exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--way", choices=("auto", "native", "uml"), default="auto", help="where to run")
    parser.add_argument("--time-limit", type=float, default=TIME_LIMIT_S, metavar="SECONDS", help="for all of it")
    parser.add_argument("arguments", nargs="*", help="for pytest, after --")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # being told to end ends what was started, too

    need(*TOOLS)
    obstacle = "not asked for" if options.way == "uml" else native_obstacle()
    if obstacle and options.way == "native":
        sys.exit(f"The vcan bench cannot run here: {obstacle}.")
    with tempfile.TemporaryDirectory(prefix="vcan-bench-") as made:
        scratch = Path(made)
        arguments = options.arguments
        if not any(argument.startswith("tests") for argument in arguments):
            arguments = ["tests/bench/vcan", *arguments]
        write(scratch / "bench.sh", BENCH, python=sys.executable, arguments=arguments)
        if not obstacle:
            say("The vcan bench runs natively, in a network namespace of its own.")
            return asyncio.run(run([*namespace(), "sh", str(scratch / "bench.sh")], options.time_limit))
        say(f"The vcan bench runs inside User-Mode Linux (natively: {obstacle}).")
        need(*UML_PACKAGES)
        return in_uml(scratch, options.time_limit)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def need(*packages: str) -> None:
    """Have these Debian packages installed, or end with what to install."""
    if subprocess.run([CHECKOUT / ".ci" / "need", *packages], check=False).returncode:
        sys.exit("The vcan bench cannot run here: packages are missing.")


def write(path: Path, script: str, **values: str | Path | list[str]) -> None:
    """Write a shell script with these values, quoted."""
    quoted = {
        name: shlex.join(value) if isinstance(value, list) else shlex.quote(str(value))
        for name, value in {**values, "checkout": CHECKOUT}.items()
    }
    path.write_text(script.format_map(quoted))
    path.chmod(0o755)


def namespace() -> list[str]:
    """The command in front of another that gives it a network of its own."""
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", "--net", "--mount", *as_root]


def native_obstacle() -> str:
    """Why this kernel cannot run the bench itself; empty if it can."""
    if os.geteuid() == 0:  # an ordinary user's `ip link add` has the kernel load it, where that is allowed
        subprocess.run(["modprobe", "-a", "-q", "vcan", "can-raw"], capture_output=True, check=False)
    try:
        socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW).close()
    except OSError as error:
        return f"no CAN sockets: {error.strerror}"
    attempt = ["sh", "-c", "mount -t sysfs sysfs /sys && ip link add dev vcan0 type vcan"]
    tried = subprocess.run([*namespace(), *attempt], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"no virtual CAN interface: {tried.stderr.strip() or tried.returncode}"
    return ""


def in_uml(scratch: Path, time_limit_s: float) -> int:
    """Boot User-Mode Linux with the bench as its only program."""
    (scratch / "tmp").mkdir()
    (scratch / "lib").mkdir()
    (scratch / "lib" / "modules").symlink_to(UML_MODULES)
    write(scratch / "init.sh", INIT, scratch=scratch, search=PATH)
    # User-Mode Linux is several processes that hand one thread of work to and fro: on one CPU it is three times as fast
    # as on two.  The plant's deadlines are real time: where we may, we go before what else this machine does.
    command = ["taskset", "-c", str(max(os.sched_getaffinity(0)))]
    command += ["nice", "-n", "-20"] if os.geteuid() == 0 else []
    command += ["linux.uml", f"mem={MEMORY_MIB}M", "rootfstype=hostfs", "rootflags=/", "rw", "quiet"]
    command += [f"init={scratch}/init.sh", f"uml_dir={scratch}/", "con=null", "con0=null,fd:2", "con1=null,fd:1"]
    environment = {**os.environ, "TMPDIR": str(memory_folder(scratch))}
    console = scratch / "console"
    with console.open("wb") as stderr:
        asyncio.run(run(command, time_limit_s, environment, stderr.fileno()))
    try:
        return int((scratch / "exit_code").read_text())
    except (FileNotFoundError, ValueError):
        sys.stderr.write(console.read_text(errors="replace"))
        sys.exit("The vcan bench cannot run here: User-Mode Linux ended early, with what is above.")


def memory_folder(scratch: Path) -> Path:
    """Where the kernel's memory is kept: containers often have a small /dev/shm."""
    shared = Path("/dev/shm")  # noqa: S108 - where Linux keeps shared memory
    roomy = shared.is_dir() and shutil.disk_usage(shared).free > MEMORY_MIB * 1024 * 1024
    return shared if roomy else scratch


async def run(
    command: list[str], time_limit_s: float, environment: dict[str, str] | None = None, stderr: int | None = None
) -> int:
    """Run a command in a process group of its own, pass on what it prints as it comes, and give its exit code."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT if stderr is None else stderr,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(time_limit_s):
            while chunk := await process.stdout.read(65536):
                sys.stdout.buffer.write(chunk.replace(b"\r\n", b"\n"))
                sys.stdout.buffer.flush()
            return await process.wait()
    except TimeoutError:
        sys.exit(f"The vcan bench was ended: it took longer than {time_limit_s:g} s.")
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("The vcan bench was interrupted.")
