// Products of many rows with 256-bit integer and 512-bit VNNI instructions.

#include <cstring>

#include "gemm.h"
#include "gemm_plain.h"
#include "x86.h"

namespace jaxnmc {

#if defined(__x86_64__)

namespace {

// --- 256 bits.  Pairs of byte products are added in 16 bits and stay there for
// a block: 64 steps of at most 2 * 2 * 128 end at -32768 or below 32768.

template <int R, int P>
JAXNMC_AVX2 void TileAvx2(const Tile& t, int half) {
  const int8_t* x = t.digits + t.first * kBlock * R * P;
  const uint8_t* w = t.panel + 64 * half;
  const __m256i one = _mm256_set1_epi16(1);
  const __m256i scale = _mm256_set1_epi16(256);
  __m256i total[R][2];
  for (int r = 0; r < R; ++r) total[r][0] = total[r][1] = _mm256_setzero_si256();
  for (int64_t b = 0; b < t.blocks; ++b) {
    __m256i sum[R][P][2];
#pragma GCC unroll 16
    for (int i = 0; i < R * P; ++i) {
      sum[i / P][i % P][0] = sum[i / P][i % P][1] = _mm256_setzero_si256();
    }
    for (int s = 0; s < kSteps; ++s, w += 4 * kWide, x += 4 * R * P) {
      const __m256i w0 = _mm256_load_si256(reinterpret_cast<const __m256i*>(w));
      const __m256i w1 =
          _mm256_load_si256(reinterpret_cast<const __m256i*>(w + 32));
#pragma GCC unroll 16
      for (int i = 0; i < R * P; ++i) {
        int32_t four;
        std::memcpy(&four, x + 4 * i, 4);
        const __m256i a = _mm256_set1_epi32(four);
        Pairs(&sum[i / P][i % P][0], w0, a);
        Pairs(&sum[i / P][i % P][1], w1, a);
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < R * P; ++i) {
      const __m256i by = i % P + 1 < P ? scale : one;
      for (int c = 0; c < 2; ++c) {
        total[i / P][c] = _mm256_add_epi32(
            total[i / P][c], _mm256_madd_epi16(sum[i / P][i % P][c], by));
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    alignas(32) uint32_t found[16];
    _mm256_store_si256(reinterpret_cast<__m256i*>(found), total[r][0]);
    _mm256_store_si256(reinterpret_cast<__m256i*>(found + 8), total[r][1]);
    int32_t* out = t.out + r * t.stride + 16 * half;
    const int count = t.outputs - 16 * half < 16 ? t.outputs - 16 * half : 16;
    for (int o = 0; o < count; ++o) {
      const uint32_t before = t.first ? out[o] : -static_cast<uint32_t>(t.sums[r]);
      out[o] = static_cast<int32_t>(before + found[o]);
    }
  }
}

template <int P>
void RowsAvx2(const Tile& t, int half) {
  switch (t.rows) {
    case 1: return TileAvx2<1, P>(t, half);
    case 2: return TileAvx2<2, P>(t, half);
    case 3: return TileAvx2<3, P>(t, half);
  }
  if (P == 2) return;
  switch (t.rows) {
    case 4: return TileAvx2<4, 1>(t, half);
    case 5: return TileAvx2<5, 1>(t, half);
    case 6: return TileAvx2<6, 1>(t, half);
  }
}

void MultiplyAvx2(const Tile& t) {
  for (int half = 0; 16 * half < t.outputs; ++half) {
    t.planes == 2 ? RowsAvx2<2>(t, half) : RowsAvx2<1>(t, half);
  }
}

// As `SplitPlain`: of each value the lowest byte, and the next one after 128 was
// added.
JAXNMC_AVX2 void SplitAvx2(const int32_t* x, int64_t inputs, int64_t blocks,
                           int rows, int planes, int8_t* digits,
                           int32_t* sums) {
  const int64_t width = 4 * rows * planes;
  const __m256i half = _mm256_set1_epi32(128);
  const __m256i order = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i bytes = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, -1, -1, -1, -1, -1, -1, -1, -1));
  for (int r = 0; r < rows; ++r) {
    const int32_t* row = x + r * inputs;
    int8_t* to = digits + 4 * r * planes;
    __m256i sum = _mm256_setzero_si256();
    for (int64_t k = 0; k < blocks * kBlock; k += 8, to += 2 * width) {
      const int64_t left = inputs - k < 0 ? 0 : inputs - k < 8 ? inputs - k : 8;
      const __m256i mask = _mm256_cmpgt_epi32(
          _mm256_set1_epi32(static_cast<int32_t>(left)), order);
      const __m256i v = _mm256_maskload_epi32(row + k, mask);
      sum = _mm256_add_epi32(sum, v);
      const __m256i low = _mm256_shuffle_epi8(v, bytes);
      const __m256i high =
          _mm256_shuffle_epi8(_mm256_add_epi32(v, half), bytes);
      // Of each half: its high digits, then its low ones.
      const __m256i both = _mm256_unpacklo_epi32(_mm256_srli_epi64(high, 32),
                                                 low);
      const __m256i found = planes == 2 ? both : low;
      alignas(32) int8_t out[32];
      _mm256_store_si256(reinterpret_cast<__m256i*>(out), found);
      std::memcpy(to, out, 4);
      std::memcpy(to + width, out + 16, 4);
      if (planes == 2) {
        std::memcpy(to + 4, out + 4, 4);
        std::memcpy(to + width + 4, out + 20, 4);
      }
    }
    alignas(32) uint32_t parts[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(parts), sum);
    uint32_t total = 0;
    for (uint32_t part : parts) total += part;
    sums[r] = static_cast<int32_t>(total);
  }
}

JAXNMC_AVX2 void UnpackAvx2(const uint8_t* packed, int64_t bytes,
                            int64_t blocks, int outputs, uint8_t* panel) {
  UnpackPlain(packed, bytes, blocks, outputs, panel);
}

// --- 512 bits

// Every weight register meets R rows of P planes; with 24 sums in registers the
// dot unit is busy in each cycle and reads 14 operands for 24 products.
template <int R, int P>
JAXNMC_VNNI void TileVnni(const Tile& t) {
  const int8_t* x = t.digits + t.first * kBlock * R * P;
  const uint8_t* w = t.panel;
  __m512i sum[R * P][2];
#pragma GCC unroll 16
  for (int i = 0; i < R * P; ++i) {
    sum[i][0] = sum[i][1] = _mm512_setzero_si512();
  }
  for (int64_t s = t.blocks * kSteps; s > 0; --s) {
    const __m512i w0 = _mm512_load_si512(w);
    const __m512i w1 = _mm512_load_si512(w + 64);
#pragma GCC unroll 16
    for (int i = 0; i < R * P; ++i) {
      int32_t four;
      std::memcpy(&four, x + 4 * i, 4);
      const __m512i a = _mm512_set1_epi32(four);
      Dot(&sum[i][0], w0, a);
      Dot(&sum[i][1], w1, a);
    }
    w += 4 * kWide;
    x += 4 * R * P;
  }
  const unsigned all = t.outputs < 32 ? (1u << t.outputs) - 1 : ~0u;
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int c = 0; c < 2; ++c) {
      const __mmask16 mask = static_cast<__mmask16>(all >> (16 * c));
      int32_t* out = t.out + r * t.stride + 16 * c;
      __m512i found = sum[r * P + P - 1][c];
      if (P == 2) {
        found = _mm512_add_epi32(found, _mm512_slli_epi32(sum[r * P][c], 8));
      }
      found = t.first ? _mm512_add_epi32(
                            found, _mm512_maskz_loadu_epi32(mask, out))
                      : _mm512_sub_epi32(found, _mm512_set1_epi32(t.sums[r]));
      _mm512_mask_storeu_epi32(out, mask, found);
    }
  }
}

void MultiplyVnni(const Tile& t) {
  if (t.planes == 2) {
    switch (t.rows) {
      case 1: return TileVnni<1, 2>(t);
      case 2: return TileVnni<2, 2>(t);
      case 3: return TileVnni<3, 2>(t);
      case 4: return TileVnni<4, 2>(t);
      case 5: return TileVnni<5, 2>(t);
      case 6: return TileVnni<6, 2>(t);
    }
  }
  switch (t.rows) {
    case 1: return TileVnni<1, 1>(t);
    case 2: return TileVnni<2, 1>(t);
    case 3: return TileVnni<3, 1>(t);
    case 4: return TileVnni<4, 1>(t);
    case 5: return TileVnni<5, 1>(t);
    case 6: return TileVnni<6, 1>(t);
    case 7: return TileVnni<7, 1>(t);
    case 8: return TileVnni<8, 1>(t);
    case 9: return TileVnni<9, 1>(t);
    case 10: return TileVnni<10, 1>(t);
    case 11: return TileVnni<11, 1>(t);
    case 12: return TileVnni<12, 1>(t);
  }
}

JAXNMC_VNNI void SplitVnni(const int32_t* x, int64_t inputs, int64_t blocks,
                           int rows, int planes, int8_t* digits,
                           int32_t* sums) {
  const int64_t width = 4 * rows * planes;
  const __m512i half = _mm512_set1_epi32(128);
  for (int r = 0; r < rows; ++r) {
    const int32_t* row = x + r * inputs;
    int8_t* to = digits + 4 * r * planes;
    __m512i sum = _mm512_setzero_si512();
    for (int64_t k = 0; k < blocks * kBlock; k += 16, to += 4 * width) {
      const int64_t left = inputs - k;
      const __mmask16 mask =
          left >= 16 ? 0xFFFF : left > 0 ? (1u << left) - 1 : 0;
      const __m512i v = _mm512_maskz_loadu_epi32(mask, row + k);
      sum = _mm512_add_epi32(sum, v);
      const __m128i low = _mm512_cvtepi32_epi8(v);
      if (planes == 1) {
        alignas(16) int32_t four[4];
        _mm_store_si128(reinterpret_cast<__m128i*>(four), low);
        for (int s = 0; s < 4; ++s) std::memcpy(to + s * width, four + s, 4);
        continue;
      }
      const __m128i high = _mm512_cvtepi32_epi8(
          _mm512_srai_epi32(_mm512_add_epi32(v, half), 8));
      const __m128i first = _mm_unpacklo_epi32(high, low);
      const __m128i last = _mm_unpackhi_epi32(high, low);
      _mm_storel_epi64(reinterpret_cast<__m128i*>(to), first);
      _mm_storeh_pd(reinterpret_cast<double*>(to + width),
                    _mm_castsi128_pd(first));
      _mm_storel_epi64(reinterpret_cast<__m128i*>(to + 2 * width), last);
      _mm_storeh_pd(reinterpret_cast<double*>(to + 3 * width),
                    _mm_castsi128_pd(last));
    }
    sums[r] = _mm512_reduce_add_epi32(sum);
  }
}

}  // namespace

// Also for the tiles of AMX.
JAXNMC_VNNI void UnpackVnni(const uint8_t* packed, int64_t bytes,
                            int64_t blocks, int outputs, uint8_t* panel) {
  const __m512i three = _mm512_set1_epi8(3);
  for (int64_t b = 0; b < blocks; ++b) {
    for (int half = 0; half < 2; ++half) {
      const uint8_t* from = packed + 16 * half * bytes + 64 * b;
      const int count = outputs - 16 * half;
      // A square of 16 by 16 words is turned: row i, word t to row t, word i.
      __m512i a[16], c[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) {
        a[i] = i < count ? _mm512_loadu_si512(from + i * bytes)
                         : _mm512_setzero_si512();
        // The next panel is read next.
        _mm_prefetch(reinterpret_cast<const char*>(from + (i + kWide) * bytes),
                     _MM_HINT_T0);
      }
#pragma GCC unroll 8
      for (int i = 0; i < 16; i += 2) {
        c[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        c[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
      }
#pragma GCC unroll 4
      for (int i = 0; i < 16; i += 4) {
        a[i] = _mm512_unpacklo_epi64(c[i], c[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(c[i], c[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(c[i + 1], c[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(c[i + 1], c[i + 3]);
      }
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const __m512i even0 = _mm512_shuffle_i32x4(a[j], a[j + 4], 0x88);
        const __m512i odd0 = _mm512_shuffle_i32x4(a[j], a[j + 4], 0xDD);
        const __m512i even1 = _mm512_shuffle_i32x4(a[j + 8], a[j + 12], 0x88);
        const __m512i odd1 = _mm512_shuffle_i32x4(a[j + 8], a[j + 12], 0xDD);
        c[j] = _mm512_shuffle_i32x4(even0, even1, 0x88);
        c[j + 8] = _mm512_shuffle_i32x4(even0, even1, 0xDD);
        c[j + 4] = _mm512_shuffle_i32x4(odd0, odd1, 0x88);
        c[j + 12] = _mm512_shuffle_i32x4(odd0, odd1, 0xDD);
      }
      uint8_t* to = panel + b * kBytes + 64 * half;
#pragma GCC unroll 4
      for (int f = 0; f < 4; ++f) {
#pragma GCC unroll 16
        for (int t = 0; t < 16; ++t) {
          _mm512_store_si512(
              to + (16 * f + t) * 4 * kWide,
              _mm512_and_si512(_mm512_srli_epi16(c[t], 2 * f), three));
        }
      }
    }
  }
}

const Path* Avx2() {
  static const Path path = {"avx2",       {6, 3}, SplitAvx2, UnpackAvx2,
                            MultiplyAvx2, nullptr, nullptr};
  return HasAvx2() ? &path : nullptr;
}

const Path* Vnni() {
  static const Path path = {"avx512vnni", {12, 6}, SplitVnni, UnpackVnni,
                            MultiplyVnni, nullptr, nullptr};
  return HasVnni() ? &path : nullptr;
}

#else

const Path* Avx2() { return nullptr; }
const Path* Vnni() { return nullptr; }

#endif

}  // namespace jaxnmc
