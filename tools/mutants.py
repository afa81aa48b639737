"""Finds and applies single flips in Python source, for tools/mutate.py.

A flip changes one node of the syntax tree: an operator, a comparison, a
constant, a rounding, min against max, `and` against `or`. What only a reader
sees is left alone: strings, messages of errors, annotations, decorators.
"""

import ast
import copy
import dataclasses
import fnmatch
import random
from collections.abc import Iterator, Sequence

_BINARY = {
  ast.Add: (ast.Sub,),
  ast.Sub: (ast.Add,),
  ast.Mult: (ast.Add,),
  ast.Div: (ast.Mult,),
  ast.FloorDiv: (ast.Mult, "ceiling"),
  ast.Mod: (ast.FloorDiv,),
  ast.Pow: (ast.Mult,),
  ast.LShift: (ast.RShift,),
  ast.RShift: (ast.LShift,),
  ast.BitAnd: (ast.BitOr,),
  ast.BitOr: (ast.BitAnd,),
  ast.BitXor: (ast.BitOr,),
}
_COMPARE = {
  ast.Lt: ast.LtE,
  ast.LtE: ast.Lt,
  ast.Gt: ast.GtE,
  ast.GtE: ast.Gt,
  ast.Eq: ast.NotEq,
  ast.NotEq: ast.Eq,
  ast.Is: ast.IsNot,
  ast.IsNot: ast.Is,
  ast.In: ast.NotIn,
  ast.NotIn: ast.In,
}
_CALLS = {
  "min": "max",
  "max": "min",
  "minimum": "maximum",
  "maximum": "minimum",
  "floor": "ceil",
  "ceil": "floor",
  "round": "floor",
  "rint": "floor",
  "any": "all",
  "all": "any",
}
_TEXT_METHODS = ("__repr__", "__str__", "__format__")


@dataclasses.dataclass(frozen=True)
class Mutant:
  """One flip: the `variant`-th of the `node`-th node in walking order."""

  file: str
  line: int
  last: int  # the flipped node may span lines
  column: int
  node: int
  variant: int
  text: str  # the line of source, stripped
  change: str

  @property
  def key(self) -> str:
    return f"{self.file}:{self.line}:{self.column} {self.change} | {self.text}"

  def __str__(self):
    return f"{self.file}:{self.line}: {self.change}"


def _children(node: ast.AST) -> Iterator[ast.AST]:
  """Child nodes that compute something."""
  skipped = {"annotation", "returns", "decorator_list", "type_params"}
  if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
    "isinstance",
    "cast",
  ):
    return
  for name, value in ast.iter_fields(node):
    if name not in skipped:
      for child in value if isinstance(value, list) else [value]:
        if isinstance(child, ast.AST):
          yield child


def _walk(node: ast.AST) -> Iterator[ast.AST]:
  if isinstance(node, ast.JoinedStr | ast.Raise | ast.Import | ast.ImportFrom):
    return
  if isinstance(node, ast.FunctionDef) and node.name in _TEXT_METHODS:
    return
  if isinstance(node, ast.Call):
    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
    if name.endswith(("Error", "Warning")) or name == "warn":
      return
  yield node
  for child in _children(node):
    yield from _walk(child)


def _no_number(node: ast.AST) -> bool:
  """True for operands of text, sequences and unions of types."""
  if isinstance(node, ast.BinOp):
    return _no_number(node.left) or _no_number(node.right)
  if isinstance(node, ast.Constant):
    return node.value is None or isinstance(node.value, str)
  return isinstance(
    node, ast.JoinedStr | ast.Tuple | ast.List | ast.Dict | ast.Set
  )


def _binary(node: ast.BinOp) -> list[ast.AST]:
  if _no_number(node):
    return []
  flips: list[ast.AST] = []
  for other in _BINARY.get(type(node.op), ()):
    new = copy.deepcopy(node)
    if other == "ceiling":  # -(-a // b): the rounding, not the quotient
      new.left = ast.UnaryOp(ast.USub(), new.left)
      flips.append(ast.UnaryOp(ast.USub(), new))
    else:
      new.op = other()
      flips.append(new)
  return flips


def flips(node: ast.AST) -> list[ast.AST]:
  """The nodes that may stand in the place of `node`."""
  if isinstance(node, ast.BinOp):
    return _binary(node)
  if isinstance(node, ast.AugAssign) and not _no_number(node.value):
    new = copy.deepcopy(node)
    kinds = _BINARY.get(type(node.op), ())
    if kinds:
      new.op = kinds[0]()
    return [new] if kinds else []
  if isinstance(node, ast.Compare):
    found = []
    for i, op in enumerate(node.ops):
      new = copy.deepcopy(node)
      new.ops[i] = _COMPARE[type(op)]()
      found.append(new)
    return found
  if isinstance(node, ast.BoolOp):
    new = copy.deepcopy(node)
    new.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    return [new]
  if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
    return [copy.deepcopy(node.operand)]
  if isinstance(node, ast.Constant):
    if type(node.value) is int:
      return [ast.Constant(node.value + d) for d in (1, -1)]
    if type(node.value) is float:
      return [ast.Constant(2 * node.value if node.value else 1.0)]
  if isinstance(node, ast.Call):
    new = copy.deepcopy(node)
    name = getattr(node.func, "id", getattr(node.func, "attr", None))
    if isinstance(node.func, ast.Name) and name == "round":
      new.func = ast.Name("int", ast.Load())  # there is no builtin floor
      return [new]
    if name in _CALLS:
      field = "id" if isinstance(node.func, ast.Name) else "attr"
      setattr(new.func, field, _CALLS[name])
      return [new]
  return []


def find(source: str, file: str) -> list[Mutant]:
  """All mutants of one file, in walking order."""
  lines = source.splitlines()
  found = []
  for i, node in enumerate(_walk(ast.parse(source))):
    for variant, new in enumerate(flips(node)):
      before, after = ast.unparse(node), ast.unparse(new)
      found.append(
        Mutant(
          file=file,
          line=node.lineno,
          last=node.end_lineno,
          column=node.col_offset,
          node=i,
          variant=variant,
          text=lines[node.lineno - 1].strip(),
          change=f"{before} -> {after}",
        )
      )
  return found


class _Replace(ast.NodeTransformer):
  def __init__(self, old: ast.AST, new: ast.AST):
    self._old, self._new = old, new

  def visit(self, node: ast.AST) -> ast.AST:
    return self._new if node is self._old else super().generic_visit(node)


def apply(source: str, mutant: Mutant) -> str:
  """The source with the flip; comments are lost, they change nothing."""
  tree = ast.parse(source)
  node = next(n for i, n in enumerate(_walk(tree)) if i == mutant.node)
  new = flips(node)[mutant.variant]
  ast.copy_location(new, node)
  tree = _Replace(node, new).visit(tree)
  return ast.unparse(ast.fix_missing_locations(tree)) + "\n"


def without(
  found: list[Mutant], entries: list[dict]
) -> tuple[list[Mutant], list[dict]]:
  """(mutants that are no listed equivalents, entries that fit none)."""
  for entry in entries:
    if not entry["reason"].strip():
      raise ValueError(f"an equivalent mutant needs a reason: {entry}")
  kept, used = [], []
  for mutant in found:
    fits = [e for e in entries if _is_listed(mutant, e)]
    used += fits
    if not fits:
      kept.append(mutant)
  return kept, [e for e in entries if e not in used]


def _is_listed(mutant: Mutant, entry: dict) -> bool:
  """Whether an entry names the mutant; `column` only where a line has two."""
  return (mutant.file, mutant.text, mutant.change) == (
    *(entry["file"], entry["line"], entry["change"]),
  ) and entry.get("column", mutant.column) == mutant.column


def sample(
  found: list[Mutant], count: int, seed: int, patterns: Sequence[str] = ("*",)
) -> list[Mutant]:
  """Up to `count` mutants, one per node, in an order given by the seed."""
  places: dict[tuple[str, int], list[Mutant]] = {}
  for mutant in found:
    places.setdefault((mutant.file, mutant.node), []).append(mutant)
  rng = random.Random(seed)
  order = sorted(places)
  rng.shuffle(order)
  # All are drawn before any is dropped: a pattern gives part of the sample
  # without it, and their results fit together.
  drawn = [rng.choice(places[place]) for place in order]
  fits = lambda m: any(fnmatch.fnmatch(m.file, p) for p in patterns)
  return [m for m in drawn if fits(m)][:count]
