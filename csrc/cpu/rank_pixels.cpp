// Radix sort from the lowest digit up, of pairs (key, index) in one 64-bit word. Digits cover only the bits in which
// the keys of a map differ: a map in [0, 1] or of 16-bit floats has fewer of them.
#include <vector>

#include "arithmetic.h"
#include "ops.h"
#include "parallel.h"

namespace fastcam::FASTCAM_ISA {
namespace {

constexpr int widest = 11;  // bits of a digit: 2048 counters are 8 KB of the L1 cache
constexpr int most = 4;     // digits of a key, at 8 bits each

// Up to this many pixels a thread keeps its scratch: touching new memory takes as long as the sort.
constexpr int64_t modest = 65536;

// place(i, counter) for each i in order, with the counter of digit(i), which goes up by one. A run of equal digits, as
// in the zeros that a ReLU leaves, would wait for its counter each time: four of them wait once.
template <class Digit, class Place>
void scatter(int64_t n, uint32_t* counters, Digit digit, Place place) {
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    const uint32_t a = digit(i), b = digit(i + 1), c = digit(i + 2), d = digit(i + 3);
    if ((a ^ b) | (a ^ c) | (a ^ d)) {
      place(i, counters[a]++);
      place(i + 1, counters[b]++);
      place(i + 2, counters[c]++);
      place(i + 3, counters[d]++);
    } else {
      const uint32_t first = counters[a];
      counters[a] = first + 4;
      for (uint32_t k = 0; k < 4; ++k) place(i + k, first + k);
    }
  }
  for (; i < n; ++i) place(i, counters[digit(i)]++);
}

// Keys in `ranks` become ranks: the last pass reads a key before it writes to its place.
template <int passes>
void sort(const Digits digits, uint32_t* ranks, int64_t n, uint64_t* from, uint64_t* to) {
  const uint32_t mask = digits.mask, low = digits.low, bits = digits.bits;
  uint32_t counts[passes][1 << widest];
  for (auto& one : counts) std::fill_n(one, mask + 1, 0u);
  for (int64_t i = 0; i < n; ++i)
    for (int pass = 0; pass < passes; ++pass) ++counts[pass][ranks[i] >> low >> pass * bits & mask];
  for (auto& one : counts) {  // from how many have a digit to how many have a smaller one
    uint32_t before = 0;
    for (uint32_t d = 0; d <= mask; ++d) {
      const uint32_t here = one[d];
      one[d] = before;
      before += here;
    }
  }
  const auto first = [&](int64_t i) { return ranks[i] >> low & mask; };
  if constexpr (passes == 1) return scatter(n, counts[0], first, [&](int64_t i, uint32_t at) { ranks[i] = at; });
  scatter(n, counts[0], first,
          [&](int64_t i, uint32_t at) { from[at] = uint64_t{ranks[i] >> low} << 32 | static_cast<uint32_t>(i); });
  for (int pass = 1; pass < passes; ++pass) {
    const uint32_t shift = 32 + pass * bits;
    const auto digit = [&](int64_t i) { return static_cast<uint32_t>(from[i] >> shift & mask); };
    if (pass < passes - 1) {
      scatter(n, counts[pass], digit, [&](int64_t i, uint32_t at) { to[at] = from[i]; });
      std::swap(from, to);
    } else {
      scatter(n, counts[pass], digit, [&](int64_t i, uint32_t at) { ranks[static_cast<uint32_t>(from[i])] = at; });
    }
  }
}

}  // namespace

void rank_pixels(const RankPixels& s) {
  parallel(s.N, worth(s.place, s.N * s.P), [&](int64_t begin, int64_t end, int) {
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
