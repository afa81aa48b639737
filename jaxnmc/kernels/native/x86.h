// Instruction sets by function, so that one library serves every machine.

#ifndef JAXNMC_X86_H_
#define JAXNMC_X86_H_

#if defined(__x86_64__)

#include <immintrin.h>

#define JAXNMC_AVX2 __attribute__((target("avx2")))
#define JAXNMC_VNNI __attribute__((target("avx512f,avx512bw,avx512vnni")))

namespace jaxnmc {

inline bool HasAvx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2");
}

inline bool HasVnni() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vnni");
}

// sum += w a in pairs of bytes, which are added in 16 bits.  As assembly, since
// compilers copy and spill sums around the intrinsics.
JAXNMC_AVX2 inline __attribute__((always_inline)) void Pairs(__m256i* sum,
                                                             __m256i w,
                                                             __m256i a) {
  __m256i two;
  asm("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0"
      : "+x"(*sum), "=&x"(two)
      : "x"(w), "x"(a));
}

// sum += w a in groups of four bytes; assembly for the same reason.
JAXNMC_VNNI inline __attribute__((always_inline)) void Dot(__m512i* sum,
                                                           __m512i w,
                                                           __m512i a) {
  asm("vpdpbusd %2, %1, %0" : "+v"(*sum) : "v"(w), "v"(a));
}

}  // namespace jaxnmc

#endif  // __x86_64__
#endif  // JAXNMC_X86_H_
