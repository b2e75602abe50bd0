#include <cstring>

#include "component_tree.h"
#include "ops.h"
#include "parallel.h"

namespace fastcam::FASTCAM_ISA {
namespace {

struct Found {
  int32_t threshold, first, box[4], area;
};

template <class Level>
void search(const ComponentTree<Level>& tree, const Levels& levels, int64_t W, int64_t min_area,
            std::vector<Found>& found) {
  for (int32_t i : tree.order) {
    const Component& c = tree[i];
    if (c.area < min_area) continue;
    for (int32_t t = tree[c.parent].level; t < c.level; ++t)
      found.push_back({levels.order[t], c.first, {c.x0, static_cast<int32_t>(c.first / W), c.x1, c.y1}, c.area});
  }
  std::sort(found.begin(), found.end(), [](const Found& a, const Found& b) {
    return a.threshold != b.threshold ? a.threshold < b.threshold : a.first < b.first;
  });
}

template <class Level>
void run(const Components& s) {
  std::vector<std::vector<Found>> found(s.B);
  parallel(s.B, worth(s.place, s.B * s.H * s.W), [&](int64_t begin, int64_t end, int) {
    ComponentTree<Level> tree(s.H, s.W, s.connectivity == 8);
    for (int64_t b = begin; b < end; ++b) {
      const float* map = s.maps + b * s.H * s.W;
      Levels levels(s.thresholds + b * s.stride, s.T, s.relative ? max_of(map, s.H * s.W) : 1.0f, s.W);
      tree.build(map, levels, s.T);
      search(tree, levels, s.W, s.min_area, found[b]);
    }
  });
  int64_t row = 0;
  *s.count = 0;
  for (const auto& image : found) *s.count += static_cast<int64_t>(image.size());
  if (*s.count > s.capacity) return;
  for (int64_t b = 0; b < s.B; ++b)
    for (const Found& f : found[b]) {
      std::memcpy(s.boxes + 4 * row, f.box, sizeof(f.box));
      s.areas[row] = f.area;
      s.owners[2 * row] = b;
      s.owners[2 * row + 1] = f.threshold;
      ++row;
    }
}

}  // namespace

void components(const Components& s) { s.T < 256 ? run<uint8_t>(s) : run<uint16_t>(s); }

}  // namespace fastcam::FASTCAM_ISA
