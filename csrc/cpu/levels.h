// Thresholds of one map in rising order, and rows of pixels as levels: how many thresholds a pixel exceeds.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "arithmetic.h"

namespace fastcam::FASTCAM_ISA {

// The largest value of a map, NaN aside; -infinity where there is no other. In lanes, because compilers keep a plain
// maximum in order and scalar.
inline float max_of(const float* map, int64_t n) {
  constexpr int64_t lanes = 16;
  float most[lanes];
  std::fill(most, most + lanes, -std::numeric_limits<float>::infinity());
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int64_t j = 0; j < lanes; ++j) most[j] = greater(map[i + j], most[j]);
  for (; i < n; ++i) most[0] = greater(map[i], most[0]);
  return *std::max_element(most, most + lanes);
}

class Levels {
 public:
  std::vector<int32_t> order;  // position i in rising order is the caller's threshold order[i]

  // Row width W; every threshold is multiplied by `scale`.
  Levels(const float* thresholds, int64_t T, float scale, int64_t W) : order(T), limits_(T + 1), cells_(W), near_(W) {
    std::vector<float> products(T);
    for (int64_t t = 0; t < T; ++t) products[t] = limit_of(thresholds[t], scale);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return products[a] < products[b]; });
    for (int64_t t = 0; t < T; ++t) limits_[t] = products[order[t]];
    limits_[T] = infinity;
    find_cells(T);
  }

  // out[x] = number of limits below row[x]; none for NaN.
  template <class Level>
  void quantize(const float* row, int64_t W, Level* out) {
    int32_t* __restrict cells = cells_.data();
    float* __restrict near = near_.data();
    for (int64_t x = 0; x < W; ++x) cells[x] = cell(row[x]);
    if (single_) {
      // Cell c holds limit c alone.
      for (int64_t x = 0; x < W; ++x) near[x] = limits_[cells[x]];
      for (int64_t x = 0; x < W; ++x) out[x] = static_cast<Level>(cells[x] + (row[x] > near[x]));
      return;
    }
    for (int64_t x = 0; x < W; ++x) {
      int32_t level = first_[cells[x]];
      while (row[x] > limits_[level]) ++level;
      out[x] = static_cast<Level>(level);
    }
  }

 private:
  static constexpr float infinity = std::numeric_limits<float>::infinity();
  std::vector<float> limits_;   // and infinity as the end
  std::vector<int32_t> first_;  // first limit in or after a cell
  std::vector<int32_t> cells_;  // scratch, one row
  std::vector<float> near_;     // scratch, one row
  float low_ = 0, step_ = 0, last_ = 0;
  bool single_ = false;

  // Equal steps between the extreme limits. Rounded, but never falling as v rises, so the limits of lower cells are
  // below v and those of higher cells are not. NaN goes to cell 0, where every comparison with it fails.
  int32_t cell(float v) const {
    const float at = (v - low_) * step_ + 0.5f, positive = at > 0 ? at : 0.0f;
    return static_cast<int32_t>(positive < last_ ? positive : last_);
  }

  void find_cells(int64_t T) {
    float high = -infinity;
    low_ = infinity;
    for (int64_t t = 0; t < T; ++t) {
      if (limits_[t] - limits_[t] != 0) continue;  // infinite
      low_ = std::min(low_, limits_[t]);
      high = std::max(high, limits_[t]);
    }
    if (low_ == infinity) low_ = high = 0;
    last_ = static_cast<float>(T - 1);
    const float span = high - low_;
    step_ = span > 0 ? last_ / span : 0.0f;
    single_ = true;
    for (int64_t t = 0; t < T; ++t) single_ = single_ && cell(limits_[t]) == t;
    if (single_) return;
    // Four cells a limit: most then hold one or none.
    last_ = static_cast<float>(4 * T - 1);
    step_ = span > 0 ? last_ / span : 0.0f;
    first_.assign(4 * T, 0);
    for (int64_t c = 0, t = 0; c < 4 * T; ++c) {
      while (t < T && cell(limits_[t]) < c) ++t;
      first_[c] = static_cast<int32_t>(t);
    }
  }
};

}  // namespace fastcam::FASTCAM_ISA
