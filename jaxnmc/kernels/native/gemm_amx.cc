// Products of many rows with AMX tiles.
//
// A tile of digits is 16 rows of 64 inputs of one plane, a tile of weights 64
// inputs of 16 outputs: 16 steps of half a panel, as they lie.  Two of the one
// kind meet two of the other, so 4 loads serve 4 products.  The two tiles of
// digits are both planes of 16 rows, or the one plane of 32.

#include "gemm.h"
#include "tiles.h"

#ifdef JAXNMC_AMX

#include <vector>

namespace jaxnmc {

void UnpackVnni(const uint8_t* packed, int64_t bytes, int64_t blocks,
                int outputs, uint8_t* panel);

namespace {

constexpr int kTile = 1024;  // bytes
constexpr int kPairs = kBlock / 64;  // pairs of tiles of digits in a block

// Digits lie in pairs of tiles, those of 64 inputs after one another.
void Split(const int32_t* x, int64_t inputs, int64_t blocks, int rows,
           int planes, int8_t* digits, int32_t* sums) {
  std::memset(digits, 0, blocks * kPairs * 2 * kTile);
  for (int r = 0; r < rows; ++r) {
    const int32_t* row = x + r * inputs;
    uint32_t sum = 0;
    for (int64_t k = 0; k < inputs; k += 64) {
      int8_t* to = digits + k / 64 * 2 * kTile + r * 64;
      const int64_t count = inputs - k < 64 ? inputs - k : 64;
      int8_t* low = planes == 2 ? to + kTile : to;
      for (int64_t j = 0; j < count; ++j) {
        sum += static_cast<uint32_t>(row[k + j]);
        low[j] = static_cast<int8_t>(row[k + j]);
      }
      for (int64_t j = 0; planes == 2 && j < count; ++j) {
        to[j] = static_cast<int8_t>(High(row[k + j]));
      }
    }
    sums[r] = static_cast<int32_t>(sum);
  }
}

// The compiler does not know that tiles are read from memory: what was stored
// before is in memory after this.
inline void Fence() { asm volatile("" ::: "memory"); }

JAXNMC_AMX void Sums(const int8_t* x, const uint8_t* w, int64_t pairs,
                     int32_t (*sums)[16][16]) {
  Fence();
  TILE_ZERO(0);
  TILE_ZERO(1);
  TILE_ZERO(2);
  TILE_ZERO(3);
  constexpr int64_t kStride = 4 * kWide;
  for (int64_t p = 0; p < pairs; ++p) {
    TILE_LOAD(4, x, 64);
    TILE_LOAD(6, w, kStride);
    TILE_LOAD(7, w + 64, kStride);
    TILE_LOAD(5, x + kTile, 64);
    TILE_DOT(0, 4, 6);
    TILE_DOT(1, 4, 7);
    TILE_DOT(2, 5, 6);
    TILE_DOT(3, 5, 7);
    x += 2 * kTile;
    w += 16 * kStride;
  }
  TILE_STORE(0, sums[0], 64);
  TILE_STORE(1, sums[1], 64);
  TILE_STORE(2, sums[2], 64);
  TILE_STORE(3, sums[3], 64);
  Fence();
}

void Multiply(const Tile& t) {
  alignas(64) int32_t sums[4][16][16];
  Sums(t.digits + t.first * kPairs * 2 * kTile, t.panel, t.blocks * kPairs,
       sums);
  for (int r = 0; r < t.rows; ++r) {
    int32_t* out = t.out + r * t.stride;
    for (int o = 0; o < t.outputs; ++o) {
      uint32_t sum = t.first ? out[o] : -static_cast<uint32_t>(t.sums[r]);
      const int half = o / 16, at = o % 16;
      if (t.planes == 2) {
        sum += static_cast<uint32_t>(sums[half][r][at]) << 8;
        sum += sums[2 + half][r][at];
      } else {
        sum += sums[2 * (r / 16) + half][r % 16][at];
      }
      out[o] = static_cast<int32_t>(sum);
    }
  }
}

JAXNMC_AMX void Begin() {
  static const TileConfig config;
  TILE_CONFIG(&config);
}

JAXNMC_AMX void End() { TILE_RELEASE(); }

const Path kPath = {"amx", {32, 16}, Split, UnpackVnni, Multiply, Begin, End};

// Whether tiles give the same integers as plain C++ here; the unit is not taken
// at its word.
bool Works() {
  if (!Vnni() || !TilesAllowed()) return false;
  constexpr int kRows = 35, kInputs = 300, kOutputs = 33, kPacked = 128;
  std::vector<int32_t> x(kRows * kInputs);
  std::vector<uint8_t> packed(kOutputs * kPacked);
  uint32_t state = 1;
  const auto next = [&state] {
    state = state * 1664525u + 1013904223u;
    return state >> 16;
  };
  for (uint8_t& byte : packed) {
    byte = 0;
    for (int f = 0; f < 4; ++f) byte |= next() % 3 << (2 * f);
  }
  for (int planes = 1; planes <= 2; ++planes) {
    const int32_t top = planes == 1 ? 127 : 32639;
    for (size_t i = 0; i < x.size(); ++i) {
      const int32_t sign = next() % 2 ? 1 : -1;
      x[i] = i % 3 ? static_cast<int32_t>(next() % (top + 1)) * sign
                   : top * sign;
    }
    std::vector<int32_t> found(kRows * kOutputs), want(kRows * kOutputs);
    Run(kPath, nullptr, x.data(), kRows, kInputs, packed.data(), kOutputs,
        kPacked, planes, found.data());
    Run(*Plain(), nullptr, x.data(), kRows, kInputs, packed.data(), kOutputs,
        kPacked, planes, want.data());
    if (found != want) return false;
  }
  return true;
}

}  // namespace

const Path* Amx() {
  static const bool works = Works();
  return works ? &kPath : nullptr;
}

}  // namespace jaxnmc

#else

namespace jaxnmc {
const Path* Amx() { return nullptr; }
}  // namespace jaxnmc

#endif
