#include "component_tree.h"
#include "ops.h"
#include "parallel.h"

namespace fastcam::FASTCAM_ISA {
namespace {

bool better(const Component& a, const Component& b) {
  return a.area > b.area || (a.area == b.area && a.first < b.first);
}

template <class Level>
void run(const ComponentBoxes& s) {
  parallel(s.B, worth(s.place, s.B * s.H * s.W), [&](int64_t begin, int64_t end, int) {
    ComponentTree<Level> tree(s.H, s.W, s.connectivity == 8);
    for (int64_t b = begin; b < end; ++b) {
      const float* map = s.maps + b * s.H * s.W;
      Levels levels(s.thresholds + b * s.stride, s.T, s.relative ? max_of(map, s.H * s.W) : 1.0f, s.W);
      tree.build(map, levels, s.T);
      // The largest of a higher level is still a candidate: where it grew, the component around it is larger.
      size_t i = 0;
      const Component* best = nullptr;
      for (int64_t level = s.T; level > 0; --level) {
        for (; i < tree.order.size() && tree[tree.order[i]].level == level; ++i) {
          const Component& c = tree[tree.order[i]];
          if (!best || better(c, *best)) best = &c;
        }
        const int64_t row = b * s.T + levels.order[level - 1];
        const int32_t nothing[] = {0, 0, -1, -1};
        const int32_t box[] = {best ? best->x0 : 0, best ? static_cast<int32_t>(best->first / s.W) : 0,
                               best ? best->x1 : 0, best ? best->y1 : 0};
        std::memcpy(s.boxes + 4 * row, best ? box : nothing, sizeof(box));
        s.areas[row] = best ? best->area : 0;
      }
    }
  });
}

}  // namespace

void component_boxes(const ComponentBoxes& s) { s.T < 256 ? run<uint8_t>(s) : run<uint16_t>(s); }

}  // namespace fastcam::FASTCAM_ISA
