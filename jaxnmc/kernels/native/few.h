// Exact products of a few rows of activations with a ternary matrix.

#ifndef JAXNMC_FEW_H_
#define JAXNMC_FEW_H_

#include <cstdint>

namespace jaxnmc {

// Fewer products than this, by one thread: it needs some 50 us for them, which
// is what waking another one may take.
constexpr int64_t kFewAlone = 1 << 22;

// Digits of some rows: the high plane of a row (where there are two), then its
// low plane, each filled up with zeros to `padded`; then the next row.
struct Few {
  const int8_t* digits;
  const int32_t* sums;  // of x, per row
  int64_t padded;
  int64_t rows;
  int planes;
};

// Outputs first..last of all rows; `stride` from row to row of `out`.
using FewFn = void (*)(const Few& x, const uint8_t* packed, int64_t bytes,
                       int64_t first, int64_t last, int32_t* out,
                       int64_t stride);

// `rows` is the most for which this is faster than laying weights out once.
struct FewPath {
  FewFn run;
  int64_t rows;
};

// By index of a path: plain, avx2, avx512vnni, amx.  Plain C++ has none, it is
// slow at two-bit fields; amx has that of avx512vnni.
const FewPath* ChooseFew(int64_t path);

}  // namespace jaxnmc

#endif  // JAXNMC_FEW_H_
