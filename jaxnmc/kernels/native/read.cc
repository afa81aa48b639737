// Reads an array once, by all threads: the least time that any product with it
// can take.  The exclusive or of its words keeps the compiler from leaving
// reads out.

#include <atomic>
#include <cstdint>
#include <cstring>

#include "share.h"
#include "xla/ffi/api/ffi.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define JAXNMC_X86 1
#endif

namespace ffi = xla::ffi;

namespace {

constexpr int64_t kPart = 1 << 20;

uint64_t FoldPlain(const uint8_t* from, int64_t bytes) {
  uint64_t lanes[8] = {0}, all = 0;
  int64_t i = 0;
  for (; i + 64 <= bytes; i += 64) {
    uint64_t words[8];
    std::memcpy(words, from + i, 64);
    for (int k = 0; k < 8; ++k) lanes[k] ^= words[k];
  }
  for (; i < bytes; ++i) all ^= from[i];
  for (int k = 0; k < 8; ++k) all ^= lanes[k];
  return all;
}

#ifdef JAXNMC_X86

__attribute__((target("avx2"))) uint64_t FoldAvx2(const uint8_t* from,
                                                  int64_t bytes) {
  __m256i lanes[8];
  for (int k = 0; k < 8; ++k) lanes[k] = _mm256_setzero_si256();
  int64_t i = 0;
  for (; i + 256 <= bytes; i += 256) {
    for (int k = 0; k < 8; ++k) {
      const uint8_t* at = from + i + 32 * k;
      if (k % 2 == 0) {
        _mm_prefetch(reinterpret_cast<const char*>(at + 4096), _MM_HINT_T0);
      }
      const __m256i v =
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
      lanes[k] = _mm256_xor_si256(lanes[k], v);
    }
  }
  for (int k = 1; k < 8; ++k) lanes[0] = _mm256_xor_si256(lanes[0], lanes[k]);
  uint64_t words[4], all = FoldPlain(from + i, bytes - i);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(words), lanes[0]);
  for (int k = 0; k < 4; ++k) all ^= words[k];
  return all;
}

#endif  // JAXNMC_X86

uint64_t Fold(const uint8_t* from, int64_t bytes) {
#ifdef JAXNMC_X86
  if (__builtin_cpu_supports("avx2")) return FoldAvx2(from, bytes);
#endif
  return FoldPlain(from, bytes);
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
