"""The optional native kernels: found, built once, registered with XLA.

They are C++ for the CPU, compiled on first use by the system's compiler into
the user's cache, and used where they are faster (modules `stack`, `walk`,
`tally` and `program` of `jaxnmc.kernels`). Without a compiler there is one
warning and the XLA formulations compute the same integers. `JAXNMC_NATIVE=0` in
the environment leaves them alone.
"""

import ctypes
import functools
import hashlib
import os
import pathlib
import platform
import shutil
import subprocess
import tempfile
import warnings

import jax

from jaxnmc.errors import UserError

__all__ = ["PATHS", "available", "build", "cache_folder", "path"]

TERNARY, WALK = "jaxnmc_ternary", "jaxnmc_walk"
TALLY, READ = "jaxnmc_tally", "jaxnmc_read"
PROGRAM = "jaxnmc_program"
PATHS = ("plain", "avx2", "avx512vnni", "amx")  # worst first, as in gemm.h
_SYMBOLS = {TERNARY: "JaxnmcTernary", WALK: "JaxnmcWalk"}
_SYMBOLS |= {TALLY: "JaxnmcTally", READ: "JaxnmcRead"}
_SYMBOLS |= {PROGRAM: "JaxnmcProgram"}
_FOLDER = pathlib.Path(__file__).parent
_FLAGS = ("-std=c++17", "-O3", "-shared", "-fPIC", "-w")


def cache_folder() -> pathlib.Path:
  """Where built kernels are kept: `$XDG_CACHE_HOME/jaxnmc`."""
  base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
  return pathlib.Path(base) / "jaxnmc"


def sources() -> tuple[pathlib.Path, ...]:
  """What is compiled."""
  return tuple(sorted(_FOLDER.glob("*.cc")))


def _compiler() -> str | None:
  """The C++ compiler: `$CXX`, c++, g++ or clang++."""
  for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
    found = name and shutil.which(name)
    if found:
      return found
  return None


def _target() -> pathlib.Path:
  """The library that belongs to this source, jaxlib and machine."""
  what = (
    *(p.read_bytes() for p in sorted(_FOLDER.glob("*.[ch]*"))),
    jax.lib.__version__.encode(),
    platform.machine().encode(),
    " ".join(_FLAGS).encode(),
  )
  digest = hashlib.sha256(b"\0".join(what)).hexdigest()[:16]
  return cache_folder() / f"kernels-{digest}.so"


def build() -> pathlib.Path:
  """Compiles the kernels, unless that was done before.

  Returns:
    The library.

  Raises:
    UserError: no compiler, or it failed; the message has its words.
  """
  target = _target()
  if target.exists():
    return target
  compiler = _compiler()
  if compiler is None:
    raise UserError(
      "no C++ compiler found (tried $CXX, c++, g++, clang++); install one, or"
      " do without: the integers are the same, decoding is slower"
    )
  try:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
      fresh = pathlib.Path(folder) / target.name
      include = f"-I{jax.ffi.include_dir()}"
      command = [compiler, *_FLAGS, include, *map(str, sources()), "-o"]
      done = subprocess.run(
        [*command, str(fresh)], capture_output=True, text=True, timeout=300
      )
      if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()
        errors = [w for w in words if "error" in w] or words
        raise UserError(
          f"{compiler} could not build the native kernels:"
          f" {errors[0] if errors else f'exit status {done.returncode}'}"
        )
      # Another process may have built it meanwhile; both are the same.
      os.replace(fresh, target)
  except (OSError, subprocess.TimeoutExpired) as error:
    raise UserError(
      f"the native kernels cannot be built in {target.parent}: {error}"
    ) from error
  return target


@functools.cache
def _library() -> ctypes.CDLL | None:
  """Builds, loads and registers; None where that is not possible."""
  if os.environ.get("JAXNMC_NATIVE") == "0":
    return None
  try:
    library = ctypes.CDLL(str(build()))
    for target, symbol in _SYMBOLS.items():
      handler = jax.ffi.pycapsule(getattr(library, symbol))
      jax.ffi.register_ffi_target(target, handler, platform="cpu")
  except (UserError, OSError, AttributeError) as error:
    warnings.warn(f"jaxnmc: {error}", RuntimeWarning, stacklevel=2)
    return None
  return library


def available() -> bool:
  """Whether the kernels can be used on the default device; may build it."""
  return jax.default_backend() == "cpu" and _library() is not None


def path() -> str | None:
  """The instructions of ternary products (of `PATHS`), None without them."""
  library = _library()
  if library is None:
    return None
  library.JaxnmcTernaryPath.restype = ctypes.c_char_p
  return library.JaxnmcTernaryPath().decode()


@functools.cache
def instructions() -> dict[str, tuple[int, tuple[str, ...]]]:
  """What a program can say: name -> (code, names of its numbers).

  Raises:
    UserError: there are no kernels.
  """
  library = _library()
  if library is None:
    raise UserError("there are no native kernels on this machine")
  library.JaxnmcInstructions.restype = ctypes.c_char_p
  lines = library.JaxnmcInstructions().decode().splitlines()
  words = [line.split() for line in lines]
  return {w[0]: (code, tuple(w[1:])) for code, w in enumerate(words)}
