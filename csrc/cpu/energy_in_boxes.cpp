#include <vector>

#include "ops.h"
#include "parallel.h"

namespace fastcam::FASTCAM_ISA {
namespace {

constexpr int64_t lanes = 8;  // sums kept apart, so that every instruction set adds in the same order

struct Sum {
  double lane[lanes] = {};

  void add(const float* values, int64_t n) {
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes)
      for (int64_t j = 0; j < lanes; ++j) lane[j] += static_cast<double>(values[i + j]);
    for (int64_t j = 0; i < n; ++i, ++j) lane[j] += static_cast<double>(values[i]);
  }

  double total() const {
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
  }
};

// Comparisons with NaN fail: such a box holds nothing.
inline int holds(float low, float high, float at, bool inclusive) {
  return (low <= at) & (inclusive ? at <= high : at < high);
}

}  // namespace

void energy_in_boxes(const EnergyInBoxes& s) {
  parallel(s.B, worth(s.place, s.B * s.H * s.W), [&](int64_t begin, int64_t end, int) {
    std::vector<int> covered(s.W);
    std::vector<float> kept(s.W);
    for (int64_t b = begin; b < end; ++b) {
      Sum inside, total;
      for (int64_t y = 0; y < s.H; ++y) {
        const float* row = s.maps + (b * s.H + y) * s.W;
        total.add(row, s.W);
        bool any = false;
        for (const float* box = s.boxes + b * s.N * 4; box < s.boxes + (b + 1) * s.N * 4; box += 4) {
          if (!holds(box[1], box[3], static_cast<float>(y), s.inclusive)) continue;
          if (!any) std::fill(covered.begin(), covered.end(), 0);
          any = true;
          for (int64_t x = 0; x < s.W; ++x) covered[x] |= holds(box[0], box[2], static_cast<float>(x), s.inclusive);
        }
        if (!any) continue;
        // A choice, not a product: infinity and NaN outside do not count.
        for (int64_t x = 0; x < s.W; ++x) kept[x] = covered[x] ? row[x] : 0.0f;
        inside.add(kept.data(), s.W);
      }
      s.inside[b] = inside.total();
      s.total[b] = total.total();
    }
  });
}

}  // namespace fastcam::FASTCAM_ISA
