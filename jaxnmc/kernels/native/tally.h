// How many numbers of a row are not zero, by stretch and by column of a table.

#ifndef JAXNMC_TALLY_H_
#define JAXNMC_TALLY_H_

#include <cstdint>

namespace jaxnmc {

// What is counted of a row: `edges` of its `pieces` stretches, then the rows of
// `table`, int8[columns, width] of 0 to 127, which are sums of weights; `whole`
// are the sums of a row without zeros, int32[columns].
struct Counted {
  const int8_t* table;
  const int32_t* whole;
  const int64_t* edges;
  int64_t width, pieces, columns;
};

// Counts of a row, int32[pieces + columns]; `sent` is room for `width` bytes,
// `ones` has so many that are 1.
void CountRow(const Counted& counted, const int32_t* x, int8_t* sent,
              const int8_t* ones, int32_t* out);

}  // namespace jaxnmc

#endif  // JAXNMC_TALLY_H_
