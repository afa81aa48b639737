"""Static bounds: what is refused while a function is traced, and what not."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from jaxnmc import quantize
from jaxnmc.errors import FormatError
from jaxnmc.numerics.formats import Format, NormFormat
from jaxnmc.numerics.fx import Fx
from jaxnmc.numerics.sigmoid import SigmoidTable
from jaxnmc.numerics.weights import QMatrix, QVector
from jaxnmc.ops.alu import IntAlu
from jaxnmc.ops.quantized import Quantized
from jaxnmc.ops.stores import IntStore

TOP = 2**31 - 1


def _ops(saturation=False, **formats) -> Quantized:
  formats = {k.replace("_", "."): f for k, f in formats.items()}
  norms = {k: NormFormat() for k in formats}
  plan = quantize.Plan("test", formats, norms, {}, SigmoidTable(), 1e-3)
  return Quantized(plan, IntAlu(), IntStore(), saturation=saturation)


def _fx(high, low=None, frac=0, codes=(0,), site="x") -> Fx:
  low = -high if low is None else low
  q = jnp.asarray(codes, jnp.int32)
  return Fx(q, frac=frac, low=low, high=high, site=site)


@pytest.mark.parametrize(
  ("name", "args", "last"),
  [
    ("add", (_fx(2**30), _fx(2**30 - 1)), TOP),
    ("sub", (_fx(2**30), _fx(2**30 - 1)), TOP),
    ("sub", (_fx(0, low=0), _fx(TOP)), TOP),
    ("mul", (_fx(TOP), _fx(1)), TOP),
    ("mul", (_fx(65535), _fx(32768)), TOP - 32767),
    ("one_minus", (_fx(5, low=1 - 2**30, frac=30),), TOP),
    ("max", (_fx(TOP), _fx(1)), TOP),
    ("sum", (_fx(2**29 - 1, codes=np.zeros(4)),), TOP - 3),
    ("outer", (_fx(TOP), _fx(1)), TOP),
    ("matmul", (_fx(32767, codes=np.zeros((2, 2))),) * 2, 2**31 - 2**17 + 2),
  ],
)
def test_the_last_bound_that_fits(name, args, last):
  assert getattr(_ops(), name)(*args).bound == last


@pytest.mark.parametrize(
  ("name", "args"),
  [
    ("add", (_fx(2**30), _fx(2**30))),
    ("add", (_fx(0, low=-(2**30)), _fx(0, low=-(2**30)))),
    ("sub", (_fx(2**30), _fx(2**30))),
    ("sub", (_fx(0, low=0), _fx(2**31))),
    ("mul", (_fx(65536), _fx(32768))),
    ("mul", (_fx(32768, low=0), _fx(0, low=-65536))),
    ("one_minus", (_fx(5, low=-(2**30), frac=30),)),
    ("max", (_fx(2**31), _fx(1))),
    ("min", (_fx(2**31), _fx(1, low=-(2**31)))),
    ("select", (_fx(1), _fx(2**31), _fx(1))),
    ("sum", (_fx(2**29, codes=np.zeros(4)),)),
    ("outer", (_fx(65536), _fx(32768))),
    ("matmul", (_fx(32768, codes=np.zeros((2, 2))),) * 2),
  ],
)
def test_the_first_bound_that_does_not(name, args):
  ops = _ops()
  error = pytest.raises(FormatError, match=r"blocks\.7.* may reach \d+")
  with ops.at("blocks", "7"), error:
    getattr(ops, name)(*args)


def test_aligning_checks_the_shifted_bound():
  coarse, fine = _fx(32639, frac=0), _fx(32639, frac=16)
  out = _ops().add(coarse, fine)
  assert (out.frac, out.high) == (16, 32639 * 2**16 + 32639)
  for frac in (17, 31, 40):
    with pytest.raises(FormatError, match="aligning"):
      _ops().add(coarse, _fx(32639, frac=frac))


def test_zero_aligns_to_anything():
  zero = _fx(0, frac=-20)
  out = _ops().add(zero, _fx(9, frac=25, codes=[7]))
  assert (out.frac, out.high, out.q.tolist()) == (25, 9, [7])


def _matrix(l1, rows=1):
  codes = jnp.ones((rows, 2), jnp.int8)
  return QMatrix(codes, jnp.int32(2**15), exp=15, l1=l1)


def test_products_are_bounded_by_their_rows():
  x = _fx(32639, codes=[[1, 2]])
  out = _ops().linear("w", _matrix(65_795), x)
  assert out.high == -out.low == 32639 * 65_795 <= TOP
  ops = _ops()
  error = pytest.raises(FormatError, match=r"a\.w.*rows of L1 norm 65796")
  with ops.at("a"), error:
    ops.linear("w", _matrix(65_796), x)


@pytest.mark.parametrize("high", [32640, 32768, 2**23 - 1])
def test_inputs_of_products_have_two_digits(high):
  """Above 32639 the digits would wrap."""
  with pytest.raises(FormatError, match=f"w: .* at most 32639; .* {high}"):
    _ops().linear("w", _matrix(2), _fx(high, codes=[[1, 2]]))


def test_only_sites_cross_a_synapse():
  x = _fx(5, codes=[[1, 2]])
  with pytest.raises(FormatError, match="only named sites cross"):
    _ops().linear("w", _matrix(2), _ops().add(x, x))


def test_pending_scales_go_into_a_site_first():
  product = _ops().linear("w", _matrix(2), _fx(5, codes=[[1, 2]]))
  with pytest.raises(FormatError, match="pending scale"):
    _ops().add(product, product)


@pytest.mark.parametrize("shift", [-3, 0, 63])
def test_a_pending_scale_needs_a_shift_of_1_to_62(shift):
  product = _fx(9, codes=[5, -5]).replace(mult=jnp.int32(2**15), exp=20)
  ops = _ops(y=Format(16, 0))
  out = ops.site("y", product.replace(frac=62 - 20))
  assert out.q.tolist() == [0, 0]
  assert ops.site("y", product.replace(frac=1 - 20)).q.tolist() == [
    32639,
    -32639,
  ]
  with pytest.raises(
    FormatError, match=rf"y: .*shift {shift}, allowed 1 to 62"
  ):
    ops.site("y", product.replace(frac=shift - 20))


@pytest.mark.parametrize("width", [65_538])
def test_widest_norm(width):
  site = Format(16, 15)
  gain = lambda n: QVector(np.ones(n, np.int8), frac=7, low=-127, high=127)

  def run(n):
    x = _fx(32639, frac=15, codes=np.full((1, n), 32639))
    return _ops(n=site).norm("n", x, gain(n), 1e-3)

  out = run(width)
  assert out.q.shape == (1, width)
  # 32639 / 32768 over its own rms, times 2^-7, in 15 fraction bits.
  assert abs(int(out.q[0, 0]) - 256) <= 2
  with pytest.raises(FormatError, match="n: .* may reach"):
    jax.eval_shape(lambda: run(width + 1).q)


def _norm(x, saturation=False, frac=12):
  ops = _ops(saturation, n=Format(16, frac))
  width = x.shape[-1]
  gain = QVector(np.full(width, 64, np.int8), frac=6, low=-127, high=127)
  return ops.norm("n", x, gain, 1e-3), ops.tape.values


def test_norms_take_sixteen_bits():
  """A square of 17 bits would leave 32 bits."""
  out, _ = _norm(_fx(32768, low=0, frac=15, codes=[[32768, 32768]]))
  assert np.abs(np.asarray(out.q) - 4096).max() <= 8
  with pytest.raises(FormatError, match="n: .*at most 16 bits.* 32769"):
    _norm(_fx(32769, frac=15, codes=[[1, 2]]))
  with pytest.raises(FormatError, match="between sites"):
    _norm(_fx(100, frac=15, codes=[[1, 2]], site=None))


@pytest.mark.parametrize("frac", [2, 3, 5, 6])
@pytest.mark.parametrize("width", [2, 4])
def test_norms_of_coarse_values(frac, width):
  """Lifted while there is room (here to 2^15), then refused."""
  one = np.array([[1, -1] * (width // 2)])
  small, _ = _norm(_fx(127, frac=frac, codes=one << frac))
  fine, _ = _norm(_fx(32639, frac=12, codes=one << 12))
  np.testing.assert_array_equal(small.q, fine.q)
  with pytest.raises(FormatError, match="n: .*give the site x more"):
    _norm(_fx(32639, frac=2, codes=[[4, -4]]))


def test_saturated_means_are_counted():
  # The third row has 2^24 - 5 and with eps 2^24 - 1, which still fits.
  rows = [[32639, 32639], [100, 100], [16161, 16604], [30000, 0]]
  high = _fx(32639, frac=8, codes=rows)
  _, counts = _norm(high, saturation=True)
  assert int(counts["n.mean_square.saturated"]) == 2
  assert int(counts["n.saturated"]) == 0


def test_saturated_codes_are_counted():
  ops = _ops(saturation=True, y=Format(8, 0))
  out = ops.site("y", _fx(200, codes=[-200, -128, -127, 0, 127, 128]))
  assert out.q.tolist() == [-127, -127, -127, 0, 127, 127]
  assert int(ops.tape.values["y.saturated"]) == 3


def test_one_minus_needs_its_one():
  assert _ops().one_minus(_fx(0, low=0, frac=30)).high == 2**30
  for frac in (-1, 31):
    with pytest.raises(FormatError, match="0 to 30 fraction bits"):
      _ops().one_minus(_fx(1, frac=frac))


@pytest.mark.parametrize("frac", [-24, -10, 5, 6, 7, 20, 37])
def test_table_input_of_any_point(frac):
  codes = np.array(
    [-(2**30), -700, -65, -33, -32, -1, 0, 1, 32, 33, 700, 2**30]
  )
  out = _ops().sigmoid(_fx(TOP, frac=frac, codes=codes))
  x = codes * 2.0**-frac
  true = 1 / (1 + np.exp(-np.clip(x, -50, 50)))
  assert np.abs(np.asarray(out.q) / 2**15 - true).max() < 0.0129
  assert (out.frac, out.low, out.high) == (15, 0, 2**15)


def test_table_input_is_rounded():
  # 1.5 codes of the table are 2, 1.25 are 1, -1.5 are -1.
  out = _ops().sigmoid(_fx(99, frac=8, codes=[6, 5, 4, -6, -4]))
  assert out.q[0] > out.q[1] == out.q[2]
  assert out.q[3] == out.q[4]
