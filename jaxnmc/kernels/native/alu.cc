#include "alu.h"

#include "x86.h"

namespace jaxnmc {
namespace {

#define JAXNMC_INLINE __attribute__((always_inline)) inline

JAXNMC_INLINE uint32_t Bits(int32_t x) { return static_cast<uint32_t>(x); }
JAXNMC_INLINE int32_t Wrap(uint32_t x) { return static_cast<int32_t>(x); }

template <typename T>
JAXNMC_INLINE T Within(T x, T low, T high) {
  const T raised = x > low ? x : low;
  return raised < high ? raised : high;
}

// About 2^18 / sqrt(x), 1 <= x < 2^24, by a seed and five Newton steps
// (docs/numerics.md, 6.1); every product is below 2^32.
int32_t InverseRoot(int32_t value) {
  static const uint32_t seeds[24] = {
      146,   206,   292,   412,   584,   826,    1168,   1652,
      2336,  3304,  4674,  6610,  9350,  13222,  18700,  26446,
      37402, 52894, 74804, 105788, 149608, 211578, 299218, 423158};
  const uint32_t x = static_cast<uint32_t>(value);
  int m = (x ? __builtin_clz(x) : 32) - 8;
  m = m < 0 ? 0 : m > 23 ? 23 : m;
  uint32_t b = x, seed = seeds[m], y = seed >> 1;
  for (int step = 0; step < 5; ++step) {
    b = (((b * seed) >> 13) * seed) >> 13;
    seed = (3u << 12) - b;
    y = (y * seed) >> 13;
  }
  return static_cast<int32_t>(y);
}

namespace plain {
#define JAXNMC_TARGET
#include "alu_ops.h"
#undef JAXNMC_TARGET
}  // namespace plain

#if defined(__x86_64__)

namespace avx2 {
#define JAXNMC_TARGET JAXNMC_AVX2
#include "alu_ops.h"
#undef JAXNMC_TARGET
}  // namespace avx2

namespace wide {
#define JAXNMC_TARGET \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#include "alu_ops.h"
#undef JAXNMC_TARGET
}  // namespace wide

#define JAXNMC_EACH(f) {plain::f, avx2::f, wide::f}
#else
#define JAXNMC_EACH(f) {plain::f, plain::f, plain::f}
#endif

}  // namespace

const Instruction kAlu[] = {
    {"add", 2, "", JAXNMC_EACH(Add)},
    {"sub", 2, "", JAXNMC_EACH(Sub)},
    {"mul", 2, "", JAXNMC_EACH(Mul)},
    {"add_const", 1, "value", JAXNMC_EACH(AddConst)},
    {"rsub_const", 1, "value", JAXNMC_EACH(RsubConst)},
    {"min", 2, "", JAXNMC_EACH(Min)},
    {"max", 2, "", JAXNMC_EACH(Max)},
    {"ge", 2, "", JAXNMC_EACH(Ge)},
    {"select", 3, "", JAXNMC_EACH(Select)},
    {"shl", 1, "bits", JAXNMC_EACH(Shl)},
    {"shr", 1, "bits", JAXNMC_EACH(Shr)},
    {"low_bits", 1, "bits", JAXNMC_EACH(LowBits)},
    {"clip", 1, "low high", JAXNMC_EACH(Clip)},
    {"round_shift", 1, "shift low high", JAXNMC_EACH(RoundShift)},
    {"mul_shr", 2, "shift low high", JAXNMC_EACH(MulShr)},
    {"sigmoid", 1, "spacing segments one", JAXNMC_EACH(Sigmoid)},
    {"sum", 1, "", JAXNMC_EACH(Sum), Form::kReduce},
    {"broadcast", 1, "", JAXNMC_EACH(Broadcast), Form::kSpread},
    {"mean_square", 2, "mult shift limit", JAXNMC_EACH(MeanSquare)},
    {"inv_sqrt", 1, "", JAXNMC_EACH(InvSqrt)},
};
const int kAluSize = sizeof(kAlu) / sizeof(kAlu[0]);

int ChooseAlu(int64_t path) {
  int best = 0;
#if defined(__x86_64__)
  if (HasAvx2()) best = 1;
  if (HasVnni() && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    best = 2;
  }
#endif
  return path < 0 || path > best ? best : static_cast<int>(path);
}

SplitFn ChooseSplit(int alu) {
#if defined(__x86_64__)
  static const SplitFn each[] = {plain::Split, avx2::Split, wide::Split};
  return each[alu];
#else
  return plain::Split;
#endif
}

}  // namespace jaxnmc
