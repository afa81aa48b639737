"""Fixtures of the op tests."""

import pytest

from jaxnmc.numerics.formats import Format, NormFormat
from jaxnmc.numerics.sigmoid import SigmoidTable
from jaxnmc.quantize import Plan


@pytest.fixture(scope="session")
def make_plan():
  """`make_plan(formats, norms=(), table=..., eps=...)`: a plan by hand.

  `formats` maps a site to (bits, frac) or a `Format`.
  """

  def make(formats, norms=(), table=None, eps=1e-3, norm=None):
    of = lambda f: f if isinstance(f, Format) else Format(*f)
    return Plan(
      "by hand",
      {k: of(f) for k, f in formats.items()},
      dict.fromkeys(norms, norm or NormFormat()),
      {},
      table or SigmoidTable(),
      eps,
    )

  return make
