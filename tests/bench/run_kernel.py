"""Run tests/bench/kernel inside QEMU on a Debian kernel with CAN_ISOTP and real CAN controller drivers; never a skip.

    python tests/bench/run_kernel.py [--time-limit SECONDS] [--figures FILE] [-- PYTEST ARGUMENTS]

The guest has two Kvaser PCI controllers on one emulated bus (can0 and can1, driver kvaser_pci on sja1000, transmit
queue of 10 frames) and vcan0 for CAN FD, and sees the host's files read-only.  It needs no root and no KVM.  QEMU does
not model the bit rate: this bench is for drivers and kernel behaviour.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("qemu-system-x86", "linux-image-amd64", "can-utils", "iproute2", "kmod")
TIME_LIMIT_S = 480
MEMORY = "1G"
CPUS = 2
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENDED = "The kernel bench ended with exit code "
FIGURE = "FIGURE "
"""What begins a line with a figure for docs/bench.md."""

QEMU = (
    "-object can-bus,id=bus0 -device kvaser_pci,canbus=bus0 -device kvaser_pci,canbus=bus0 "
    # The host's files once more, cached: reading Python's modules takes a third of the time.
    "-virtfs local,path=/,mount_tag=cached,security_model=none,readonly=on,multidevs=remap"
)

GUEST = """#!/bin/sh
set -eu
export PATH={search} HOME=/tmp LANG=C.UTF-8 TERM=dumb PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
echo "The guest is up after $(cut -d' ' -f1 /proc/uptime) s: Linux $(uname -r)."
modprobe -a can-raw can-isotp vcan kvaser_pci
ip link set lo up
ip link add dev vcan0 type vcan
ip link set vcan0 mtu 72 up
for name in can0 can1; do
    ip link set $name type can bitrate 500000
    ip link set $name up
done
mkdir /tmp/host
mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000 cached /tmp/host
for folder in proc sys dev run tmp; do
    mount --rbind /$folder /tmp/host/$folder
done
code=0
chroot /tmp/host sh -c {command} </dev/null 2>&1 || code=$?
echo "{ended}$code."
exit $code
"""


def main() -> int:
    """Run the bench and give pytest's exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--time-limit", type=float, default=TIME_LIMIT_S, metavar="SECONDS", help="for all of it")
    parser.add_argument("--figures", type=Path, metavar="FILE", help="write the measured figures there, too")
    parser.add_argument("arguments", nargs="*", help="for pytest, after --")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # being told to end ends what was started, too

    if subprocess.run([CHECKOUT / ".ci" / "need", *PACKAGES], check=False).returncode:
        sys.exit("The kernel bench cannot run here: packages are missing.")
    kernel = newest_kernel()
    vng = Path(sys.executable).parent / "vng"
    if not vng.exists():
        sys.exit(f"The kernel bench cannot run here: {vng} is missing. `pip install -e '.[dev]'` brings virtme-ng.")
    arguments = options.arguments
    if not any(argument.startswith("tests") for argument in arguments):
        arguments = ["tests/bench/kernel", *arguments]
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-vv", "--durations=8", *arguments]
    bench = f"cd {shlex.quote(str(CHECKOUT))} && exec {shlex.join(pytest)}"
    with tempfile.TemporaryDirectory(prefix="kernel-bench-") as scratch:
        script = Path(scratch) / "guest.sh"
        script.write_text(GUEST.format(search=PATH, command=shlex.quote(bench), ended=ENDED))
        command = [str(vng), "--disable-kvm", "--run", str(kernel), "--cpus", str(CPUS), "--memory", MEMORY]
        command += ["--user", "root", f"--qemu-opts={QEMU}", "--", f"sh {shlex.quote(str(script))}"]
        lines = asyncio.run(run(command, options.time_limit))
    if options.figures is not None:
        figures = [line.removeprefix(FIGURE) for line in lines if line.startswith(FIGURE)]
        options.figures.write_text("".join(f"{figure}\n" for figure in figures))
    for line in lines:
        if ended := re.fullmatch(re.escape(ENDED) + r"(\d+)\.", line):
            return int(ended[1])
    sys.exit("The kernel bench cannot run here: the guest ended early, with what is above.")


def newest_kernel() -> Path:
    """The newest installed kernel that is readable and has its modules."""
    kernels = sorted(
        Path("/boot").glob("vmlinuz-*-amd64"), key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)]
    )
    for kernel in reversed(kernels):
        release = kernel.name.removeprefix("vmlinuz-")
        if os.access(kernel, os.R_OK) and Path("/lib/modules", release, "modules.dep").exists():
            return kernel
    sys.exit(
        "The kernel bench cannot run here: no readable /boot/vmlinuz-*-amd64 with its modules.dep below /lib/modules. "
        "`sudo apt-get install linux-image-amd64`, or `sudo depmod RELEASE` for the one that is there."
    )


async def run(command: list[str], time_limit_s: float) -> list[str]:
    """Run a command in a session of its own, pass on what it prints as it comes, and give those lines."""
    environment = {**os.environ, "PATH": f"{Path(command[0]).parent}:{PATH}"}  # vng looks for its own parts there
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    printed = bytearray()
    try:
        async with asyncio.timeout(time_limit_s):
            while chunk := await process.stdout.read(65536):
                chunk = chunk.replace(b"\r", b"")
                printed += chunk
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
            await process.wait()
    except TimeoutError:
        sys.exit(f"The kernel bench was ended: it took longer than {time_limit_s:g} s.")
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return printed.decode(errors="replace").splitlines()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("The kernel bench was interrupted.")
