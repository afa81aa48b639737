"""tools/mutate.py: what it flips, what it leaves alone."""

import ast

import pytest

from tools import mutants

SOURCE = '''"""Doc of 1 + 1."""
LIMIT = 3  # a constant

@jit(static_argnums=5)
def f(x: Array[7], y=2) -> Array[8]:
  """Not 1 < 2."""
  if isinstance(x, int | float) and x < LIMIT:
    raise ValueError(f"{x + 1} is below 4" + str(9))
  return min(x >> y, np.floor(x // 2)) + (not y)

def g(name):
  return "a" + name

class C:
  def __repr__(self):
    return str(1 + 2)
'''


def _changes():
  return [m.change for m in mutants.find(SOURCE, "f.py")]


def test_operators_constants_and_roundings_flip():
  changes = _changes()
  for want in (
    "3 -> 4",
    "3 -> 2",
    "x < LIMIT -> x <= LIMIT",
    "x >> y -> x << y",
    "x // 2 -> x * 2",
    "x // 2 -> -(-x // 2)",
    "np.floor(x // 2) -> np.ceil(x // 2)",
    "not y -> y",
    "2 -> 3",
  ):
    assert want in changes
  assert any(c.startswith("min(") and "-> max(" in c for c in changes)
  assert any(" and " in c and " or " in c for c in changes)


def test_text_annotations_and_messages_do_not():
  numbers = {c.split(" -> ")[0] for c in _changes()}
  assert numbers.isdisjoint({"1", "4", "5", "7", "8", "9"})
  assert not any("'a'" in c or "int | float" in c for c in numbers - {_and()})


def _and():
  return "isinstance(x, int | float) and x < LIMIT"


def test_every_flip_changes_one_place():
  original = ast.dump(ast.parse(SOURCE))
  found = mutants.find(SOURCE, "f.py")
  seen = {ast.dump(ast.parse(mutants.apply(SOURCE, m))) for m in found}
  assert original not in seen
  assert len(seen) == len(found) == len({m.key for m in found})


def test_sample_is_a_function_of_its_seed():
  found = mutants.find(SOURCE, "f.py")
  ten = mutants.sample(found, 10, seed=3)
  assert ten == mutants.sample(found, 10, seed=3)
  assert ten[:4] == mutants.sample(found, 4, seed=3)
  assert ten != mutants.sample(found, 10, seed=4)
  assert len({m.node for m in ten}) == len(ten)
  assert mutants.sample(found, 10, seed=3, patterns=["g*"]) == []


def test_equivalents_are_left_out_and_need_a_reason():
  found = mutants.find(SOURCE, "f.py")
  entry = {"file": "f.py", "line": "LIMIT = 3  # a constant"}
  entry |= {"change": "3 -> 4", "reason": "for the test"}
  stale = entry | {"change": "3 -> 9"}
  kept, unused = mutants.without(found, [entry, stale])
  assert len(kept) == len(found) - 1
  assert unused == [stale]
  with pytest.raises(ValueError, match="needs a reason"):
    mutants.without(found, [entry | {"reason": " "}])
