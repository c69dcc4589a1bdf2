"""`plaudit vm build`: the image of a guest, from Debian's packages and this environment's own.

- The root disk: Debian with Python, bubblewrap, libseccomp and the toolchains of the languages that are asked for, and
  the sandbox with what it imports (`OWN_PACKAGES`), copied from this environment. It is a compressed file that is only
  ever read; what a guest writes lies in its memory.
- The kernel is Debian's. The initial disk has the modules that it needs to find the root disk and the wire.
- Nothing of plaudit's service is in it: no key, no client of Redis, no weights.
- An image is made beside its folder and moved there when it is whole.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from plaudit.languages import resolve
from sandbox.errors import SandboxError
from sandbox.harness import PYTEST_PACKAGES, code_digest
from sandbox.language_specs import BY_NAME, EXTRAS
from sandbox.vm_image import FORMAT, INITRD, KERNEL, MANIFEST, ROOT

TOOLS = {  # program → the Debian package that has it
    "mmdebstrap": "mmdebstrap",
    "mksquashfs": "squashfs-tools",
    "cpio": "cpio",
    "dpkg-deb": "dpkg",
}
BUSYBOX = Path("/bin/busybox")  # of the package busybox-static: it runs where there is no C library
BASE_PACKAGES = ("python3", "bubblewrap", "libseccomp2")
KERNEL_PACKAGE = "linux-image-cloud-amd64"
MODULES = (  # in the order in which they are loaded
    *("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci"),
    *("rng-core", "virtio-rng", "virtio_blk", "virtio_console", "squashfs"),
)
OWN_PACKAGES = ("msgspec", "pyseccomp", *PYTEST_PACKAGES)  # beside `sandbox` and `plaudit`
OWN_FOLDER = "opt/plaudit"
NOT_NEEDED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/lib/apt/lists", "var/cache/apt")
SQUASHFS_OPTIONS = ("-comp", "zstd", "-Xcompression-level", "3", "-noappend", "-quiet", "-no-progress")
BUILD_S = 3600.0
# Run by mmdebstrap with the root folder as its argument. The package is not installed: only its files are needed.
DOWNLOAD_KERNEL = f"""#!/bin/sh
set -e
mkdir "$1/kernel"
name=$(chroot "$1" apt-cache depends {KERNEL_PACKAGE} | awk '/Depends: linux-image-/ {{print $2; exit}}')
chroot "$1" sh -c "cd /kernel && apt-get download -o APT::Sandbox::User=root $name"
"""

# The first process of the initial disk: it loads modules, mounts the root disk and starts the next one.
INITRD_INIT = """#!/bin/busybox sh
busybox mount -t devtmpfs dev /dev
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
for module in {modules}; do busybox insmod /modules/$module.ko || echo "module $module is not loaded"; done
tries=0
while [ ! -b /dev/vda ] && [ $tries -lt 600 ]; do busybox usleep 50000; tries=$((tries + 1)); done
busybox mount -t squashfs -o ro /dev/vda /root || {{ echo "the root disk cannot be mounted"; busybox reboot -f; }}
for folder in dev proc sys; do busybox mount --move /$folder /root/$folder; done
exec busybox switch_root /root /{own}/init
"""
# The first process of the guest: it mounts what has to be written to, starts the agent, and ends the guest after it.
ROOT_INIT = """#!/bin/sh
mount="/{own}/busybox mount"
$mount -t tmpfs -o mode=755,size=128m run /run
$mount -t tmpfs -o mode=1777,size=128m tmp /tmp
mkdir -p /dev/pts /dev/shm
$mount -t devpts pts /dev/pts
$mount -t tmpfs -o mode=1777,size=16m shm /dev/shm
$mount -t cgroup2 cgroup2 /sys/fs/cgroup
cd /
PYTHONPATH=/{own} PYTHONDONTWRITEBYTECODE=1 LANG=C.UTF-8 /usr/bin/python3 -s -P -m sandbox.vm.guest
echo "the guest's agent ended with exit code $?"
/{own}/busybox reboot -f
"""


def build_image(
    folder: Path,
    languages: Sequence[str] = ("python",),
    *,
    suite: str = "bookworm",
    sources: str | None = None,
    extras: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Make an image. Takes some minutes and needs root, because files of a root disk belong to root.

    Args:
        folder: where to; an image that is there is replaced.
        languages: those whose toolchains the guest gets, by name or alias.
        suite: the release of Debian. Its Python must be of this environment's version.
        sources: a mirror's URL or a file of apt sources; this host's own where it is of the same release.
        extras: copy this host's `/usr/local/lib/plaudit` (packages for Python programs, TypeScript).
        say: called with a line for each step.

    Raises:
        SandboxError: a tool is missing or a step failed.
        UnsupportedLanguage: a language is unknown.
    """
    names = tuple(dict.fromkeys(("python", *(resolve(language) for language in languages))))
    require_tools()
    if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise SandboxError(f"{folder} is there and is no image: name another folder, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as work:
        root, image = Path(work, "root"), Path(work, "image")
        image.mkdir()
        packages = (*BASE_PACKAGES, *toolchain_packages(names))
        say(f"Debian {suite} with {', '.join(packages)}")
        make_root(root, packages, suite, sources if sources is not None else own_sources(suite))
        say("kernel and initial disk")
        release = make_kernel(root, image)
        copy_own(root)
        if extras:
            copy_extras(root)
        say("root disk")
        for path in NOT_NEEDED:
            shutil.rmtree(root / path, ignore_errors=True)
        run_step(["mksquashfs", str(root), str(image / ROOT), *SQUASHFS_OPTIONS])
        manifest = {
            "format": FORMAT,
            "code": code_digest().hex(),
            "suite": suite,
            "kernel": release,
            "languages": list(names),
            "sha256": {name: file_digest(image / name) for name in (KERNEL, INITRD, ROOT)},
        }
        (image / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        for place in (image, *image.iterdir()):
            place.chmod(0o755 if place.is_dir() else 0o644)
        shutil.rmtree(folder, ignore_errors=True)
        image.rename(folder)
    say(f"{folder}: {sum(path.stat().st_size for path in folder.iterdir()) // (1 << 20)} MB")


def require_tools() -> None:
    """Raises SandboxError naming everything that is missing here."""
    lacks = [] if os.geteuid() == 0 else ["root, because the files of a root disk belong to root"]
    if platform.machine() != "x86_64":
        lacks.append(f"an x86-64 host, not {platform.machine()}")
    packages = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if not BUSYBOX.exists():
        packages.append("busybox-static")
    if packages:
        lacks.append(f"the packages {' '.join(packages)} (apt-get install {' '.join(packages)})")
    if lacks:
        raise SandboxError(f"an image cannot be built here, missing: {'; '.join(lacks)}")


def toolchain_packages(names: Sequence[str]) -> list[str]:
    """Debian's packages of languages; of `a|b` the first, which is what the releases that are supported have."""
    wanted = [
        package.split("|")[0] for name in names for package in (*BY_NAME[name].packages, *BY_NAME[name].libraries)
    ]
    return list(dict.fromkeys(wanted))


def own_sources(suite: str) -> str:
    """This host's sources of packages, if it is of this release; otherwise nothing, and mmdebstrap's default mirror."""
    place = Path("/etc/apt/sources.list.d/debian.sources")
    try:
        release = Path("/etc/os-release").read_text()
    except OSError:
        return ""
    return str(place) if f"VERSION_CODENAME={suite}" in release and place.is_file() else ""


def make_root(root: Path, packages: Sequence[str], suite: str, sources: str) -> None:
    """Install Debian into a folder, and download the kernel's package into its `/kernel`."""
    hook = root.parent / "download-kernel"
    hook.write_text(DOWNLOAD_KERNEL)
    hook.chmod(0o755)
    excluded = [f"--dpkgopt=path-exclude=/{path}/*" for path in NOT_NEEDED if path.startswith("usr/share")]
    run_step(
        [
            *("mmdebstrap", "--mode=root", "--variant=apt", f"--include={','.join(packages)}", *excluded),
            *(f"--customize-hook={hook}", suite, str(root), *([sources] if sources else [])),
        ]
    )
    guest_python = run_step(["chroot", str(root), "/usr/bin/python3", "-c", "import sys; print(*sys.version_info[:2])"])
    own = " ".join(map(str, sys.version_info[:2]))
    if guest_python != own:
        raise SandboxError(
            f"Debian {suite} has Python {guest_python.replace(' ', '.')} and this environment {own.replace(' ', '.')}, "
            "so packages cannot be copied: choose a --suite with the same version"
        )


def make_kernel(root: Path, image: Path) -> str:
    """Take the kernel out of its package; returns its release."""
    unpacked = root.parent / "kernel"
    package = next((root / "kernel").glob("*.deb"), None)
    if package is None:
        raise SandboxError(f"{KERNEL_PACKAGE} was not downloaded")
    run_step(["dpkg-deb", "--extract", str(package), str(unpacked)])
    shutil.rmtree(root / "kernel")
    kernel = next((unpacked / "boot").glob("vmlinuz-*"))
    shutil.copy(kernel, image / KERNEL)
    release = kernel.name.removeprefix("vmlinuz-")
    make_initrd(unpacked / "lib" / "modules" / release, image / INITRD)
    return release


def make_initrd(modules: Path, target: Path) -> None:
    """The initial disk: a shell, the modules, and the script that mounts the root disk."""
    found = {module.name.split(".")[0]: module for module in modules.rglob("*.ko")}
    loaded = [name for name in MODULES if name in found]  # what is not a module is part of the kernel
    disk = target.parent.parent / "initrd"
    for name in ("bin", "dev", "proc", "sys", "root", "modules"):
        (disk / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, disk / "bin" / "busybox")
    for name in loaded:
        shutil.copy(found[name], disk / "modules" / f"{name}.ko")
    init = disk / "init"
    init.write_text(INITRD_INIT.format(modules=" ".join(loaded), own=OWN_FOLDER))
    init.chmod(0o755)
    names = "\n".join(sorted(str(path.relative_to(disk)) for path in disk.rglob("*")))
    with target.open("wb") as archive:
        run_step(["cpio", "--create", "--format=newc", "--quiet"], cwd=disk, text=names, stdout=archive)


def copy_own(root: Path) -> None:
    """Copy the sandbox, what it imports, and the init script."""
    target = root / OWN_FOLDER
    target.mkdir(parents=True)
    for name in ("sandbox", "plaudit", *OWN_PACKAGES):
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            raise SandboxError(f"the package {name!r} is not installed; pip install 'plaudit-server[executor]'")
        origin = Path(spec.origin)
        if spec.submodule_search_locations is None:
            shutil.copy2(origin, target)
            continue
        shutil.copytree(origin.parent, target / name, ignore=shutil.ignore_patterns("__pycache__", "models"))
    for name in ("pytest", "msgspec"):  # whose versions are asked for
        for file in importlib.metadata.files(name) or []:
            if file.name == "METADATA":
                place = target / file.parent
                place.mkdir(exist_ok=True)
                shutil.copy2(Path(str(file.locate())), place)
    shutil.copy(BUSYBOX, target / "busybox")
    init = target / "init"
    init.write_text(ROOT_INIT.format(own=OWN_FOLDER))
    init.chmod(0o755)
    compiled = [sys.executable, "-m", "compileall", "-q", "-s", str(root), str(target)]
    run_step(compiled)


def copy_extras(root: Path) -> None:
    """Copy the packages that programs can import beside the toolchains' own."""
    extras = Path(EXTRAS)
    if not extras.is_dir():
        raise SandboxError(f"{extras} is not on this host; run .ci/toolchains, or leave --extras out")
    shutil.copytree(extras, root / str(extras).lstrip("/"), symlinks=True, dirs_exist_ok=True)


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_step(
    command: list[str], *, cwd: Path | None = None, text: str | None = None, stdout: IO[bytes] | int = subprocess.PIPE
) -> str:
    """Run a tool to its end; returns what it printed. Raises SandboxError with its last words."""
    done = subprocess.run(
        command,
        cwd=cwd,
        input=None if text is None else text.encode(),
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=BUILD_S,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()[-1000:]
        raise SandboxError(f"{command[0]} failed with exit code {done.returncode}: {said}")
    return (done.stdout or b"").decode("utf-8", "replace").strip()
