"""Builds the real llama-server, the libraries of llama_cpp and the tiny model for tests: `python -m tests.llama.build`.

The source is the `llama-cpp-python` source distribution, which carries all of llama.cpp, at one exact version and
hash. One build makes the server and the shared libraries beside it; the distribution's Python package `llama_cpp`,
which needs no compiling, is put there too (`tests.llama.package` makes it importable). All of it lands in the user's
cache folder (`~/.cache/tradent/llama/<version>-shared`), where every checkout finds it, and is kept: a second run does
nothing, unless what writes the model has changed, whose hash is in the model's name.
Exit 0 when all is there, 1 with the reason and what to do when not.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

from tests.llama import tiny

VERSION = "0.3.36"
SDIST = f"llama_cpp_python-{VERSION}.tar.gz"
SDIST_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tradent" / "llama" / f"{VERSION}-shared"
BUILT = CACHE / "built"
SERVER = BUILT / ("llama-server.exe" if os.name == "nt" else "llama-server")
PACKAGES = BUILT / "python"
MODEL = CACHE / f"tiny-{hashlib.sha256(Path(tiny.__file__).read_bytes()).hexdigest()[:8]}.gguf"

_DOWNLOAD_LIMIT_S = 600
_BUILD_LIMIT_S = 2700
_FLAGS = {
    "CMAKE_BUILD_TYPE": "Release",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_SERVER": "ON",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "BUILD_SHARED_LIBS": "ON",
    "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
    "CMAKE_INSTALL_RPATH": "@loader_path" if sys.platform == "darwin" else "$ORIGIN",
    "GGML_NATIVE": "OFF",
    "GGML_OPENMP": "OFF",
}


class CannotBuild(Exception):
    """The build cannot be done here; the message says what to do."""


def built() -> bool:
    """Whether server and model are both there."""
    return SERVER.is_file() and MODEL.is_file()


def main() -> int:
    """Build what is missing. Returns the exit status."""
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        if not SERVER.is_file():
            _require_tools()
            with tempfile.TemporaryDirectory(dir=CACHE, prefix="build-") as folder:
                _build_server(Path(folder))
        if not MODEL.is_file():
            tiny.write_model(MODEL)
    except CannotBuild as error:
        _say(f"llama-server was not built: {error}")
        return 1
    _say(f"llama-server {VERSION}, its libraries and its tiny model are in {CACHE}")
    return 0


def _require_tools() -> None:
    missing = [] if shutil.which("cmake") else ["cmake"]
    compilers = [os.environ.get("CXX", ""), "c++", "g++", "clang++", "cl"]
    if not any(shutil.which(name) for name in compilers if name):
        missing.append("a C++ compiler")
    if missing:
        raise CannotBuild(
            f"{' and '.join(missing)} not found; install them (Debian, Ubuntu: apt-get install cmake g++ make; "
            "Fedora: dnf install cmake gcc-c++ make; macOS: xcode-select --install, brew install cmake) and run again"
        )


def _build_server(folder: Path) -> None:
    unpacked = _unpack(_download(folder), folder)
    source, out = unpacked / "vendor" / "llama.cpp", folder / "out"
    _say("configuring")
    flags = [f"-D{key}={value}" for key, value in _FLAGS.items()]
    _run(["cmake", "-S", str(source), "-B", str(out), *flags], 300, "cmake cannot configure llama.cpp")
    jobs = os.cpu_count() or 2
    _say(f"compiling with {jobs} jobs; about six minutes on two cores")
    command = ["cmake", "--build", str(out), "--config", "Release", "--target", "llama-server", "-j", str(jobs)]
    _run(command, _BUILD_LIMIT_S, "llama.cpp does not compile here")
    found = [path for path in (out / "bin").rglob(SERVER.name) if path.is_file()]
    if not found:
        raise CannotBuild(f"the build left no {SERVER.name}")
    staged = folder / "staged"
    shutil.copytree(found[0].parent, staged, symlinks=True)
    shutil.copytree(unpacked / "llama_cpp", staged / PACKAGES.name / "llama_cpp")
    staged.replace(BUILT)


def _download(folder: Path) -> Path:
    _say(f"downloading {SDIST} (76 MB)")
    command = [
        _python_with_pip(folder), "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--no-binary", "llama-cpp-python", "--dest", str(folder), f"llama-cpp-python=={VERSION}",
    ]  # fmt: skip
    _run(command, _DOWNLOAD_LIMIT_S, "the source cannot be downloaded; check the network and pip's settings")
    archive = folder / SDIST
    with archive.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != SDIST_SHA256:
        raise CannotBuild(f"{SDIST} has SHA-256 {digest}, expected {SDIST_SHA256}; it is not the published file")
    return archive


def _python_with_pip(folder: Path) -> str:
    """This interpreter where it has pip, else a throwaway environment that does."""
    if importlib.util.find_spec("pip") is not None:
        return sys.executable
    environment = folder / "pip"
    venv.create(environment, with_pip=True)
    return str(environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


def _unpack(archive: Path, folder: Path) -> Path:
    _say("unpacking")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / SDIST.removesuffix(".tar.gz")


def _run(command: Sequence[str], limit_s: float, failure: str) -> None:
    """Run a command, saying every tenth per cent it reports; its last lines are shown when it fails."""
    log = Path(tempfile.mkstemp(dir=CACHE, prefix="log-")[1])
    try:
        with log.open("w") as stream:
            process = subprocess.Popen(
                command, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
            )
            status = _wait(process, log, limit_s)
        if status is None:
            raise CannotBuild(f"{failure} within {limit_s:.0f} s; run again on a quieter machine")
        if status != 0:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
            raise CannotBuild(f"{failure} (exit {status}):\n{tail}")
    finally:
        log.unlink(missing_ok=True)


def _wait(process: subprocess.Popen[bytes], log: Path, limit_s: float) -> int | None:
    shown = 0
    try:
        for _ in range(int(limit_s)):
            try:
                return process.wait(1)
            except subprocess.TimeoutExpired:
                reported = re.findall(r"^\[ *(\d+)%\]", log.read_text(errors="replace"), re.MULTILINE)
                if reported and int(reported[-1]) >= shown + 10:
                    shown = int(reported[-1]) // 10 * 10
                    _say(f"  {shown} %")
        return None
    finally:
        if process.poll() is None:
            if os.name == "posix":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.wait()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
