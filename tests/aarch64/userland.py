"""Builds the userland of a 64-bit ARM device: Debian's Python, and edgetune as pip installs it.

Everything comes from Debian (apt verifies its signatures) and PyPI (pinned by device.lock). Nothing
is installed on this machine: apt works in a folder of its own, packages are unpacked, not set up.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / "build" / "aarch64"
LOCK = CHECKOUT / "requirements" / "device.lock"
DEBIAN = "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Releases of Debian, which are those of Raspberry Pi OS: their Python and their C library.
RELEASES = {"bookworm": ("3.11", (2, 36)), "trixie": ("3.13", (2, 41))}
DEFAULT_RELEASE = "bookworm"
QEMU_RELEASE = "bookworm"  # the emulator stays the same, whatever it runs
QEMU = "qemu-aarch64-static"
_PIP_RETRIES = "Retrying (Retry("  # its warning that a registry was not reached
_BUILT, _INSTALLED = "built.txt", "installed.sha256"  # stamps, written last


class UnavailableError(Exception):
    """The userland cannot be built here: a tool is missing, or a registry was not reached."""


@dataclass(frozen=True)
class Userland:
    """One built userland: `root` is its /, `site` holds the packages of PyPI and edgetune."""

    release: str
    folder: Path

    @property
    def version(self) -> str:
        """Of its Python: "3.11"."""
        return RELEASES[self.release][0]

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def site(self) -> Path:
        return self.root / "opt" / "site"

    @property
    def qemu(self) -> Path:
        return self.folder / QEMU


def build(wheel: Path, release: str = DEFAULT_RELEASE) -> Userland:
    """The userland of `release` with edgetune from `wheel`, built as far as it is not there yet.

    Raises UnavailableError, RuntimeError when `wheel` cannot be installed on ARM.
    """
    userland = Userland(release, FOLDER / release)
    digest = _digest(wheel, release)
    built = userland.folder / _BUILT
    if not built.is_file() or not built.read_text().startswith(digest):
        FOLDER.mkdir(parents=True, exist_ok=True)
        new = Userland(release, FOLDER / f".{release}.new")
        shutil.rmtree(new.folder, ignore_errors=True)
        packages = _unpack_debian(new)
        packages += _install_wheels(new, wheel)
        (new.folder / _BUILT).write_text("\n".join([digest, *packages, ""]))
        shutil.rmtree(userland.folder, ignore_errors=True)
        new.folder.rename(userland.folder)
    _install_edgetune(userland, wheel)
    return userland


def platform_tags(release: str) -> list[str]:
    """The wheels that a device of `release` takes: `manylinux_2_17_aarch64` to its C library."""
    major, minor = RELEASES[release][1]
    return [f"manylinux_{major}_{n}_aarch64" for n in range(minor, 16, -1)]


def _digest(wheel: Path, release: str) -> str:
    """Of what decides the content, edgetune's own code excepted."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    requirements = [line for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    parts = [release, *requirements, LOCK.read_text(), Path(__file__).read_text()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _unpack_debian(userland: Userland) -> list[str]:
    """Debian's Python below `root`, and qemu beside it; returns the packages' file names."""
    for tool in ("apt-get", "dpkg", "dpkg-deb", "tar"):
        if shutil.which(tool) is None:
            raise UnavailableError(f"{tool} is not here: run it on Debian or the like")
    if not KEYRING.is_file():
        raise UnavailableError(f"{KEYRING} is not here: apt install debian-archive-keyring")
    apt = _private_apt(userland)
    here = _run("dpkg", "--print-architecture").strip()
    apt("update")
    debs = userland.folder / "debs"
    debs.mkdir()
    apt("download", f"qemu-user-static:{here}", cwd=debs)
    (emulator,) = debs.iterdir()
    _unpack(emulator, userland.folder, f"./usr/bin/{QEMU}")
    shutil.move(userland.folder / "usr" / "bin" / QEMU, userland.qemu)
    shutil.rmtree(userland.folder / "usr")
    python = f"python{userland.version}"
    wanted = (f"{python}-minimal", f"lib{python}-stdlib", "libstdc++6")
    apt("install", "--yes", "--download-only", "--no-install-recommends", *wanted)
    archives = sorted((userland.folder / "apt" / "archives").glob("*.deb"))
    userland.root.mkdir()
    for name in ("bin", "lib"):  # as in every Debian since bookworm, before anything is unpacked
        (userland.root / "usr" / name).mkdir(parents=True)
        (userland.root / name).symlink_to(f"usr/{name}")
    for archive in archives:
        _unpack(archive, userland.root)
    for folder in ("doc", "man", "locale"):
        shutil.rmtree(userland.root / "usr" / "share" / folder, ignore_errors=True)
    names = [emulator.name, *(archive.name for archive in archives)]
    shutil.rmtree(debs)
    shutil.rmtree(userland.folder / "apt")
    return names


def _private_apt(userland: Userland) -> Apt:
    """An apt that knows one ARM machine with nothing on it, and this machine for the emulator."""
    here = _run("dpkg", "--print-architecture").strip()
    folder = userland.folder / "apt"
    for name in ("state/lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    architectures = {userland.release: ["arm64"]}
    architectures.setdefault(QEMU_RELEASE, []).append(here)
    (folder / "sources.list").write_text(
        "".join(
            f"deb [arch={','.join(names)} signed-by={KEYRING}] {DEBIAN} {release} main\n"
            for release, names in architectures.items()
        )
    )
    (folder / "apt.conf").write_text(
        f"""\
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}";
Dir::Cache::archives "{folder}/archives";
Dir::Etc::SourceList "{folder}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
#clear APT::Architectures;
APT::Architecture "arm64";
APT::Architectures {{ "arm64"; "{here}"; }};
APT::Update::Error-Mode "any";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Debug::NoLocking "true";
"""
    )
    return Apt(folder / "apt.conf")


@dataclass(frozen=True)
class Apt:
    """apt-get with its own configuration, which is read before anything else."""

    configuration: Path

    def __call__(self, *arguments: str, cwd: Path | None = None) -> None:
        options = ["apt-get", "-qq", "-c", str(self.configuration)]
        _run(*options, *arguments, cwd=cwd)


def _install_wheels(userland: Userland, wheel: Path) -> list[str]:
    """What edgetune's wheel asks for, as pip resolves it there; returns names and versions."""
    tags = [f"--platform={tag}" for tag in platform_tags(userland.release)]
    there = [f"--python-version={userland.version}", "--implementation=cp", *tags]
    _pip_install(userland, *there, "--only-binary=:all:", "-c", str(LOCK), f"{wheel}[device]")
    found = [path.name.removesuffix(".dist-info") for path in userland.site.glob("*.dist-info")]
    return sorted(name for name in found if not name.startswith("edgetune-"))


def _install_edgetune(userland: Userland, wheel: Path) -> None:
    """Replace edgetune alone, when its code has changed."""
    stamp = userland.folder / _INSTALLED
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == digest:
        return
    stamp.unlink(missing_ok=True)
    for old in userland.site.glob("edgetune*"):
        shutil.rmtree(old)
    _pip_install(userland, "--no-deps", "--no-index", "--upgrade", str(wheel))
    stamp.write_text(digest)


def _pip_install(userland: Userland, *arguments: str) -> None:
    options = ["-q", "--disable-pip-version-check", "--root-user-action=ignore"]
    target = ["--target", str(userland.site)]
    _run(sys.executable, "-m", "pip", "install", *options, *target, *arguments)


def _unpack(archive: Path, folder: Path, *members: str) -> None:
    """Unpack a .deb, or some of it, into `folder`; links to folders there stay links."""
    tar = ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(folder), *members]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", archive], stdout=subprocess.PIPE) as deb:
        subprocess.run(tar, stdin=deb.stdout, check=True)
    if deb.returncode:
        raise RuntimeError(f"dpkg-deb cannot unpack {archive.name}")


def _run(*command: str, cwd: Path | None = None) -> str:
    """The output of apt, dpkg or pip.

    Raises UnavailableError when it fails, but RuntimeError when pip reached PyPI: then what
    edgetune asks for is not to be had for ARM, which is edgetune's mistake.
    """
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pip = "pip" in command
        message = f"{'pip' if pip else command[0]} failed:\n{_last_lines(done.stderr)}"
        reached = pip and _PIP_RETRIES not in done.stderr
        raise (RuntimeError if reached else UnavailableError)(message)
    return done.stdout


def _last_lines(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if not line.startswith("W:")]
    return "\n".join(f"  {line}" for line in lines[-5:])
