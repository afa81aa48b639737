// Memory of one thread, kept from call to call.

#ifndef JAXNMC_MEMORY_H_
#define JAXNMC_MEMORY_H_

#include <cstdint>
#include <vector>

namespace jaxnmc {

// Room for `count` values at the start of a cache line; vectors that lie across
// two lines are read at half the speed.  What was there before is lost.
template <typename T>
T* Aligned(std::vector<uint8_t>* memory, int64_t count) {
  const int64_t need = count * static_cast<int64_t>(sizeof(T)) + 64;
  if (static_cast<int64_t>(memory->size()) < need) {
    std::vector<uint8_t>().swap(*memory);
    memory->resize(need);
  }
  const auto at = reinterpret_cast<uintptr_t>(memory->data());
  return reinterpret_cast<T*>((at + 63) / 64 * 64);
}

}  // namespace jaxnmc

#endif  // JAXNMC_MEMORY_H_
