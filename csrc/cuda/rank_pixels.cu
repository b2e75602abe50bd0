// ranks[n, p] = position of pixel p in falling order of maps[n]; equal values in the order of their indices, NaN last.
//
// One block sorts a map: radix sort from the lowest digit up, of pairs (key, index) in one 64-bit word, by the bits in
// which the map's keys differ, 8 at a time. In a pass each warp counts the digits of its share of the pairs, a scan
// over digits, then warps, turns counts into places, and each warp moves its share in order: that keeps it stable.
//
// Moved for each map of P pixels and each pass, of which a map in [0, 1] has four and one of 16-bit floats two: pairs
// read twice and written once, 24 P bytes, from the caches where the pairs of all blocks fit. Floor: the map read and
// the ranks written once, 8 P bytes.
#include "arithmetic.h"
#include "block.h"
#include "ops.h"

namespace fastcam::FASTCAM_ISA {
namespace {

struct Bits {
  uint32_t any, all;
};

struct RankedPixels {
  static constexpr int threads = 1024, resident = 1;
  static constexpr int warps = threads / 32, digit_bits = 8;
  static constexpr int64_t shared_bytes = int64_t{warps} * (1 << digit_bits) * sizeof(uint32_t);

  RankPixels s;

  FASTCAM_DEVICE void operator()(Block& block) const {
    uint32_t* counters = block.take<uint32_t>(warps << digit_bits);
    const int size = int(s.P);
    for (int64_t n = block.index(); n < s.N; n += block.count()) {
      const float* map = s.maps + n * size;
      const Bits bits = block.reduce(
          size, Bits{0, ~0u},
          [&](int i) {
            const uint32_t key = key_of(map[i]);
            return Bits{key, key};
          },
          [](Bits a, Bits b) { return Bits{a.any | b.any, a.all & b.all}; });
      const Digits digits(bits.any ^ bits.all, digit_bits);
      uint64_t* from = s.scratch + int64_t{2} * block.index() * size;
      uint64_t* to = from + size;
      for (int pass = 0; pass < digits.passes; ++pass) {
        move(block, map, digits, pass, counters, from, to, s.ranks + n * size);
        uint64_t* moved = to;
        to = from;
        from = moved;
      }
    }
  }

 private:
  // One pass: pairs go from `from` to `to`, at first from the map itself and at last into the ranks.
  FASTCAM_DEVICE void move(Block& block, const float* map, const Digits& digits, int pass, uint32_t* counters,
                           const uint64_t* from, uint64_t* to, int32_t* ranks) const {
    const int size = int(s.P), count = int(digits.mask) + 1, shift = 32 + pass * digits.bits, low = digits.low;
    const uint32_t mask = digits.mask;
    const bool first = pass == 0, last = pass == digits.passes - 1;
    const auto pair = [&](int i) { return first ? uint64_t{key_of(map[i]) >> low} << 32 | uint32_t(i) : from[i]; };
    const auto digit = [&](int i) { return uint32_t(pair(i) >> shift) & mask; };
    const auto counter = [&](int i) { return counters + i % warps * count + i / warps; };
    block.each(warps * count, [&](int i) { counters[i] = 0; });
    block.tally(size, counters, count, digit);
    block.scan(warps * count, [&](int i) { return *counter(i); }, [&](int i, uint32_t sum) { *counter(i) = sum; });
    block.scatter(size, counters, count, digit, [&](int i, uint32_t at) {
      const uint64_t moved = pair(i);
      if (last) {
        ranks[uint32_t(moved)] = int32_t(at);
      } else {
        to[at] = moved;
      }
    });
  }
};

}  // namespace

void rank_pixels(const RankPixels& s) {
  launch("rank_pixels", s.blocks, RankedPixels::shared_bytes, s.place, RankedPixels{s});
}

}  // namespace fastcam::FASTCAM_ISA
