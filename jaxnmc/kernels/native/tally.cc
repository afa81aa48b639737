// How many numbers of each row are not zero: in every stretch of the row, and
// weighted by the columns of a table.
//
// Operands are the values, int32[..., w] each, then the tables int8[w, columns]
// of those that have one.  The result holds, value after value, the counts of
// its stretches and of its columns.  The entries of a table are 0 to 127 and
// rows are shorter than 2^24, so sums fit 32 bits.

#include <cstdint>
#include <vector>

#include "share.h"
#include "xla/ffi/api/ffi.h"

#if defined(__x86_64__)
#define JAXNMC_X86 1
#endif

namespace ffi = xla::ffi;

namespace {

constexpr int64_t kAlone = 1 << 18;  // less work: one thread is faster

struct Value {
  const int32_t* x;
  const int8_t* table;
  const int64_t* edges;
  int64_t width, pieces, columns, at;
};

// The loops are plain; `target` lets the compiler use wide registers.
#define JAXNMC_ROW(name, target)                                             \
  target void name(const Value& v, const int32_t* x, int32_t* out) {         \
    for (int64_t p = 0; p < v.pieces; ++p) {                                 \
      int32_t n = 0;                                                         \
      for (int64_t k = v.edges[p]; k < v.edges[p + 1]; ++k) n += x[k] != 0;  \
      out[p] = n;                                                            \
    }                                                                        \
    int32_t* sums = out + v.pieces;                                          \
    for (int64_t c = 0; c < v.columns; ++c) sums[c] = 0;                     \
    if (v.columns == 0) return;                                              \
    for (int64_t k = 0; k < v.width; ++k) {                                  \
      if (x[k] == 0) continue;                                               \
      const int8_t* row = v.table + k * v.columns;                           \
      for (int64_t c = 0; c < v.columns; ++c) sums[c] += row[c];             \
    }                                                                        \
  }

JAXNMC_ROW(RowPlain, )
#ifdef JAXNMC_X86
JAXNMC_ROW(RowAvx2, __attribute__((target("avx2"))))
JAXNMC_ROW(RowWide, __attribute__((target("avx512f,avx512bw,avx512vl"))))
#endif

using RowFn = void (*)(const Value&, const int32_t*, int32_t*);

RowFn Row() {
#ifdef JAXNMC_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")) {
    return RowWide;
  }
  if (__builtin_cpu_supports("avx2")) return RowAvx2;
#endif
  return RowPlain;
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
  int64_t rows = -1, total = 0, work = 0;
  size_t edge = 0, table = count;
  for (size_t i = 0; i < count; ++i) {
    Value& v = values[i];
    auto x = args.get<ffi::Buffer<ffi::S32>>(i);
    if (!x.has_value()) return Wrong("values are int32");
    const auto shape = x->dimensions();
    if (shape.size() < 1) return Wrong("values have a row");
    v.width = shape.back();
    const int64_t mine =
        v.width ? static_cast<int64_t>(x->element_count()) / v.width : 0;
    if (rows >= 0 && mine != rows) return Wrong("values have equal rows");
    rows = mine;
    v.x = x->typed_data();
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
      if (static_cast<int64_t>(t->element_count()) != v.width * v.columns) {
        return Wrong("tables are int8[width, columns]");
      }
      v.table = t->typed_data();
    }
    v.at = total;
    total += v.pieces + v.columns;
    work += v.width * (1 + v.columns / 16);
  }
  if (static_cast<int64_t>(out->element_count()) != rows * total) {
    return Wrong("the result has a row of all columns per row");
  }
  const RowFn row = Row();
  int32_t* result = out->typed_data();
  auto range = [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      for (const Value& v : values) {
        row(v, v.x + r * v.width, result + r * total + v.at);
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

XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxnmcTally, Tally,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .RemainingArgs()
                                  .Ret<ffi::Buffer<ffi::S32>>()
                                  .Attr<ffi::Span<const int64_t>>("pieces")
                                  .Attr<ffi::Span<const int64_t>>("edges")
                                  .Attr<ffi::Span<const int64_t>>("columns"));
