"""Throwaway environments of the peers, and drivers running in them."""

import json
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from tools.peers.rows import Peer

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


class Missing(Exception):
  """A peer that does not install or run; the message says why, in a line."""


def one_line(text: str, width: int = 200) -> str:
  """The end of an output that says most: its last line with letters."""
  lines = [x.strip() for x in text.splitlines() if re.search("[A-Za-z]", x)]
  told = [x for x in lines if re.match("ERROR|.*(Error|Exception):", x)]
  return (told or lines or ["no output"])[-1][:width]


def _works(python: str) -> bool:
  """A shim may be there for a version that is not."""
  command = [python, "-c", "import venv"]
  try:
    return subprocess.run(command, capture_output=True).returncode == 0
  except OSError:
    return False


def find_python(version: str | None) -> str:
  """An interpreter of a version.

  Raises:
    Missing: there is none on the path.
  """
  if version is None:
    return sys.executable
  name = f"python{version}"
  found = shutil.which(name)
  if found is None or not _works(found):
    raise Missing(f"needs {name}, which is not on the path")
  return found


def _installed(python: pathlib.Path, requires: tuple[str, ...]) -> bool:
  exact = dict(r.split("==") for r in requires if "==" in r)
  code = "import sys; from importlib.metadata import version as v\n"
  code += f"sys.exit(any(v(n) != x for n, x in {exact!r}.items()))"
  run = subprocess.run([python, "-c", code], capture_output=True)
  return run.returncode == 0


def prepare(peer: Peer, folder: pathlib.Path, say=print) -> str:
  """Makes the environment of a peer, unless it is there.

  Args:
    peer: whose.
    folder: environments are made below it.
    say: told what takes long.

  Returns:
    The Python to run the driver with.

  Raises:
    Missing: no such Python, or pip refuses.
  """
  if not peer.requires:
    return sys.executable
  place = (folder / peer.env).absolute()
  python = place / "bin" / "python"
  if python.exists() and _installed(python, peer.requires):
    return str(python)
  say(f"{peer.name}: installing {', '.join(peer.requires)}")
  # `frame` needs numpy, whatever the peer needs.
  wanted = ["numpy", *peer.requires]
  commands = [[str(python), "-m", "pip", "install", "-q", *wanted]]
  if not python.exists():
    base = find_python(peer.python)
    commands.insert(0, [base, "-m", "venv", str(place)])
  for command in commands:
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
      raise Missing(f"does not install: {one_line(run.stderr + run.stdout)}")
  return str(python)


class Driver:
  """A driver that is ready and measures a stretch whenever it is told to.

  Args:
    peer: whose driver.
    python: to run it with.
    arguments: of the driver, see `frame`.
    limit: seconds it may take to get ready, and for a stretch.

  Raises:
    Missing: it does not get ready.
  """

  def __init__(self, peer: Peer, python: str, arguments, limit: float = 600):
    self.peer, self.limit = peer, limit
    self._errors = tempfile.TemporaryFile()
    command = [python, str(HERE / f"{peer.driver}.py"), "--wait"]
    command += ["--variant", peer.variant, *map(str, arguments)]
    # A peer must not see our packages; ours must see this repository.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if not peer.requires:
      environment["PYTHONPATH"] = str(ROOT)
    self._process = subprocess.Popen(
      command,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._errors,
      env=environment,
      # Some peers start processes of their own, to be ended with them.
      start_new_session=True,
    )
    self._rest = b""
    try:
      self.ready = self._line()
    except BaseException:
      self.close()
      raise

  def measure(self) -> dict:
    """The next stretch.

    Raises:
      Missing: the driver failed.
    """
    try:
      self._process.stdin.write(b"go\n")
      self._process.stdin.flush()
    except OSError:
      pass  # it is gone; reading its output says why
    return self._line()

  def _line(self) -> dict:
    stream = self._process.stdout
    end = time.monotonic() + self.limit
    while b"\n" not in self._rest:
      left = end - time.monotonic()
      if left <= 0 or not select.select([stream], [], [], left)[0]:
        raise Missing(f"does not run: nothing after {self.limit:.0f} s")
      more = os.read(stream.fileno(), 65536)
      if not more:
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace")
        raise Missing(f"does not run: {one_line(text)}")
      self._rest += more
    line, self._rest = self._rest.split(b"\n", 1)
    facts = json.loads(line)
    if "error" in facts:
      raise Missing(f"does not run: {facts['error']}")
    return facts

  def close(self) -> None:
    """Ends the driver and what it started."""
    try:
      os.killpg(self._process.pid, signal.SIGKILL)
    except ProcessLookupError:
      pass
    self._process.communicate()
    self._errors.close()
