#include "ops.h"
#include "parallel.h"
#include "resample.h"

namespace fastcam::FASTCAM_ISA {
namespace {

// Cells of one map, ready to be stretched. Moved to start at zero unless a ReLU still has to see their sign: a small
// range on a large offset then loses no digits.
void fill(const ResizeNormalize& s, const float* map, Table& table) {
  const int64_t n = s.h * s.w;
  const bool relu = s.clip == Clip::before;
  const float first = relu && map[0] < 0 ? 0.0f : map[0], origin = s.clip == Clip::after ? 0.0f : first;
  for (int64_t i = 0; i < n; ++i) table.cells[i] = (relu && map[i] < 0 ? 0.0f : map[i]) - origin;
}

}  // namespace

void resize_normalize(const ResizeNormalize& s) {
  const Resample shared(s.h, s.w, s.H, s.W, false);
  const int threads = worth(s.place, s.N * s.H * s.W);
  parallel(s.N, threads, [&](int64_t begin, int64_t end, int) {
    Table table(shared, 1);
    for (int64_t n = begin; n < end; ++n) {
      fill(s, s.maps + n * s.h * s.w, table);
      table.stretch();
      Range r = table.extremes();
      if (s.clip == Clip::after) r = {r.low < 0 ? 0.0f : r.low, r.high < 0 ? 0.0f : r.high};
      table.normalize_rows(r);
      table.finish();
      float* __restrict out = s.out + n * s.H * s.W;
      for (int64_t y = 0; y < s.H; ++y, out += s.W) {
        const auto [low, step, t] = table.at(y);
        for (int64_t x = 0; x < s.W; ++x) {
          // Below zero are only what the ReLU after the resize takes away, and rounding.
          const float v = low[x] + t * step[x], positive = v < 0 ? 0.0f : v;
          out[x] = positive > 1 ? 1.0f : positive;
        }
      }
    }
  });
}

}  // namespace fastcam::FASTCAM_ISA
