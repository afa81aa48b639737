// How a product of many rows is cut up: what is laid out when, and who does it.

#include "gemm.h"

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "memory.h"
#include "share.h"

namespace jaxnmc {
namespace {

// Weights that are unpacked before rows go over them: so many bytes stay in the
// first cache beside a tile of few rows, so many in the second cache while all
// rows go by.
constexpr int64_t kNear = 1 << 14, kFar = 1 << 17;
constexpr int64_t kFewTiles = 4;
// Fewer products: one thread is done before another has woken up.
constexpr int64_t kAlone = 1 << 20;

int64_t Up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// `count` things in `parts`, as evenly as can be: where part i begins.
int64_t Begin(int64_t count, int64_t parts, int64_t i) {
  return count * i / parts;
}

struct Whole {
  const Path& path;
  const int32_t* x;
  int64_t rows, inputs;
  const uint8_t* packed;
  int64_t outputs, bytes;
  int planes;
  int32_t* out;

  int64_t blocks, tiles, tile_bytes;
  int8_t* digits;
  int32_t* sums;

  int64_t Row(int64_t tile) const { return Begin(rows, tiles, tile); }

  void Split(int64_t from, int64_t to) const {
    for (int64_t t = from; t < to; ++t) {
      const int64_t row = Row(t);
      path.split(x + row * inputs, inputs, blocks,
                 static_cast<int>(Row(t + 1) - row), planes,
                 digits + t * tile_bytes, sums + row);
    }
  }

  // Panels from..to of outputs, tiles first..last of rows.
  void Multiply(int64_t from, int64_t to, int64_t first, int64_t last) const {
    static thread_local std::vector<uint8_t> memory;
    const int64_t near = last - first <= kFewTiles ? kNear : kFar;
    const int64_t depth = std::min(blocks, std::max<int64_t>(near / kBytes, 1));
    const int64_t group =
        std::min(to - from, std::max<int64_t>(near / (depth * kBytes), 1));
    uint8_t* panels = Aligned<uint8_t>(&memory, group * depth * kBytes);
    if (path.begin) path.begin();
    for (int64_t g = from; g < to; g += group) {
      const int64_t count = std::min(group, to - g);
      for (int64_t b = 0; b < blocks; b += depth) {
        const int64_t deep = std::min(depth, blocks - b);
        for (int64_t i = 0; i < count; ++i) {
          const int64_t o = (g + i) * kWide;
          path.unpack(packed + o * bytes + b * 64, bytes, deep,
                      static_cast<int>(std::min<int64_t>(kWide, outputs - o)),
                      panels + i * depth * kBytes);
        }
        for (int64_t t = first; t < last; ++t) {
          const int64_t row = Row(t);
          for (int64_t i = 0; i < count; ++i) {
            const int64_t o = (g + i) * kWide;
            path.multiply(Tile{
                digits + t * tile_bytes, sums + row,
                static_cast<int>(Row(t + 1) - row), planes,
                panels + i * depth * kBytes, b, deep, out + row * outputs + o,
                outputs, static_cast<int>(std::min<int64_t>(kWide, outputs - o))});
          }
        }
      }
    }
    if (path.end) path.end();
  }
};

}  // namespace

const Path& Choose(int64_t index) {
  const Path* const all[] = {Plain(), Avx2(), Vnni(), Amx()};
  for (int64_t i = index < 0 || index > 3 ? 3 : index; i > 0; --i) {
    if (all[i]) return *all[i];
  }
  return *all[0];
}

void Run(const Path& path, xla::ffi::ThreadPool* pool, const int32_t* x,
         int64_t rows, int64_t inputs, const uint8_t* packed, int64_t outputs,
         int64_t bytes, int planes, int32_t* out) {
  if (inputs == 0) std::fill(out, out + rows * outputs, 0);
  if (rows == 0 || outputs == 0 || inputs == 0) return;
  static thread_local std::vector<uint8_t> digits, sums;
  const int64_t most = path.rows[planes - 1];
  const int64_t blocks = Up(inputs, kBlock), tiles = Up(rows, most);
  const int64_t tile_bytes = most * planes * blocks * kBlock;
  const Whole whole = {path,   x,      rows,      inputs,
                       packed, outputs, bytes,    planes,
                       out,    blocks, tiles,     tile_bytes,
                       Aligned<int8_t>(&digits, tiles * tile_bytes),
                       Aligned<int32_t>(&sums, rows)};
  const int64_t panels = Up(outputs, kWide);
  const int64_t threads = pool ? pool->num_threads() : 1;
  if (threads < 2 || rows * inputs * outputs < kAlone) {
    whole.Split(0, tiles);
    whole.Multiply(0, panels, 0, tiles);
    return;
  }
  const int64_t cuts = std::min(tiles, threads);
  if (cuts > 1 && rows * inputs > kAlone / 16) {
    Share(pool, cuts, [&](int64_t p) {
      whole.Split(Begin(tiles, cuts, p), Begin(tiles, cuts, p + 1));
    });
  } else {
    whole.Split(0, tiles);
  }
  // More parts than threads, so that a slow one does not hold up the rest; rows
  // are cut only where there are too few outputs, since weights are unpacked
  // once more for each cut.
  const int64_t wanted = 4 * threads;
  const int64_t across = std::min(panels, wanted);
  const int64_t down =
      std::min(Up(tiles, 2 * kFewTiles), std::max<int64_t>(wanted / across, 1));
  Share(pool, across * down, [&](int64_t p) {
    const int64_t a = p / down, d = p % down;
    whole.Multiply(Begin(panels, across, a), Begin(panels, across, a + 1),
                   Begin(tiles, down, d), Begin(tiles, down, d + 1));
  });
}

}  // namespace jaxnmc
