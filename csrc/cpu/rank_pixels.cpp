// Radix sort from the lowest digit up, of pairs (key, index) in one 64-bit word. Digits cover only the bits in which
// the keys of a map differ: a map in [0, 1] or of 16-bit floats has fewer of them.
#include <vector>

#include "convert.h"
#include "ops.h"
#include "parallel.h"

namespace fastcam::FASTCAM_ISA {
namespace {

constexpr int widest = 11;  // bits of a digit: 2048 counters are 8 KB of the L1 cache
constexpr int most = 4;     // digits of a key, at 8 bits each

// Up to this many pixels a thread keeps its scratch: touching new memory takes as long as the sort.
constexpr int64_t modest = 65536;

// Falling floats give rising keys, equal floats equal ones, NaN the last.
inline uint32_t key_of(float v) {
  const uint32_t u = bits_of(v + 0.0f);  // -0 becomes 0
  const uint32_t negative = 0u - (u >> 31), nan = 0u - uint32_t{(u & 0x7fffffffu) > 0x7f800000u};
  return (u ^ (0x7fffffffu & ~negative)) | nan;
}

// How the differing bits of a map's keys are cut into as few digits as they need, of equal widths.
struct Digits {
  int low = 0, passes, bits;
  uint32_t mask;

  Digits(uint32_t differing, int limit) {
    while (differing && !(differing >> low & 1)) ++low;
    int width = 1;
    while (width < 32 - low && differing >> low >> width) ++width;
    passes = (width + limit - 1) / limit;
    bits = (width + passes - 1) / passes;
    mask = (1u << bits) - 1;
  }
};

// Keys in `ranks` become ranks: the last pass reads a key before it writes to its place.
template <int passes>
void sort(const Digits digits, uint32_t* ranks, int64_t n, uint64_t* from, uint64_t* to) {
  const uint32_t mask = digits.mask, low = digits.low, bits = digits.bits;
  uint32_t counts[passes][1 << widest];
  for (auto& one : counts) std::fill_n(one, mask + 1, 0u);
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t key = ranks[i] >> low;
    for (int pass = 0; pass < passes; ++pass) ++counts[pass][key >> pass * bits & mask];
  }
  for (auto& one : counts) {  // from how many have a digit to how many have a smaller one
    uint32_t before = 0;
    for (uint32_t d = 0; d <= mask; ++d) {
      const uint32_t here = one[d];
      one[d] = before;
      before += here;
    }
  }
  if constexpr (passes == 1) {
    for (int64_t i = 0; i < n; ++i) ranks[i] = counts[0][ranks[i] >> low & mask]++;
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t key = ranks[i] >> low;
    from[counts[0][key & mask]++] = uint64_t{key} << 32 | static_cast<uint32_t>(i);
  }
  for (int pass = 1; pass < passes - 1; ++pass) {
    const uint32_t shift = 32 + pass * bits;
    for (int64_t i = 0; i < n; ++i) {
      const uint64_t item = from[i];
      to[counts[pass][item >> shift & mask]++] = item;
    }
    std::swap(from, to);
  }
  const uint32_t shift = 32 + (passes - 1) * bits;
  for (int64_t i = 0; i < n; ++i) {
    const uint64_t item = from[i];
    ranks[static_cast<uint32_t>(item)] = counts[passes - 1][item >> shift & mask]++;
  }
}

}  // namespace

void rank_pixels(const RankPixels& s) {
  parallel(s.N, worth(s.threads, s.N * s.P), [&](int64_t begin, int64_t end, int) {
    if (begin == end) return;
    thread_local std::vector<uint64_t> kept;
    std::vector<uint64_t> own;
    std::vector<uint64_t>& scratch = s.P <= modest ? kept : own;
    if (static_cast<int64_t>(scratch.size()) < 2 * s.P) scratch.resize(2 * s.P);
    uint64_t *from = scratch.data(), *to = from + s.P;
    for (int64_t n = begin; n < end; ++n) {
      const float* map = s.maps + n * s.P;
      uint32_t* ranks = reinterpret_cast<uint32_t*>(s.ranks) + n * s.P;
      uint32_t any = 0, all = ~0u;
      for (int64_t i = 0; i < s.P; ++i) {
        const uint32_t key = key_of(map[i]);
        ranks[i] = key;
        any |= key;
        all &= key;
      }
      const Digits digits(any ^ all, s.P < 4096 ? 8 : widest);
      switch (digits.passes) {
        case 1: sort<1>(digits, ranks, s.P, from, to); break;
        case 2: sort<2>(digits, ranks, s.P, from, to); break;
        case 3: sort<3>(digits, ranks, s.P, from, to); break;
        case most: sort<most>(digits, ranks, s.P, from, to); break;
      }
    }
  });
}

}  // namespace fastcam::FASTCAM_ISA
