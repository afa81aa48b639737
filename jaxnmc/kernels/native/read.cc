// Reads an array once, by all threads: the least time that any product with it
// can take.  The exclusive or of its words keeps the compiler from leaving
// reads out.

#include <atomic>
#include <cstdint>
#include <cstring>

#include "share.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

constexpr int64_t kPart = 1 << 20;

#if defined(__x86_64__)
__attribute__((target("avx2")))
#endif
uint64_t Fold(const uint8_t* from, int64_t bytes) {
  uint64_t lanes[16] = {0};
  int64_t i = 0;
  for (; i + 128 <= bytes; i += 128) {
    __builtin_prefetch(from + i + 4096);
    uint64_t words[16];
    std::memcpy(words, from + i, 128);
    for (int k = 0; k < 16; ++k) lanes[k] ^= words[k];
  }
  uint64_t all = 0;
  for (; i < bytes; ++i) all ^= from[i];
  for (int k = 0; k < 16; ++k) all ^= lanes[k];
  return all;
}

ffi::Error Read(ffi::ThreadPool pool, ffi::Buffer<ffi::U8> x,
                ffi::ResultBuffer<ffi::U32> out) {
  const int64_t bytes = static_cast<int64_t>(x.element_count());
  const uint8_t* from = x.typed_data();
  std::atomic<uint64_t> all{0};
  const int64_t parts = (bytes + kPart - 1) / kPart;
  jaxnmc::Share(&pool, parts, [&](int64_t p) {
    const int64_t first = p * kPart;
    const int64_t size = first + kPart < bytes ? kPart : bytes - first;
    all ^= Fold(from + first, size);
  });
  const uint64_t sum = all;
  out->typed_data()[0] = static_cast<uint32_t>(sum ^ (sum >> 32));
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxnmcRead, Read,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::U8>>()
                                  .Ret<ffi::Buffer<ffi::U32>>());
