// Exact product of 16-bit activations with a ternary matrix: the entry that XLA
// calls.
//
// Weights are kept as w + 1 in two bits: byte 64 b + j of a row holds the
// weights 256 b + j, + 64, + 128, + 192, the first in the lowest bits.  An
// activation a is split into balanced digits, a = 256 hi + lo, and both planes
// go through 8-bit dot products.  With s = sum(a),
//
//     sum(w a) = sum((w + 1) a) - s.
//
// Every sum of a plane is bounded by 2 * 128 * in, below 2^31 for the lengths
// that the caller allows; the planes are put together modulo 2^32.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "few.h"
#include "gemm.h"
#include "memory.h"
#include "share.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

void FewRows(ffi::ThreadPool* pool, const int32_t* x, int64_t rows,
             int64_t inputs, const uint8_t* packed, int64_t outputs,
             int64_t bytes, int planes, jaxnmc::FewFn run, int32_t* out) {
  const int64_t padded = (inputs + 255) / 256 * 256;
  static thread_local std::vector<uint8_t> memory, sum_memory;
  int8_t* digits = jaxnmc::Aligned<int8_t>(&memory, rows * planes * padded);
  int32_t* sums = jaxnmc::Aligned<int32_t>(&sum_memory, rows);
  std::fill(digits, digits + rows * planes * padded, 0);
  for (int64_t r = 0; r < rows; ++r) {
    int8_t* high = digits + r * planes * padded;
    int8_t* low = high + (planes - 1) * padded;
    uint32_t sum = 0;
    for (int64_t k = 0; k < inputs; ++k) {
      const int32_t v = x[r * inputs + k];
      sum += static_cast<uint32_t>(v);
      low[k] = static_cast<int8_t>(v);
    }
    for (int64_t k = 0; planes == 2 && k < inputs; ++k) {
      high[k] = static_cast<int8_t>(jaxnmc::High(x[r * inputs + k]));
    }
    sums[r] = static_cast<int32_t>(sum);
  }
  const jaxnmc::Few few{digits, sums, padded, rows, planes};
  const int64_t threads = pool->num_threads();
  const int64_t work = outputs * padded * rows;
  if (threads < 2 || work < jaxnmc::kFewAlone || outputs < 64) {
    run(few, packed, bytes, 0, outputs, out, outputs);
    return;
  }
  // More parts than threads, so that a slow one does not hold up the rest.
  const int64_t parts = threads * 2;
  const int64_t each = ((outputs + parts - 1) / parts + 3) / 4 * 4;
  jaxnmc::Share(pool, parts, [&](int64_t p) {
    const int64_t first = p * each;
    const int64_t last = std::min(first + each, outputs);
    if (first < last) run(few, packed, bytes, first, last, out, outputs);
  });
}

ffi::Error Product(ffi::ThreadPool pool, ffi::Buffer<ffi::S32> x,
                   ffi::Buffer<ffi::U8> weights, ffi::Buffer<ffi::S32> layer,
                   ffi::ResultBuffer<ffi::S32> out, int64_t path,
                   int64_t planes, int64_t many) {
  // vmap puts axes in front: of x the batch, of the others ones.
  const auto xs = x.dimensions();
  auto ws = weights.dimensions();
  const int64_t extra = static_cast<int64_t>(ws.size()) - 3;
  bool good = xs.size() >= 2 && extra >= 0 && layer.element_count() == 1;
  for (int64_t i = 0; good && i < extra; ++i) good = ws[i] == 1;
  if (!good || planes < 1 || planes > 2) {
    return ffi::Error::InvalidArgument(
        "x is [..., rows, in], weights are [layers, out, bytes]");
  }
  ws = ws.last(3);
  const int64_t n = xs.back(), wide = ws[1], bytes = ws[2];
  const int64_t rows = n ? static_cast<int64_t>(x.element_count()) / n
                         : out->element_count() / std::max<int64_t>(wide, 1);
  if (bytes % 64 != 0 || bytes * 4 < n) {
    return ffi::Error::InvalidArgument("rows of weights are too short");
  }
  int64_t at = layer.typed_data()[0];
  if (at < 0) at = 0;
  if (at >= ws[0]) at = ws[0] - 1;
  const uint8_t* matrix = weights.typed_data() + at * wide * bytes;
  const jaxnmc::FewPath* few = jaxnmc::ChooseFew(path);
  if (!few || (many < 0 ? rows > few->rows : many)) {
    jaxnmc::Run(jaxnmc::Choose(path), &pool, x.typed_data(), rows, n, matrix,
                wide, bytes, static_cast<int>(planes), out->typed_data());
  } else {
    FewRows(&pool, x.typed_data(), rows, n, matrix, wide, bytes,
            static_cast<int>(planes), few->run, out->typed_data());
  }
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
                                  .Attr<int64_t>("path")
                                  .Attr<int64_t>("planes")
                                  .Attr<int64_t>("many"));

extern "C" const char* JaxnmcTernaryPath() { return jaxnmc::Choose(-1).name; }
