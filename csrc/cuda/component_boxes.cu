// boxes[b, t] = box of the largest connected component of maps[b] > thresholds[b, t] (* max maps[b]).
//
// A task is one threshold of one map; a block works through a row of tasks, with labels and areas of one map as its own
// scratch. Union-find: the pixels of a word of 32 side by side start with the label of the first of their run, runs
// that touch are united, the smaller root winning, and the root of a component is then its first pixel in row-major
// order. Only the first pixels of runs count areas, each with one addition.
//
// Moved for each task: the map three times and labels five times from the caches, 32 H * W bytes. Floor: reading the
// B maps once; what it takes beyond that is the price of a pass for each threshold, which many blocks share.
#include "arithmetic.h"
#include "block.h"
#include "ops.h"

namespace fastcam::FASTCAM_ISA {
namespace {

// A pixel in its word of 32 pixels, given which of them are inside.
struct Run {
  int before, after;  // pixels of its run in the same word and row: to its left, and from itself on

  FASTCAM_DEVICE Run(int pixel, int x, int width, uint32_t inside) {
    const int lane = pixel % 32;
    const int gap = width_of(~inside & ((1u << lane) - 1));
    before = lane - gap < x ? lane - gap : x;
    const int ones = trailing_ones(inside >> lane);
    after = ones < width - x ? ones : width - x;
  }
};

struct Box {
  int32_t x0, x1, y1;
};

struct LargestBoxes {
  static constexpr int threads = 512, resident = 2;

  ComponentBoxes s;

  FASTCAM_DEVICE void operator()(Block& block) const {
    const int size = int(s.H * s.W);
    int32_t *labels = s.scratch + int64_t{2} * block.index() * size, *areas = labels + size;
    const int64_t tasks = s.B * s.T, end = tasks * (block.index() + 1) / block.count();
    float most = 1;
    int64_t known = -1;  // the map whose maximum that is
    for (int64_t task = tasks * block.index() / block.count(); task < end; ++task) {
      const int64_t b = task / s.T, t = task % s.T;
      const float* map = s.maps + b * size;
      if (s.relative && b != known) {
        most = block.reduce(
            size, float_of(0xff800000u), [&](int i) { return map[i]; }, [](float a, float v) { return greater(v, a); });
        known = b;
      }
      label(block, map, limit_of(s.thresholds[b * s.stride + t], most), labels, areas);
      find_best(block, labels, areas, s.boxes + 4 * task, s.areas + task);
    }
  }

 private:
  // labels: of the first pixels of runs their component's first pixel, of others their run's, -1 outside.
  FASTCAM_DEVICE void label(Block& block, const float* map, float limit, int32_t* labels, int32_t* areas) const {
    const int size = int(s.H * s.W), width = int(s.W);
    const auto inside = [&](int i) { return map[i] > limit; };
    block.vote(size, inside, [&](int i, uint32_t votes) {
      if (!(votes >> i % 32 & 1)) {
        labels[i] = -1;
        return;
      }
      const Run run(i, i % width, width, votes);
      labels[i] = i - run.before;
      if (run.before == 0) areas[i] = 0;
    });
    block.each(size, [&](int i) {
      if (!inside(i)) return;
      const int x = i % width;
      const bool left = x > 0 && inside(i - 1);
      if (left && i % 32 == 0) unite(labels, i, i - 1);
      if (i < width) return;
      const bool north = inside(i - width), west = x > 0 && inside(i - width - 1);
      if (s.connectivity == 4) {
        if (north && !(left && west)) unite(labels, i, i - width);
        return;
      }
      // Whatever touches the left neighbor too is united with that one, and north hangs together with both its sides.
      if (north) {
        if (!left) unite(labels, i, i - width);
        return;
      }
      if (west && !left) unite(labels, i, i - width - 1);
      if (x + 1 < width && inside(i - width + 1)) unite(labels, i, i - width + 1);
    });
    block.vote(size, inside, [&](int i, uint32_t votes) {
      if (!(votes >> i % 32 & 1)) return;
      const Run run(i, i % width, width, votes);
      if (run.before) return;
      const int32_t first = root(labels, i);
      labels[i] = first;
      atomic_add(areas + first, run.after);
    });
  }

  // The largest area, then the first pixel that comes first; its box from the labels.
  FASTCAM_DEVICE void find_best(Block& block, const int32_t* labels, const int32_t* areas, int32_t* box,
                                int32_t* area) const {
    const int size = int(s.H * s.W), width = int(s.W);
    const uint64_t best = block.reduce(
        size, uint64_t{0},
        [&](int i) { return labels[i] == i ? uint64_t(areas[i]) << 32 | (~uint32_t(i)) : uint64_t{0}; },
        [](uint64_t a, uint64_t b) { return a > b ? a : b; });
    const int first = best ? int(~uint32_t(best)) : size;
    const Box found = block.reduce(
        size - first, Box{width, -1, -1},
        [&](int i) {
          const int pixel = first + i, label = labels[pixel];
          if (label < 0 || labels[label] != first) return Box{width, -1, -1};
          return Box{pixel % width, pixel % width, pixel / width};
        },
        [](Box a, Box b) {
          return Box{a.x0 < b.x0 ? a.x0 : b.x0, a.x1 > b.x1 ? a.x1 : b.x1, a.y1 > b.y1 ? a.y1 : b.y1};
        });
    block.each(1, [&](int) {
      box[0] = best ? found.x0 : 0;
      box[1] = best ? first / width : 0;
      box[2] = found.x1;
      box[3] = found.y1;
      *area = int32_t(best >> 32);
    });
  }

  FASTCAM_DEVICE static int32_t root(const int32_t* labels, int32_t i) {
    for (int32_t next = peek(labels + i); next != i; next = peek(labels + i)) i = next;
    return i;
  }

  FASTCAM_DEVICE static void unite(int32_t* labels, int32_t a, int32_t b) {
    a = root(labels, a);
    b = root(labels, b);
    while (a != b) {
      const int32_t high = a > b ? a : b, low = a > b ? b : a;
      const int32_t before = atomic_min(labels + high, low);
      if (before == high) return;
      a = root(labels, before);  // another thread was first: what it joined high to is joined to low as well
      b = low;
    }
  }
};

}  // namespace

void component_boxes(const ComponentBoxes& s) { launch("component_boxes", s.blocks, 0, s.place, LargestBoxes{s}); }

}  // namespace fastcam::FASTCAM_ISA
