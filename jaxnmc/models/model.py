"""A model as one value (what `jaxnmc.load` returns), and what it computes."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
from flax import struct

if TYPE_CHECKING:
  from jaxnmc.quantize.params import QParams
  from jaxnmc.quantize.plan import Plan


@struct.dataclass
class Out:
  """Output of a language model.

  Attributes:
    logits: [T, ..., V] scores of the next token (float, or fixed point).
  """

  logits: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
  """Function, parameters and everything that belongs to them.

  Attributes:
    name: zoo name, or the path that it was loaded from.
    config: sizes and options (of one of `jaxnmc.models.families`).
    params: float parameters; matrices are latents or `Ternary`.
    fn: `fn(ops, params, inputs, state) -> (Out, state)`.
    init_state: `init_state(batch=()) -> state`, zeros.
    tokenizer: see `jaxnmc.io.tokenizer`; None if none came with it.
    plan: number formats that shipped with it, or None.
    qparams: integer parameters of that plan, or None.
    notes: what loading has to say, one line each.
  """

  name: str
  config: Any
  params: Any
  fn: Callable[..., Any]
  init_state: Callable[..., Any]
  tokenizer: Any = None
  plan: "Plan | None" = None
  qparams: "QParams | None" = None
  notes: tuple[str, ...] = ()

  def replace(self, **changes: Any) -> "Model":
    """A copy with some fields changed."""
    return dataclasses.replace(self, **changes)

  def __repr__(self) -> str:
    have = [f for f in ("tokenizer", "plan", "qparams") if getattr(self, f)]
    return f"Model({self.name!r}, {self.config}, with {', '.join(have) or '-'})"
