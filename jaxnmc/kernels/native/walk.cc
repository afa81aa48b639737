// The synapse walk: every message adds its row of weights to the targets.
//
//     sums[i] = sum over j with messages[j] != 0 of weights[j, i] * messages[j]
//
// in 32 bits that wrap.  The senders are collected first; then the targets are
// walked in strips whose sums stay in registers or the first cache.

#include <cstdint>
#include <cstring>
#include <vector>

#include "share.h"
#include "xla/ffi/api/ffi.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
// One function per instruction set; the loader picks.
#define JAXNMC_CLONES \
  __attribute__((target_clones("arch=skylake-avx512", "avx2", "default")))
#else
#define JAXNMC_CLONES
#endif

namespace ffi = xla::ffi;

namespace {

constexpr int64_t kStrip = 1024;          // targets at a time
constexpr int64_t kAlone = int64_t{1} << 19;  // fewer sums: one thread

struct Event {
  int32_t source;
  int32_t payload;
};

// Spikes (payload 1) through 8-bit weights: so many sums fit 16 bits, in which
// twice as many are added at a time.
constexpr int64_t kBatch = 255;  // 255 * 128 < 2^15

inline int64_t Spikes(const int8_t* weights, int64_t stride,
                      const Event* events, int64_t count, uint32_t* sums,
                      int64_t width) {
  int64_t e = 0;
  while (e < count && events[e].payload == 1) {
    int16_t few[kStrip] = {0};
    int64_t n = 0;
    for (; n < kBatch && e < count && events[e].payload == 1; ++n, ++e) {
      const int8_t* row = weights + events[e].source * stride;
      for (int64_t i = 0; i < width; ++i) {
        few[i] = static_cast<int16_t>(few[i] + row[i]);
      }
    }
    for (int64_t i = 0; i < width; ++i) {
      sums[i] += static_cast<uint32_t>(static_cast<int32_t>(few[i]));
    }
  }
  return e;
}

template <typename W>
inline int64_t Spikes(const W*, int64_t, const Event*, int64_t, uint32_t*,
                      int64_t) {
  return 0;
}

// Adds the rows of all events for `width` targets; whole strips have a width
// that the compiler knows.
template <typename W>
inline void Strip(const W* weights, int64_t stride, const Event* events,
                  int64_t count, uint32_t* sums, int64_t width) {
  for (int64_t e = Spikes(weights, stride, events, count, sums, width);
       e < count; ++e) {
    const W* row = weights + events[e].source * stride;
    const uint32_t p = static_cast<uint32_t>(events[e].payload);
    if (p == 1) {
      for (int64_t i = 0; i < width; ++i) {
        sums[i] += static_cast<uint32_t>(static_cast<int32_t>(row[i]));
      }
    } else {
      for (int64_t i = 0; i < width; ++i) {
        sums[i] += static_cast<uint32_t>(static_cast<int32_t>(row[i])) * p;
      }
    }
  }
}

#define JAXNMC_WALK(name, W)                                                \
  JAXNMC_CLONES void name(const W* weights, int64_t stride,                 \
                          const Event* events, int64_t count,               \
                          uint32_t* out, int64_t first, int64_t last) {     \
    for (int64_t at = first; at < last; at += kStrip) {                     \
      uint32_t sums[kStrip] = {0};                                          \
      const int64_t width = last - at < kStrip ? last - at : kStrip;        \
      if (width == kStrip) {                                                \
        Strip(weights + at, stride, events, count, sums, kStrip);           \
      } else {                                                              \
        Strip(weights + at, stride, events, count, sums, width);            \
      }                                                                     \
      std::memcpy(out + at, sums, width * sizeof(uint32_t));                \
    }                                                                       \
  }

JAXNMC_WALK(Walk8, int8_t)
JAXNMC_WALK(Walk16, int16_t)
JAXNMC_WALK(Walk32, int32_t)

ffi::Error Walk(ffi::ThreadPool pool, ffi::Buffer<ffi::S32> messages,
                ffi::AnyBuffer weights, ffi::ResultBuffer<ffi::S32> out) {
  const auto shape = weights.dimensions();
  const int64_t n = static_cast<int64_t>(messages.element_count());
  if (shape.size() != 2 || shape[0] != n) {
    return ffi::Error::InvalidArgument(
        "messages are [in], weights are [in, out]");
  }
  const int64_t stride = shape[1];
  const int32_t* sent = messages.typed_data();
  std::vector<Event> events;
  events.reserve(n);
  // Spikes first.
  for (int64_t j = 0; j < n; ++j) {
    if (sent[j] == 1) events.push_back({static_cast<int32_t>(j), 1});
  }
  for (int64_t j = 0; j < n; ++j) {
    const int32_t p = sent[j];
    if (p != 0 && p != 1) events.push_back({static_cast<int32_t>(j), p});
  }
  const int64_t count = static_cast<int64_t>(events.size());
  uint32_t* sums = reinterpret_cast<uint32_t*>(out->typed_data());
  const void* data = weights.untyped_data();
  const ffi::DataType type = weights.element_type();
  if (type != ffi::S8 && type != ffi::S16 && type != ffi::S32) {
    return ffi::Error::InvalidArgument("weights are int8, int16 or int32");
  }
  auto range = [&](int64_t first, int64_t last) {
    if (type == ffi::S8) {
      Walk8(static_cast<const int8_t*>(data), stride, events.data(), count,
            sums, first, last);
    } else if (type == ffi::S16) {
      Walk16(static_cast<const int16_t*>(data), stride, events.data(), count,
             sums, first, last);
    } else {
      Walk32(static_cast<const int32_t*>(data), stride, events.data(), count,
             sums, first, last);
    }
  };
  const int64_t threads = pool.num_threads();
  const int64_t strips = (stride + kStrip - 1) / kStrip;
  if (threads < 2 || strips < 2 || count * stride < kAlone) {
    range(0, stride);
    return ffi::Error::Success();
  }
  const int64_t parts = strips < 2 * threads ? strips : 2 * threads;
  const int64_t each = (strips + parts - 1) / parts * kStrip;
  jaxnmc::Share(&pool, parts, [&](int64_t p) {
    const int64_t first = p * each;
    const int64_t last = first + each < stride ? first + each : stride;
    if (first < last) range(first, last);
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(JaxnmcWalk, Walk,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::Buffer<ffi::S32>>());
