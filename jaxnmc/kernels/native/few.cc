// A few rows: packed weights are read once and meet up to four rows as they
// come, without being laid out first.
//
// With VNNI the two-bit fields are masked, not shifted: their factors 1, 4, 16,
// 64 stay in four sums and are shifted out of them at the end, which is exact.
// Every sum is bounded by 3 * 64 * 128 * in / 16, below 2^31.

#include "few.h"

#include <algorithm>

#include "x86.h"

namespace jaxnmc {
namespace {

// Bytes between fetching weights and using them: from memory, then from the
// second cache.  The first has too few fetches under way to hide memory.
constexpr int64_t kFar = 8192, kNear = 1024;

#if defined(__x86_64__)

JAXNMC_AVX2 inline uint32_t Sum256(__m256i v) {
  const __m128i low = _mm256_castsi256_si128(v);
  const __m128i four = _mm_add_epi32(low, _mm256_extracti128_si256(v, 1));
  const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4E));
  const __m128i one = _mm_add_epi32(two, _mm_shuffle_epi32(two, 0xB1));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(one));
}

// Here the fields are shifted: pairs of 8-bit products are added in 16 bits,
// and with a weight up to 2 they cannot saturate.
template <int P>
JAXNMC_AVX2 void Avx2Planes(const Few& x, const uint8_t* packed, int64_t bytes,
                            int64_t first, int64_t last, int32_t* out,
                            int64_t stride) {
  const __m256i ones = _mm256_set1_epi16(1);
  const __m256i three = _mm256_set1_epi8(3);
  for (int64_t o = first; o < last; ++o) {
    const uint8_t* row = packed + o * bytes;
    for (int64_t r = 0; r < x.rows; ++r) {
      const int8_t* a = x.digits + r * P * x.padded;
      __m256i sum[P];
      for (int p = 0; p < P; ++p) sum[p] = _mm256_setzero_si256();
      for (int64_t at = 0; at < x.padded / 4; at += 32) {
        __m256i w =
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + at));
        const int64_t k = at / 64 * 256 + at % 64;
        for (int f = 0; f < 4; ++f) {
          const __m256i two = _mm256_and_si256(w, three);
          for (int p = 0; p < P; ++p) {
            const __m256i v = _mm256_loadu_si256(
                reinterpret_cast<const __m256i*>(a + p * x.padded + k + 64 * f));
            sum[p] = _mm256_add_epi32(
                sum[p], _mm256_madd_epi16(_mm256_maddubs_epi16(two, v), ones));
          }
          w = _mm256_srli_epi16(w, 2);
        }
      }
      uint32_t total = Sum256(sum[P - 1]) - static_cast<uint32_t>(x.sums[r]);
      if (P == 2) total += Sum256(sum[0]) << 8;
      out[r * stride + o] = static_cast<int32_t>(total);
    }
  }
}

void Avx2(const Few& x, const uint8_t* packed, int64_t bytes, int64_t first,
          int64_t last, int32_t* out, int64_t stride) {
  (x.planes == 2 ? Avx2Planes<2> : Avx2Planes<1>)(x, packed, bytes, first,
                                                  last, out, stride);
}

// The sums of four registers in one.
JAXNMC_VNNI inline __m128i Sums(const __m512i* v) {
  const __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]),
                                     _mm512_unpackhi_epi32(v[0], v[1]));
  const __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]),
                                     _mm512_unpackhi_epi32(v[2], v[3]));
  const __m512i c = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b),
                                     _mm512_unpackhi_epi64(a, b));
  const __m256i d = _mm256_add_epi32(_mm512_castsi512_si256(c),
                                     _mm512_extracti64x4_epi64(c, 1));
  return _mm_add_epi32(_mm256_castsi256_si128(d),
                       _mm256_extracti128_si256(d, 1));
}

// O outputs of R rows of P planes: 16 partial sums per row and output.  Digits
// are read once for all outputs, since a register is filled once per cycle.
template <int R, int P, int O>
JAXNMC_VNNI inline __attribute__((always_inline)) void Outputs(
    const uint8_t* row, int64_t bytes, const int8_t* digits, int64_t padded,
    __m512i* found) {
  // Sums of each field, or fields that are shifted: more instructions per
  // weight, fewer at the end of a row.
    constexpr bool kApart = O == 1 && R * P <= 6;
  constexpr int kSums = kApart ? 4 : 1;
  __m512i sum[O][R * P][kSums];
  __m512i mask[4];
#pragma GCC unroll 4
  for (int f = 0; f < 4; ++f) {
    mask[f] = _mm512_set1_epi8(static_cast<char>(3 << (2 * f)));
  }
#pragma GCC unroll 4
  for (int o = 0; o < O; ++o) {
#pragma GCC unroll 8
    for (int i = 0; i < R * P; ++i) {
#pragma GCC unroll 4
      for (int f = 0; f < kSums; ++f) sum[o][i][f] = _mm512_setzero_si512();
    }
  }
  for (int64_t k = 0; k < padded; k += 256) {
    __m512i w[O];
#pragma GCC unroll 4
    for (int o = 0; o < O; ++o) {
      const uint8_t* at = row + o * bytes + k / 4;
      // Rows follow one another, so these also fetch the start of the next.
      _mm_prefetch(reinterpret_cast<const char*>(at + kFar), _MM_HINT_T1);
      _mm_prefetch(reinterpret_cast<const char*>(at + kNear), _MM_HINT_T0);
      w[o] = _mm512_loadu_si512(at);
    }
#pragma GCC unroll 4
    for (int f = 0; f < 4; ++f) {
      __m512i field[O];
#pragma GCC unroll 4
      for (int o = 0; o < O; ++o) {
        field[o] = _mm512_and_si512(
            kApart ? w[o] : _mm512_srli_epi16(w[o], 2 * f),
            mask[kApart ? f : 0]);
      }
#pragma GCC unroll 8
      for (int i = 0; i < R * P; ++i) {
        const __m512i a = _mm512_loadu_si512(digits + i * padded + k + 64 * f);
#pragma GCC unroll 4
        for (int o = 0; o < O; ++o) {
          Dot(&sum[o][i][kApart ? f : 0], field[o], a);
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int o = 0; o < O; ++o) {
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      __m512i total[P];
#pragma GCC unroll 2
      for (int p = 0; p < P; ++p) {
        const __m512i* s = sum[o][r * P + p];
        total[p] = s[0];
#pragma GCC unroll 4
        for (int f = 1; f < kSums; ++f) {
          total[p] = _mm512_add_epi32(total[p], _mm512_srai_epi32(s[f], 2 * f));
        }
      }
      found[o * R + r] =
          P == 1 ? total[0]
                 : _mm512_add_epi32(_mm512_slli_epi32(total[0], 8),
                                    total[P - 1]);
    }
  }
}

// R rows from the first on; outputs in groups that fill four registers.
template <int R, int P>
JAXNMC_VNNI void Rows(const Few& x, int64_t from, const uint8_t* packed,
                      int64_t bytes, int64_t first, int64_t last, int32_t* out,
                      int64_t stride) {
  constexpr int kGroup = R == 1 ? 4 : R == 2 ? 2 : 1;
  constexpr int kPair = R * P <= 2 ? 2 : 1;
  const int8_t* digits = x.digits + from * P * x.padded;
  for (int64_t o = first; o < last; o += kGroup) {
    const int count = static_cast<int>(std::min<int64_t>(kGroup, last - o));
    __m512i found[4];
    for (int i = 0; i < 4; ++i) found[i] = _mm512_setzero_si512();
    int g = 0;
    for (; kPair == 2 && g + 2 <= count; g += 2) {
      Outputs<R, P, kPair>(packed + (o + g) * bytes, bytes, digits, x.padded,
                           found + g * R);
    }
    for (; g < count; ++g) {
      Outputs<R, P, 1>(packed + (o + g) * bytes, bytes, digits, x.padded,
                       found + g * R);
    }
    alignas(16) int32_t sums[4];
    _mm_store_si128(reinterpret_cast<__m128i*>(sums), Sums(found));
    for (int g = 0; g < count; ++g) {
      for (int r = 0; r < R; ++r) {
        out[(from + r) * stride + o + g] = static_cast<int32_t>(
            static_cast<uint32_t>(sums[g * R + r]) -
            static_cast<uint32_t>(x.sums[from + r]));
      }
    }
  }
}

template <int P>
void VnniPlanes(const Few& x, const uint8_t* packed, int64_t bytes,
                int64_t first, int64_t last, int32_t* out, int64_t stride) {
  for (int64_t r = 0; r < x.rows; r += 4) {
    switch (std::min<int64_t>(x.rows - r, 4)) {
      case 1: Rows<1, P>(x, r, packed, bytes, first, last, out, stride); break;
      case 2: Rows<2, P>(x, r, packed, bytes, first, last, out, stride); break;
      case 3: Rows<3, P>(x, r, packed, bytes, first, last, out, stride); break;
      case 4: Rows<4, P>(x, r, packed, bytes, first, last, out, stride); break;
    }
  }
}

void Vnni(const Few& x, const uint8_t* packed, int64_t bytes, int64_t first,
          int64_t last, int32_t* out, int64_t stride) {
  (x.planes == 2 ? VnniPlanes<2> : VnniPlanes<1>)(x, packed, bytes, first,
                                                  last, out, stride);
}

#endif  // __x86_64__

}  // namespace

const FewPath* ChooseFew(int64_t path) {
#if defined(__x86_64__)
  static const FewPath avx2 = {Avx2, 4}, vnni = {Vnni, 6};
  if ((path < 0 || path > 1) && HasVnni()) return &vnni;
  if (path != 0 && HasAvx2()) return &avx2;
#endif
  return nullptr;
}

}  // namespace jaxnmc
