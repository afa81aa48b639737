// Products of many rows in plain C++: the meaning of the other paths, and the
// one that every machine has.

#include <cstring>

#include "gemm.h"
#include "gemm_plain.h"

namespace jaxnmc {
namespace {

constexpr int kRows[2] = {4, 4};

void Multiply(const Tile& t) {
  const int width = t.rows * t.planes;
  const int8_t* x = t.digits + t.first * kBlock * width;
  // Of all outputs of a row, plane by plane.
  uint32_t sums[2 * 4][kWide] = {};
  for (int64_t s = 0; s < t.blocks * kSteps; ++s) {
    const uint8_t* w = t.panel + s * 4 * kWide;
    for (int i = 0; i < width; ++i) {
      const int8_t* a = x + (s * width + i) * 4;
      for (int o = 0; o < kWide; ++o) {
        int32_t sum = 0;
        for (int j = 0; j < 4; ++j) sum += w[4 * o + j] * a[j];
        sums[i][o] += sum;
      }
    }
  }
  for (int r = 0; r < t.rows; ++r) {
    for (int o = 0; o < t.outputs; ++o) {
      int32_t* out = t.out + r * t.stride + o;
      uint32_t sum = t.first ? *out : -static_cast<uint32_t>(t.sums[r]);
      for (int p = 0; p < t.planes; ++p) {
        sum += sums[r * t.planes + p][o] << (p + 1 < t.planes ? 8 : 0);
      }
      *out = static_cast<int32_t>(sum);
    }
  }
}

void Split(const int32_t* x, int64_t inputs, int64_t blocks, int rows,
           int planes, int8_t* digits, int32_t* sums) {
  SplitPlain(x, inputs, blocks, rows, planes, digits, sums);
}

void Unpack(const uint8_t* packed, int64_t bytes, int64_t blocks, int outputs,
            uint8_t* panel) {
  UnpackPlain(packed, bytes, blocks, outputs, panel);
}

}  // namespace

const Path* Plain() {
  static const Path path = {"plain",  {kRows[0], kRows[1]}, Split, Unpack,
                            Multiply, nullptr,              nullptr};
  return &path;
}

}  // namespace jaxnmc
