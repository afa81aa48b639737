// Layouts of `gemm.h` in plain C++, inlined so that a caller's instruction set
// is used.

#ifndef JAXNMC_GEMM_PLAIN_H_
#define JAXNMC_GEMM_PLAIN_H_

#include <cstdint>
#include <cstring>

#include "gemm.h"

namespace jaxnmc {

// Digits of some rows: for every step, of every row, 4 of the high plane (where
// there is one), then 4 of the low plane.
__attribute__((always_inline)) inline void SplitPlain(
    const int32_t* x, int64_t inputs, int64_t blocks, int rows, int planes,
    int8_t* digits, int32_t* sums) {
  const int64_t steps = blocks * kSteps;
  const int64_t width = 4 * rows * planes;
  for (int r = 0; r < rows; ++r) {
    const int32_t* row = x + r * inputs;
    int8_t* to = digits + 4 * r * planes;
    uint32_t sum = 0;
    for (int64_t s = 0; s < steps; ++s, to += width) {
      int32_t four[4] = {};
      const int64_t left = inputs - 4 * s;
      if (left > 0) std::memcpy(four, row + 4 * s, 4 * (left < 4 ? left : 4));
      int8_t high[4], low[4];
      for (int j = 0; j < 4; ++j) {
        sum += static_cast<uint32_t>(four[j]);
        high[j] = static_cast<int8_t>(High(four[j]));
        low[j] = static_cast<int8_t>(four[j]);
      }
      if (planes == 2) std::memcpy(to, high, 4);
      std::memcpy(to + 4 * (planes - 1), low, 4);
    }
    sums[r] = static_cast<int32_t>(sum);
  }
}

// Weights + 1 of a panel; outputs that are not there become anything.
__attribute__((always_inline)) inline void UnpackPlain(
    const uint8_t* packed, int64_t bytes, int64_t blocks, int outputs,
    uint8_t* panel) {
  for (int64_t b = 0; b < blocks; ++b) {
    // Four bytes of every output, the bytes in turn.
    uint32_t turned[16][kWide] = {};
    for (int o = 0; o < outputs; ++o) {
      uint32_t row[16];
      std::memcpy(row, packed + o * bytes + 64 * b, 64);
      for (int t = 0; t < 16; ++t) turned[t][o] = row[t];
    }
    for (int f = 0; f < 4; ++f) {
      for (int t = 0; t < 16; ++t) {
        uint32_t four[kWide];
        for (int o = 0; o < kWide; ++o) {
          four[o] = (turned[t][o] >> (2 * f)) & 0x03030303u;
        }
        std::memcpy(panel + b * kBytes + (16 * f + t) * 4 * kWide, four,
                    sizeof four);
      }
    }
  }
}

}  // namespace jaxnmc

#endif  // JAXNMC_GEMM_PLAIN_H_
