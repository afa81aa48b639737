// Exact products of many rows of activations with a ternary matrix: what the
// instruction sets share.
//
// Both sides are laid out once and then read in one stream each.  With a row of
// activations x = 256 hi + lo in balanced digits, and s = sum(x),
//
//     sum(w x) = 256 sum((w + 1) hi) + sum((w + 1) lo) - s   (mod 2^32),
//
// where w + 1 is 0, 1 or 2: unsigned times signed bytes, which is what the dot
// instructions take.  Where |x| <= 127 there is one plane, lo = x.
//
// A panel of weights is kWide outputs; for every 4 inputs (a step) it holds 4
// bytes of each of the outputs in turn, so a vector register holds 4 inputs of
// 8 or 16 outputs.  A block is 64 steps, the 256 weights of 64 packed bytes.
// Inputs beyond the end are zeros on the side of the activations.

#ifndef JAXNMC_GEMM_H_
#define JAXNMC_GEMM_H_

#include <cstdint>

namespace xla::ffi {
class ThreadPool;
}

namespace jaxnmc {

constexpr int kWide = 32;              // outputs of a panel
constexpr int kSteps = 64;             // steps of a block
constexpr int kBlock = 4 * kSteps;     // inputs of a block
constexpr int kBytes = kBlock * kWide; // bytes of one block of a panel

// Some rows of activations against one panel of weights.
struct Tile {
  const int8_t* digits;   // of all blocks, as `Path::split` leaves them
  const int32_t* sums;    // of the rows
  int rows;
  int planes;
  const uint8_t* panel;   // as `Path::unpack` leaves it, of these blocks only
  int64_t first, blocks;  // if first is 0, `out` is overwritten; else added to
  int32_t* out;           // of the first row and output
  int64_t stride;         // from row to row of `out`
  int outputs;            // at most kWide
};

// One way to compute.  `rows` is the most rows of a tile, for one plane and for
// two; the digits of a tile take as many bytes as that many rows.
struct Path {
  const char* name;
  int rows[2];
  void (*split)(const int32_t* x, int64_t inputs, int64_t blocks, int rows,
                int planes, int8_t* digits, int32_t* sums);
  void (*unpack)(const uint8_t* packed, int64_t bytes, int64_t blocks,
                 int outputs, uint8_t* panel);
  void (*multiply)(const Tile& tile);
  // Around the tiles of one thread; may be null.
  void (*begin)();
  void (*end)();
};

// Null where the machine or the compiler does not have it.
const Path* Plain();
const Path* Avx2();
const Path* Vnni();
const Path* Amx();

// The best path that this machine has, or the one of that index if it has it:
// plain, avx2, avx512vnni, amx.
const Path& Choose(int64_t index);

// int32[rows, inputs] times packed[outputs, bytes], transposed, with the help of
// `pool`, which may be null.
void Run(const Path& path, xla::ffi::ThreadPool* pool, const int32_t* x,
         int64_t rows, int64_t inputs, const uint8_t* packed, int64_t outputs,
         int64_t bytes, int planes, int32_t* out);

// x = 256 hi + lo, lo in -128..127.
inline int32_t High(int32_t x) { return (x + 128) >> 8; }

}  // namespace jaxnmc

#endif  // JAXNMC_GEMM_H_
