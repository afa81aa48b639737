// Exact product of a few rows of 16-bit activations with a ternary matrix.
//
// Weights are kept as w + 1 in two bits: byte 64 b + j of a row holds the
// weights 256 b + j, + 64, + 128, + 192, the first in the lowest bits.  An
// activation a is split into balanced digits, a = 256 hi + lo, and both planes
// go through 8-bit dot products.  The two-bit fields are masked, not shifted:
// their factors 1, 4, 16, 64 stay in four accumulators and are shifted out of
// the sums, which is exact.  With s = sum(a),
//
//     sum(w a) = sum((w + 1) a) - s.
//
// Every sum of a row is bounded by 128 * 128 * in, below 2^31 for in < 131072;
// the caller checks that.

#include <cstdint>
#include <vector>

#include "share.h"
#include "xla/ffi/api/ffi.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define JAXNMC_X86 1
#endif

namespace ffi = xla::ffi;

namespace {

constexpr int kBlock = 256;      // weights of 64 bytes
constexpr int64_t kAlone = 1 << 19;  // fewer weights: one thread is faster

// Digits of one row of activations, padded with zeros to whole blocks.
struct Digits {
  std::vector<int8_t> hi, lo;
  int64_t total_hi = 0, total_lo = 0;

  void Split(const int32_t* x, int64_t n, int64_t padded) {
    hi.assign(padded, 0);
    lo.assign(padded, 0);
    total_hi = total_lo = 0;
    for (int64_t i = 0; i < n; ++i) {
      const int32_t low = ((x[i] + 128) & 255) - 128;
      const int32_t high = (x[i] - low) >> 8;
      lo[i] = static_cast<int8_t>(low);
      hi[i] = static_cast<int8_t>(high);
      total_lo += low;
      total_hi += high;
    }
  }
};

// Sum of (w + 1) times both digits over a row; `blocks` of 64 bytes.
using RowFn = void (*)(const uint8_t* row, const int8_t* hi, const int8_t* lo,
                       int64_t blocks, int64_t* sum_hi, int64_t* sum_lo);

void RowPlain(const uint8_t* row, const int8_t* hi, const int8_t* lo,
              int64_t blocks, int64_t* sum_hi, int64_t* sum_lo) {
  int64_t h = 0, l = 0;
  for (int64_t b = 0; b < blocks; ++b) {
    for (int j = 0; j < 64; ++j) {
      const uint8_t byte = row[64 * b + j];
      for (int k = 0; k < 4; ++k) {
        const int w = (byte >> (2 * k)) & 3;
        const int64_t at = kBlock * b + 64 * k + j;
        h += w * hi[at];
        l += w * lo[at];
      }
    }
  }
  *sum_hi = h;
  *sum_lo = l;
}

#ifdef JAXNMC_X86

__attribute__((target("avx2"))) int64_t Sum256(__m256i v) {
  const __m128i low = _mm256_castsi256_si128(v);
  const __m128i four = _mm_add_epi32(low, _mm256_extracti128_si256(v, 1));
  const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4E));
  const __m128i one = _mm_add_epi32(two, _mm_shuffle_epi32(two, 0xB1));
  return _mm_cvtsi128_si32(one);
}

__attribute__((target("avx2"))) void RowAvx2(const uint8_t* row,
                                             const int8_t* hi,
                                             const int8_t* lo, int64_t blocks,
                                             int64_t* sum_hi,
                                             int64_t* sum_lo) {
  const __m256i ones = _mm256_set1_epi16(1);
  const __m256i three = _mm256_set1_epi8(3);
  __m256i h = _mm256_setzero_si256(), l = h;
  for (int64_t b = 0; b < blocks; ++b) {
    for (int half = 0; half < 2; ++half) {
      __m256i w = _mm256_loadu_si256(
          reinterpret_cast<const __m256i*>(row + 64 * b + 32 * half));
      for (int k = 0; k < 4; ++k) {
        // Here the fields are shifted: pairs of 8-bit products are added in 16
        // bits, and with a weight up to 2 they cannot saturate.
        const __m256i two = _mm256_and_si256(w, three);
        const int64_t at = kBlock * b + 64 * k + 32 * half;
        const __m256i a =
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(hi + at));
        const __m256i c =
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lo + at));
        h = _mm256_add_epi32(
            h, _mm256_madd_epi16(_mm256_maddubs_epi16(two, a), ones));
        l = _mm256_add_epi32(
            l, _mm256_madd_epi16(_mm256_maddubs_epi16(two, c), ones));
        w = _mm256_srli_epi16(w, 2);
      }
    }
  }
  *sum_hi = Sum256(h);
  *sum_lo = Sum256(l);
}

__attribute__((target("avx512f,avx512bw,avx512vnni"))) void RowVnni(
    const uint8_t* row, const int8_t* hi, const int8_t* lo, int64_t blocks,
    int64_t* sum_hi, int64_t* sum_lo) {
  __m512i h[4], l[4], mask[4];
  for (int k = 0; k < 4; ++k) {
    h[k] = l[k] = _mm512_setzero_si512();
    mask[k] = _mm512_set1_epi8(static_cast<char>(3 << (2 * k)));
  }
  for (int64_t b = 0; b < blocks; ++b) {
    const uint8_t* at = row + 64 * b;
    // Rows follow one another, so this also fetches the start of the next.
    _mm_prefetch(reinterpret_cast<const char*>(at + 4096), _MM_HINT_T0);
    const __m512i w = _mm512_loadu_si512(at);
    for (int k = 0; k < 4; ++k) {
      const __m512i field = _mm512_and_si512(w, mask[k]);
      const int64_t from = kBlock * b + 64 * k;
      h[k] = _mm512_dpbusd_epi32(h[k], field, _mm512_loadu_si512(hi + from));
      l[k] = _mm512_dpbusd_epi32(l[k], field, _mm512_loadu_si512(lo + from));
    }
  }
  int64_t th = 0, tl = 0;
  for (int k = 0; k < 4; ++k) {
    th += static_cast<int64_t>(_mm512_reduce_add_epi32(h[k])) >> (2 * k);
    tl += static_cast<int64_t>(_mm512_reduce_add_epi32(l[k])) >> (2 * k);
  }
  *sum_hi = th;
  *sum_lo = tl;
}

#endif  // JAXNMC_X86

const char* const kPaths[] = {"plain", "avx2", "avx512vnni"};

int Best() {
#ifdef JAXNMC_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vnni")) {
    return 2;
  }
  if (__builtin_cpu_supports("avx2")) return 1;
#endif
  return 0;
}

RowFn Row(int path) {
#ifdef JAXNMC_X86
  if (path == 2) return RowVnni;
  if (path == 1) return RowAvx2;
#endif
  return RowPlain;
}

ffi::Error Product(ffi::ThreadPool pool, ffi::Buffer<ffi::S32> x,
                   ffi::Buffer<ffi::U8> weights, ffi::Buffer<ffi::S32> layer,
                   ffi::ResultBuffer<ffi::S32> out, int64_t path) {
  // vmap puts axes in front: of x the batch, of the others ones.
  const auto xs = x.dimensions();
  auto ws = weights.dimensions();
  const int64_t extra = static_cast<int64_t>(ws.size()) - 3;
  bool good = xs.size() >= 2 && extra >= 0 && layer.element_count() == 1;
  for (int64_t i = 0; good && i < extra; ++i) good = ws[i] == 1;
  if (!good) {
    return ffi::Error::InvalidArgument(
        "x is [..., rows, in], weights are [layers, out, bytes]");
  }
  ws = ws.last(3);
  const int64_t n = xs.back(), wide = ws[1], bytes = ws[2];
  const int64_t rows = n ? static_cast<int64_t>(x.element_count()) / n : 0;
  const int64_t blocks = bytes / 64;
  if (bytes % 64 != 0 || blocks * kBlock < n) {
    return ffi::Error::InvalidArgument("rows of weights are too short");
  }
  int64_t at = layer.typed_data()[0];
  if (at < 0) at = 0;
  if (at >= ws[0]) at = ws[0] - 1;
  const uint8_t* matrix = weights.typed_data() + at * wide * bytes;
  const int best = Best();
  const RowFn row = Row(path < 0 || path > best ? best : static_cast<int>(path));

  std::vector<Digits> digits(rows);
  for (int64_t m = 0; m < rows; ++m) {
    digits[m].Split(x.typed_data() + m * n, n, blocks * kBlock);
  }
  int32_t* result = out->typed_data();
  auto range = [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      for (int64_t m = 0; m < rows; ++m) {
        int64_t hi = 0, lo = 0;
        row(matrix + i * bytes, digits[m].hi.data(), digits[m].lo.data(),
            blocks, &hi, &lo);
        hi -= digits[m].total_hi;
        lo -= digits[m].total_lo;
        result[m * wide + i] = static_cast<int32_t>(256 * hi + lo);
      }
    }
  };
  const int64_t threads = pool.num_threads();
  if (threads < 2 || wide * bytes * 4 * rows < kAlone || wide < 64) {
    range(0, wide);
    return ffi::Error::Success();
  }
  // More parts than threads, so that a slow one does not hold up the rest.
  const int64_t parts = threads * 2;
  const int64_t each = (wide + parts - 1) / parts;
  jaxnmc::Share(&pool, parts, [&](int64_t p) {
    const int64_t first = p * each;
    const int64_t last = first + each < wide ? first + each : wide;
    if (first < last) range(first, last);
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxnmcTernary, Product,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::U8>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Ret<ffi::Buffer<ffi::S32>>()
                                  .Attr<int64_t>("path"));

extern "C" const char* JaxnmcTernaryPath() { return kPaths[Best()]; }
