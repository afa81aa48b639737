"""What a Hugging Face folder of one kind of model looks like."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from jaxnmc.io.hf_fields import Parsed


@dataclasses.dataclass(frozen=True)
class Tensor:
  """One tensor of the files.

  Attributes:
    key: its name there.
    shape: its shape there.
    paths: our parameters in it, one below the other (along the outputs).
    transposed: it is stored [in, out]; ours are [out, in].
  """

  key: str
  shape: tuple[int, ...]
  paths: tuple[str, ...]
  transposed: bool = False

  def split(self, value: np.ndarray) -> dict[str, np.ndarray]:
    """Our parameters in a stored tensor, path -> float32[out, ...]."""
    rows = value.T if self.transposed else value
    parts = np.split(rows, len(self.paths))
    return dict(zip(self.paths, map(np.ascontiguousarray, parts), strict=True))

  def join(self, parts: Iterable[np.ndarray]) -> np.ndarray:
    """The stored tensor of our parameters, in the order of `paths`."""
    rows = np.concatenate([np.asarray(part) for part in parts])
    return rows.T if self.transposed else rows


@dataclasses.dataclass(frozen=True)
class Layout:
  """One kind of folder.

  Attributes:
    model_type: as `config.json` names it.
    parse: `parse(fields, file name) -> Parsed`.
    render: `render(config, dtype) -> fields`, what `parse` reads again.
    tensors: `tensors(config, tied)`, every tensor that is read, in order.
    misfit: why a config cannot be written so, or None where it can.
    prefix: of the keys; files of the bare model have none.
    buffers: pattern of stored arrays that are no parameters.
    head, embed: keys of two tensors that may be one.
    strict: a tensor without a place is refused, for it would change what is
      computed (else it is noted).
  """

  model_type: str
  parse: Callable[[Mapping[str, Any], str], Parsed]
  render: Callable[[Any, str], dict[str, Any]]
  tensors: Callable[[Any, bool], tuple[Tensor, ...]]
  misfit: Callable[[Any], str | None]
  prefix: str
  embed: str
  head: str = "lm_head.weight"
  buffers: str | None = None
  strict: bool = True

  def is_buffer(self, key: str) -> bool:
    """Whether a stored array is no parameter."""
    return self.buffers is not None and bool(re.fullmatch(self.buffers, key))


def bare(rows: Iterable[Tensor], prefix: str) -> tuple[Tensor, ...]:
  """The rows under the names that they have in files of the bare model."""
  return tuple(
    dataclasses.replace(row, key=row.key.removeprefix(prefix)) for row in rows
  )
