// Tile instructions of AMX, or plain C++ of the same meaning for tests on
// machines without them: JAXNMC_EMULATE_TILES=1 is right, 2 is wrong on purpose.

#ifndef JAXNMC_TILES_H_
#define JAXNMC_TILES_H_

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)

namespace jaxnmc {

// Eight tiles of 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};  // of 8 tiles
};
static_assert(sizeof(TileConfig) == 64, "as the processor reads it");

}  // namespace jaxnmc

#ifdef JAXNMC_EMULATE_TILES

namespace jaxnmc {

struct Emulated {
  bool ready = false;
  uint8_t at[8][16][64];
};
inline thread_local Emulated tiles;

inline void EmulateConfig(const void* config) {
  TileConfig want;
  tiles.ready = std::memcmp(config, &want, sizeof want) == 0;
  std::memset(tiles.at, 0, sizeof tiles.at);
}
inline void EmulateRelease() { tiles.ready = false; }
inline void EmulateZero(int t) { std::memset(tiles.at[t], 0, 1024); }
inline void EmulateLoad(int t, const void* from, int64_t stride) {
  for (int i = 0; i < 16; ++i) {
    std::memcpy(tiles.at[t][i], static_cast<const char*>(from) + i * stride,
                64);
  }
}
inline void EmulateStore(int t, void* to, int64_t stride) {
  for (int i = 0; i < 16; ++i) {
    std::memcpy(static_cast<char*>(to) + i * stride, tiles.at[t][i], 64);
  }
}
// tdpbsud: to[m][n] += sum over k, j of a[m][4 k + j] b[k][4 n + j], the bytes
// of `a` signed and those of `b` unsigned.
inline void EmulateDot(int to, int a, int b) {
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 16; ++n) {
      uint32_t sum;
      std::memcpy(&sum, &tiles.at[to][m][4 * n], 4);
      for (int k = 0; k < 16; ++k) {
        for (int j = 0; j < 4; ++j) {
          sum += static_cast<int8_t>(tiles.at[a][m][4 * k + j]) *
                 static_cast<int32_t>(tiles.at[b][k][4 * n + j]);
        }
      }
      // Without a configuration the processor would stop.
      if (!tiles.ready || (JAXNMC_EMULATE_TILES == 2 && m == 15)) sum += 1;
      std::memcpy(&tiles.at[to][m][4 * n], &sum, 4);
    }
  }
}

}  // namespace jaxnmc

#define JAXNMC_AMX
#define TILE_CONFIG(c) jaxnmc::EmulateConfig(c)
#define TILE_RELEASE() jaxnmc::EmulateRelease()
#define TILE_ZERO(t) jaxnmc::EmulateZero(t)
#define TILE_LOAD(t, from, stride) jaxnmc::EmulateLoad(t, from, stride)
#define TILE_STORE(t, to, stride) jaxnmc::EmulateStore(t, to, stride)
#define TILE_DOT(to, a, b) jaxnmc::EmulateDot(to, a, b)

namespace jaxnmc {
inline bool TilesAllowed() { return true; }
}  // namespace jaxnmc

#elif defined(__linux__) && __has_include(<amxint8intrin.h>)

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define JAXNMC_AMX __attribute__((target("amx-tile,amx-int8")))
#define TILE_CONFIG(c) _tile_loadconfig(c)
#define TILE_RELEASE() _tile_release()
#define TILE_ZERO(t) _tile_zero(t)
#define TILE_LOAD(t, from, stride) _tile_loadd(t, from, stride)
#define TILE_STORE(t, to, stride) _tile_stored(t, to, stride)
#define TILE_DOT(to, a, b) _tile_dpbsud(to, a, b)

namespace jaxnmc {

// Whether processor and system have tiles and the system lets this process use
// them: Linux wants to be asked, for the whole process, once.
inline bool TilesAllowed() {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 27))) return false;
  unsigned low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  constexpr unsigned kState = 3u << 17;  // tile configuration and data
  if ((low & kState) != kState) return false;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned kTiles = 3u << 24;  // AMX-TILE and AMX-INT8
  if ((d & kTiles) != kTiles) return false;
  constexpr long kAskPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kAskPermission, kTileData) == 0;
}

}  // namespace jaxnmc

#endif  // emulated, or Linux with a compiler that knows tiles
#endif  // __x86_64__
#endif  // JAXNMC_TILES_H_
