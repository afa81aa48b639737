"""BitLinear: norm, activation quantiser, ternary product.

Zhu et al. 2024, arXiv 2406.02528; parameters `{"weight": [out, in], "norm":
[in]}`.
"""


def product(ops, name: str, p, x):
  """The rest of a BitLinear: quantiser, ternary product, output site.

  Args:
    ops: interpreter.
    name: scope.
    p: parameters.
    x: normalised input, [T, ..., in].

  Returns:
    [T, ..., out], the site `<name>.out`.
  """
  with ops.at(name):
    x = ops.act_quant("act", x)
    return ops.site("out", ops.linear("weight", p["weight"], x))


def bit_linear(ops, name: str, p, x, eps: float):
  """The whole of it; arguments as `product`, eps of its norm."""
  with ops.at(name):
    x = ops.norm("norm", x, p["norm"], eps)
  return product(ops, name, p, x)
