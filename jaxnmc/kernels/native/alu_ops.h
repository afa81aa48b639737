// The instructions of `alu.h`, once: included for every instruction set, with
// JAXNMC_TARGET for its attribute.  Loops are left to the compiler.  Sums and
// products are taken modulo 2^32, as XLA takes them; docs/numerics.md, 2 and 6.

#define JAXNMC_OP(name) JAXNMC_TARGET void name(const Operands& o)
// Operands by name; the result overlaps none of them.
#define JAXNMC_VECTORS                         \
  const int64_t n = o.n;                       \
  const int32_t* __restrict a = o.a;           \
  const int32_t* __restrict b = o.b;           \
  int32_t* __restrict out = o.out;             \
  (void)a;                                     \
  (void)b

JAXNMC_OP(Add) {
  JAXNMC_VECTORS;
  for (int64_t i = 0; i < n; ++i) out[i] = Wrap(Bits(a[i]) + Bits(b[i]));
}

JAXNMC_OP(Sub) {
  JAXNMC_VECTORS;
  for (int64_t i = 0; i < n; ++i) out[i] = Wrap(Bits(a[i]) - Bits(b[i]));
}

JAXNMC_OP(Mul) {
  JAXNMC_VECTORS;
  for (int64_t i = 0; i < n; ++i) out[i] = Wrap(Bits(a[i]) * Bits(b[i]));
}

JAXNMC_OP(AddConst) {
  JAXNMC_VECTORS;
  const uint32_t value = Bits(o.p[0]);
  for (int64_t i = 0; i < n; ++i) out[i] = Wrap(Bits(a[i]) + value);
}

JAXNMC_OP(RsubConst) {
  JAXNMC_VECTORS;
  const uint32_t value = Bits(o.p[0]);
  for (int64_t i = 0; i < n; ++i) out[i] = Wrap(value - Bits(a[i]));
}

JAXNMC_OP(Min) {
  JAXNMC_VECTORS;
  for (int64_t i = 0; i < n; ++i) out[i] = a[i] < b[i] ? a[i] : b[i];
}

JAXNMC_OP(Max) {
  JAXNMC_VECTORS;
  for (int64_t i = 0; i < n; ++i) out[i] = a[i] > b[i] ? a[i] : b[i];
}

JAXNMC_OP(Ge) {
  JAXNMC_VECTORS;
  for (int64_t i = 0; i < n; ++i) out[i] = a[i] >= b[i];
}

JAXNMC_OP(Select) {
  JAXNMC_VECTORS;
  const int32_t* __restrict c = o.c;
  for (int64_t i = 0; i < n; ++i) out[i] = a[i] != 0 ? b[i] : c[i];
}

JAXNMC_OP(Shl) {
  JAXNMC_VECTORS;
  const int bits = o.p[0];
  // XLA gives zero for a shift by all bits.
  const uint32_t keep = bits < 32 ? ~0u : 0u;
  for (int64_t i = 0; i < n; ++i) {
    out[i] = Wrap((Bits(a[i]) & keep) << (bits & 31));
  }
}

JAXNMC_OP(Shr) {
  JAXNMC_VECTORS;
  const int bits = o.p[0] < 31 ? o.p[0] : 31;
  for (int64_t i = 0; i < n; ++i) out[i] = a[i] >> bits;
}

JAXNMC_OP(LowBits) {
  JAXNMC_VECTORS;
  const int32_t mask = Wrap((1u << o.p[0]) - 1);
  for (int64_t i = 0; i < n; ++i) out[i] = a[i] & mask;
}

JAXNMC_OP(Clip) {
  JAXNMC_VECTORS;
  const int32_t low = o.p[0], high = o.p[1];
  for (int64_t i = 0; i < n; ++i) out[i] = Within(a[i], low, high);
}

// clip(round(a / 2^s)): with t = floor(a / 2^(s-1)), (t >> 1) + (t & 1).
JAXNMC_OP(RoundShift) {
  JAXNMC_VECTORS;
  const int shift = o.p[0];
  const int32_t low = o.p[1], high = o.p[2];
  if (shift > 0) {
    const int less = shift - 1 < 31 ? shift - 1 : 31;
    for (int64_t i = 0; i < n; ++i) {
      const int32_t t = a[i] >> less;
      out[i] = Within((t >> 1) + (t & 1), low, high);
    }
    return;
  }
  const int left = -shift < 30 ? -shift : 30;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t wide = static_cast<int64_t>(a[i]) * (int64_t{1} << left);
    out[i] = static_cast<int32_t>(Within<int64_t>(wide, low, high));
  }
}

JAXNMC_OP(MulShr) {
  JAXNMC_VECTORS;
  const int less = o.p[0] - 1;
  const int64_t low = o.p[1], high = o.p[2];
  for (int64_t i = 0; i < n; ++i) {
    const int64_t t = (static_cast<int64_t>(a[i]) * b[i]) >> less;
    out[i] = static_cast<int32_t>(
        Within<int64_t>((t >> 1) + (t & 1), low, high));
  }
}

// t[0] and, of every segment, the part of its rise that lies below the input:
// clamped pieces need no lookup, so that they take vectors.  A segment that is
// passed adds all of its rise, as (2^spacing rise) >> spacing is exact.
JAXNMC_OP(SigmoidByPieces) {
  JAXNMC_VECTORS;
  const int spacing = o.p[0];
  const int32_t segments = o.p[1], one = o.p[2];
  const int32_t reach = segments << spacing, size = 1 << spacing;
  constexpr int64_t kBlock = 64;
  for (int64_t from = 0; from < n; from += kBlock) {
    const int64_t count = n - from < kBlock ? n - from : kBlock;
    int32_t x[kBlock] = {}, y[kBlock];
    for (int64_t i = 0; i < count; ++i) {
      const int32_t k = a[from + i] > -reach ? a[from + i] : -reach;
      x[i] = Within(k < 0 ? -k : k, 0, reach);
    }
    for (int64_t i = 0; i < kBlock; ++i) y[i] = o.nodes[0];
    for (int32_t j = 0; j < segments; ++j) {
      const int32_t rise = o.nodes[j + 1] - o.nodes[j], start = j << spacing;
      for (int64_t i = 0; i < kBlock; ++i) {
        y[i] += (Within(x[i] - start, 0, size) * rise) >> spacing;
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      out[from + i] = a[from + i] < 0 ? one - y[i] : y[i];
    }
  }
}

// The same by a lookup, for tables of many segments.
JAXNMC_OP(SigmoidByTable) {
  JAXNMC_VECTORS;
  const int32_t* __restrict nodes = o.nodes;
  const int spacing = o.p[0];
  const int32_t segments = o.p[1], one = o.p[2];
  const int32_t reach = segments << spacing;
  for (int64_t i = 0; i < n; ++i) {
    const int32_t k = a[i] > -reach ? a[i] : -reach;
    const int32_t x = Within(k < 0 ? -k : k, 0, reach);
    const int32_t at = x >> spacing;
    const int32_t j = at < segments ? at : segments - 1;
    const int32_t rise = (nodes[j + 1] - nodes[j]) * (x - (j << spacing));
    const int32_t y = nodes[j] + (rise >> spacing);
    out[i] = k < 0 ? one - y : y;
  }
}

JAXNMC_OP(Sigmoid) {
  (o.p[1] <= 16 ? SigmoidByPieces : SigmoidByTable)(o);
}

JAXNMC_OP(Sum) {
  uint32_t sum = 0;
  for (int64_t i = 0; i < o.n; ++i) sum += Bits(o.a[i]);
  o.out[0] = Wrap(sum);
}

JAXNMC_OP(Broadcast) {
  JAXNMC_VECTORS;
  const int32_t value = a[0];
  for (int64_t i = 0; i < n; ++i) out[i] = value;
}

// The sums of x^2 >> 15 and of x^2 & 32767, times 1/n, brought to their point.
JAXNMC_OP(MeanSquare) {
  JAXNMC_VECTORS;
  const int64_t mult = o.p[0];
  const int less = o.p[1] - 1;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t sum = (static_cast<int64_t>(a[i]) << 15) + b[i];
    const int64_t t = (sum * mult) >> less;
    out[i] = static_cast<int32_t>(
        Within<int64_t>((t >> 1) + (t & 1), 0, o.p[2]));
  }
}

JAXNMC_OP(InvSqrt) {
  JAXNMC_VECTORS;
  for (int64_t i = 0; i < n; ++i) out[i] = InverseRoot(a[i]);
}

JAXNMC_TARGET void Split(int64_t n, const int32_t* __restrict x,
                         int8_t* __restrict high, int8_t* __restrict low,
                         int32_t* __restrict total) {
  uint32_t sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    sum += Bits(x[i]);
    low[i] = static_cast<int8_t>(x[i]);
  }
  if (high) {
    for (int64_t i = 0; i < n; ++i) {
      high[i] = static_cast<int8_t>((x[i] + 128) >> 8);
    }
  }
  *total = Wrap(sum);
}

#undef JAXNMC_OP
#undef JAXNMC_VECTORS
