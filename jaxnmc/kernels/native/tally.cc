// How many numbers of each row are not zero: in every stretch of the row, and
// weighted by the columns of a table.
//
// Operands are the values, int32[..., w] each, the layer, int32[1], then of
// those that have one the tables, int8[layers, columns, w], and their sums over
// w, int32[layers, columns].  The result holds,
// value after value, the counts of its stretches and of its columns.  The
// entries of a table are 0 to 127 and rows are shorter than 2^24, so sums fit
// 32 bits.

#include "tally.h"

#include <cstdint>
#include <cstring>
#include <vector>

#include "share.h"
#include "xla/ffi/api/ffi.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define JAXNMC_X86 1
#endif

namespace ffi = xla::ffi;

namespace {

constexpr int64_t kAlone = 1 << 18;  // less work: one thread is faster

struct Value {
  jaxnmc::Counted counted;
  const int32_t* x;
  int64_t at;
};

void SentPlain(const int32_t* x, int64_t n, int8_t* sent) {
  for (int64_t k = 0; k < n; ++k) sent[k] = x[k] != 0;
}

int32_t DotPlain(const int8_t* table, const int8_t* sent, int64_t n) {
  int32_t sum = 0;
  for (int64_t k = 0; k < n; ++k) sum += table[k] * sent[k];
  return sum;
}

#ifdef JAXNMC_X86

__attribute__((target("avx2"))) int32_t DotAvx2(const int8_t* table,
                                                const int8_t* sent,
                                                int64_t n) {
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sums = _mm256_setzero_si256();
  int64_t k = 0;
  for (; k + 32 <= n; k += 32) {
    const __m256i t =
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(table + k));
    const __m256i s =
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sent + k));
    // Pairs of at most 2 * 127: nothing saturates.
    const __m256i pairs = _mm256_maddubs_epi16(t, s);
    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, ones));
  }
  alignas(32) int32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), sums);
  int32_t sum = DotPlain(table + k, sent + k, n - k);
  for (int i = 0; i < 8; ++i) sum += lanes[i];
  return sum;
}

__attribute__((target("avx512f,avx512bw,avx512vnni"))) int32_t DotVnni(
    const int8_t* table, const int8_t* sent, int64_t n) {
  __m512i sums = _mm512_setzero_si512();
  int64_t k = 0;
  for (; k + 64 <= n; k += 64) {
    sums = _mm512_dpbusd_epi32(sums, _mm512_loadu_si512(table + k),
                               _mm512_loadu_si512(sent + k));
  }
  if (k < n) {
    const __mmask64 rest = ~0ULL >> (64 - (n - k));
    sums = _mm512_dpbusd_epi32(sums, _mm512_maskz_loadu_epi8(rest, table + k),
                               _mm512_maskz_loadu_epi8(rest, sent + k));
  }
  return _mm512_reduce_add_epi32(sums);
}

__attribute__((target("avx2"))) void SentAvx2(const int32_t* x, int64_t n,
                                              int8_t* sent) {
  for (int64_t k = 0; k < n; ++k) sent[k] = x[k] != 0;
}

__attribute__((target("avx512f,avx512bw,avx512vl"))) void SentWide(
    const int32_t* x, int64_t n, int8_t* sent) {
  int64_t k = 0;
  for (; k + 16 <= n; k += 16) {
    const __m512i v = _mm512_loadu_si512(x + k);
    const __mmask16 some = _mm512_test_epi32_mask(v, v);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(sent + k),
                     _mm_maskz_set1_epi8(some, 1));
  }
  for (; k < n; ++k) sent[k] = x[k] != 0;
}

#endif  // JAXNMC_X86

// Zeros and ones, and their product with a row of a table.
struct Path {
  void (*sent)(const int32_t*, int64_t, int8_t*);
  int32_t (*dot)(const int8_t*, const int8_t*, int64_t);
};

Path Choose() {
#ifdef JAXNMC_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512vnni")) {
    return {SentWide, DotVnni};
  }
  if (__builtin_cpu_supports("avx2")) return {SentAvx2, DotAvx2};
#endif
  return {SentPlain, DotPlain};
}

ffi::Error Wrong(const char* what) { return ffi::Error::InvalidArgument(what); }

ffi::Error Tally(ffi::ThreadPool pool, ffi::RemainingArgs args,
                 ffi::ResultBuffer<ffi::S32> out,
                 ffi::Span<const int64_t> pieces,
                 ffi::Span<const int64_t> edges,
                 ffi::Span<const int64_t> columns) {
  const size_t count = pieces.size();
  if (columns.size() != count) return Wrong("one number of columns per value");
  std::vector<Value> values(count);
  int64_t rows = -1, total = 0, work = 0, widest = 0;
  size_t edge = 0, table = count + 1;
  auto layer = args.get<ffi::Buffer<ffi::S32>>(count);
  if (!layer.has_value() || layer->element_count() != 1) {
    return Wrong("the layer is int32[1]");
  }
  const int64_t which = layer->typed_data()[0];
  for (size_t i = 0; i < count; ++i) {
    Value& value = values[i];
    jaxnmc::Counted& v = value.counted;
    auto x = args.get<ffi::Buffer<ffi::S32>>(i);
    if (!x.has_value()) return Wrong("values are int32");
    const auto shape = x->dimensions();
    if (shape.size() < 1) return Wrong("values have a row");
    v.width = shape.back();
    const int64_t mine =
        v.width ? static_cast<int64_t>(x->element_count()) / v.width : 0;
    if (rows >= 0 && mine != rows) return Wrong("values have equal rows");
    rows = mine;
    value.x = x->typed_data();
    v.pieces = pieces[i];
    v.columns = columns[i];
    v.table = nullptr;
    v.edges = edges.begin() + edge;
    edge += v.pieces + 1;
    if (edge > edges.size() || v.edges[0] < 0 || v.edges[v.pieces] > v.width) {
      return Wrong("edges are in the row");
    }
    if (v.columns) {
      auto t = args.get<ffi::Buffer<ffi::S8>>(table++);
      if (!t.has_value()) return Wrong("tables are int8");
      const int64_t size = v.width * v.columns;
      const int64_t all = static_cast<int64_t>(t->element_count());
      if (size == 0 || all % size != 0) {
        return Wrong("tables are int8[layers, columns, width]");
      }
      if (which < 0 || which >= all / size) return Wrong("no such layer");
      v.table = t->typed_data() + which * size;
      auto whole = args.get<ffi::Buffer<ffi::S32>>(table++);
      if (!whole.has_value() ||
          static_cast<int64_t>(whole->element_count()) * v.width != all) {
        return Wrong("sums of tables are int32[layers, columns]");
      }
      v.whole = whole->typed_data() + which * v.columns;
    }
    value.at = total;
    total += v.pieces + v.columns;
    work += v.width * (1 + v.columns / 64);
    widest = v.width > widest ? v.width : widest;
  }
  if (static_cast<int64_t>(out->element_count()) != rows * total) {
    return Wrong("the result has a row of all columns per row");
  }
  int32_t* result = out->typed_data();
  auto range = [&](int64_t first, int64_t last) {
    std::vector<int8_t> sent(widest), ones(widest, 1);
    for (int64_t r = first; r < last; ++r) {
      for (const Value& v : values) {
        jaxnmc::CountRow(v.counted, v.x + r * v.counted.width, sent.data(),
                         ones.data(), result + r * total + v.at);
      }
    }
  };
  const int64_t threads = pool.num_threads();
  if (threads < 2 || rows < 2 || rows * work < kAlone) {
    range(0, rows);
    return ffi::Error::Success();
  }
  const int64_t parts = rows < 4 * threads ? rows : 4 * threads;
  jaxnmc::Share(&pool, parts, [&](int64_t p) {
    range(p * rows / parts, (p + 1) * rows / parts);
  });
  return ffi::Error::Success();
}

}  // namespace

void jaxnmc::CountRow(const Counted& v, const int32_t* x, int8_t* sent,
                      const int8_t* ones, int32_t* out) {
  static const Path path = Choose();
  path.sent(x, v.width, sent);
  for (int64_t p = 0; p < v.pieces; ++p) {
    const int64_t from = v.edges[p];
    out[p] = path.dot(sent + from, ones, v.edges[p + 1] - from);
  }
  if (!v.columns) return;
  // Most rows have few zeros: what these would have added is taken away.
  constexpr int64_t kFew = 64;
  int64_t zeros[kFew], found = 0, k = 0;
  for (; k + 8 <= v.width && found <= kFew - 8; k += 8) {
    uint64_t eight;
    std::memcpy(&eight, sent + k, 8);
    if (eight == 0x0101010101010101u) continue;
    for (int64_t i = k; i < k + 8; ++i) {
      if (!sent[i]) zeros[found++] = i;
    }
  }
  for (; k < v.width && found < kFew; ++k) {
    if (!sent[k]) zeros[found++] = k;
  }
  for (int64_t c = 0; c < v.columns; ++c) {
    const int8_t* row = v.table + c * v.width;
    if (k == v.width) {
      int32_t sum = v.whole[c];
      for (int64_t i = 0; i < found; ++i) sum -= row[zeros[i]];
      out[v.pieces + c] = sum;
    } else {
      out[v.pieces + c] = path.dot(row, sent, v.width);
    }
  }
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxnmcTally, Tally,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .RemainingArgs()
                                  .Ret<ffi::Buffer<ffi::S32>>()
                                  .Attr<ffi::Span<const int64_t>>("pieces")
                                  .Attr<ffi::Span<const int64_t>>("edges")
                                  .Attr<ffi::Span<const int64_t>>("columns"));
