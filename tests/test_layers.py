"""The order of the packages, read from the source."""

import ast
import collections
import importlib
import pathlib
import pkgutil
import types
from collections.abc import Iterator

import pytest

import jaxnmc

PACKAGE = pathlib.Path(jaxnmc.__file__).resolve().parent
FILES = sorted(PACKAGE.rglob("*.py"))

# Lowest first. A module may import its own layer and those before it.
LAYERS = (
  ("errors", "_extras", "_compat", "_version"),
  ("numerics", "kernels"),
  ("ops",),
  ("models", "quantize", "compress", "spike"),
  ("chip", "io", "train", "evaluate", "zoo"),
  ("report", "edge", "cli", "__main__", "__init__"),
)
RANK = {name: i for i, layer in enumerate(LAYERS) for name in layer}
# The rooms of the machine, lowest first.
CHIP = (
  ("hardware", "neurons"),
  ("network",),
  ("other_chips", "placement", "schedule", "synapses", "systems"),
  ("routing",),
  ("counting",),
  ("circuits", "costs", "engines", "outline"),
  ("learning",),
  ("presets", "__init__"),
)

# `import jaxnmc` and `from jaxnmc import load` ask for the public namespace,
# which is built last.
TOP = "__init__"
MAX_LINES = 500
PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib"}
PICKLES |= {"shelve", "marshal"}


def _name(path: pathlib.Path) -> str:
  return str(path.relative_to(PACKAGE.parent))


def _tree(path: pathlib.Path) -> ast.Module:
  return ast.parse(path.read_text(encoding="utf-8"), filename=_name(path))


def _member(path: pathlib.Path) -> str:
  """The first name below jaxnmc: a subpackage, a module or `__init__`."""
  first = path.relative_to(PACKAGE).parts[0]
  return first.removesuffix(".py")


def _imports(path: pathlib.Path) -> Iterator[tuple[int, str]]:
  """Line and dotted name of each import, also those inside functions."""
  package = path.relative_to(PACKAGE.parent).with_suffix("").parts[:-1]
  for node in ast.walk(_tree(path)):
    if isinstance(node, ast.Import):
      for alias in node.names:
        yield node.lineno, alias.name
    elif isinstance(node, ast.ImportFrom):
      base = node.module or ""
      if node.level:
        above = package[: len(package) - node.level + 1]
        base = ".".join((*above, base)).rstrip(".")
      for alias in node.names:
        yield node.lineno, f"{base}.{alias.name}"


def _imported_member(dotted: str) -> str | None:
  """Which member of jaxnmc an import asks for; None if it is another's."""
  parts = dotted.split(".")
  if parts[0] != "jaxnmc":
    return None
  if len(parts) > 1:
    below = PACKAGE / parts[1]
    if below.is_dir() or below.with_suffix(".py").is_file():
      return parts[1]
  return TOP


def test_every_member_has_a_layer():
  members = {_member(path) for path in FILES}
  assert members - RANK.keys() == set(), "say in LAYERS where they belong"


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_lower_never_imports_upper(path):
  rank = RANK[_member(path)]
  wrong = [
    f"{_name(path)}:{line} imports {dotted}"
    for line, dotted in _imports(path)
    if (member := _imported_member(dotted)) is not None
    and RANK.get(member, len(LAYERS)) > rank
  ]
  assert wrong == []


def test_packages_do_not_import_in_a_circle():
  edges = collections.defaultdict(set)
  for path in FILES:
    here = _member(path)
    for _, dotted in _imports(path):
      there = _imported_member(dotted)
      if there is not None and there != here:
        edges[here].add(there)
  done: set[str] = set()

  def visit(name: str, trail: tuple[str, ...]) -> None:
    assert name not in trail, " -> ".join((*trail, name))
    if name not in done:
      for other in sorted(edges[name]):
        visit(other, (*trail, name))
      done.add(name)

  for name in sorted(edges):
    visit(name, ())


def _room(name: str) -> str | None:
  """The room of the machine that a dotted name is in."""
  parts = name.split(".")
  if parts[:2] != ["jaxnmc", "chip"] or len(parts) < 3:
    return None
  return parts[2]


def test_rooms_of_the_machine_are_in_order():
  rank = {name: i for i, rooms in enumerate(CHIP) for name in rooms}
  files = [path for path in FILES if _member(path) == "chip"]
  wrong = []
  for path in files:
    here = path.relative_to(PACKAGE / "chip").parts[0].removesuffix(".py")
    assert here in rank, f"say in CHIP where {here} belongs"
    for line, dotted in _imports(path):
      there = _room(dotted)
      # A name that jaxnmc.chip exports is no room.
      if there in rank and there != here and rank[there] >= rank[here]:
        wrong.append(f"{_name(path)}:{line} imports {dotted}")
  assert len(files) > 50
  assert wrong == []


def test_the_library_stands_alone():
  outside = {"experiments", "tests", "tools"}
  wrong = [
    f"{_name(path)}:{line} imports {dotted}"
    for path in FILES
    for line, dotted in _imports(path)
    if dotted.split(".")[0] in outside
  ]
  assert wrong == []


def test_unstable_jax_only_in_compat():
  wrong = [
    f"{_name(path)}:{line} imports {dotted}"
    for path in FILES
    if path != PACKAGE / "_compat.py"
    for line, dotted in _imports(path)
    if dotted.startswith(("jax.extend", "jax.experimental", "jax._src"))
    or dotted.split(".")[0] == "jaxlib"
  ]
  for path in FILES:
    if path == PACKAGE / "_compat.py":
      continue
    # `jax.experimental.x` also works by attribute, once anyone imported it.
    wrong += [
      f"{_name(path)}:{node.lineno} uses jax.{node.attr}"
      for node in ast.walk(_tree(path))
      if isinstance(node, ast.Attribute)
      and node.attr in ("extend", "experimental", "_src")
      and isinstance(node.value, ast.Name)
      and node.value.id == "jax"
    ]
  assert wrong == []


def test_no_pickle():
  wrong = []
  for path in FILES:
    wrong += [
      f"{_name(path)}:{line} imports {dotted}"
      for line, dotted in _imports(path)
      if dotted.split(".")[0] in PICKLES
    ]
    # numpy writes and reads pickles unless it is told not to.
    wrong += [
      f"{_name(path)}:{node.value.lineno} passes allow_pickle"
      for node in ast.walk(_tree(path))
      if isinstance(node, ast.keyword)
      and node.arg == "allow_pickle"
      and not (
        isinstance(node.value, ast.Constant) and node.value.value is False
      )
    ]
  assert wrong == []


def test_no_public_function_hides_a_subpackage():
  below = {module.name for module in pkgutil.iter_modules(jaxnmc.__path__)}
  public = {name for name in dir(jaxnmc) if not name.startswith("_")}
  public |= set(getattr(jaxnmc, "__all__", ()))
  for name in sorted(below & public):
    module = importlib.import_module(f"jaxnmc.{name}")
    value = getattr(jaxnmc, name)
    assert isinstance(value, types.ModuleType), name
    assert value is module, name


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_files_stay_small(path):
  lines = len(path.read_text(encoding="utf-8").splitlines())
  assert lines <= MAX_LINES, f"{_name(path)}: one idea per file"
