// The connected components of one map above every threshold at once.
//
// A component above a threshold lies inside one above each lower threshold: they form a tree. The level of a node is
// the number of thresholds that all its pixels exceed; with a parent of level p it is one component for each of the
// thresholds p to level - 1.
//
// Row by row: the levels along a row have a tree of nested intervals, which a stack finds in one pass over the runs of
// equal level. Edges, pairs of neighboring pixels, then join it to the tree of the rows above. An edge joins all levels
// up to its lower end, so of neighboring edges only those matter whose lower end is a local maximum along the row. A
// smooth map has a few of them per row; from each, one walk down both trees joins level after level.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "levels.h"

namespace fastcam::FASTCAM_ISA {

struct Component {
  int32_t parent;
  int32_t level;
  int32_t area;   // until finish(), of the pixels of exactly this level
  int32_t first;  // the first pixel in row-major order, y * W + x
  int32_t x0, x1, y1;

  void add(const Component& c) {
    area += c.area;
    first = std::min(first, c.first);
    x0 = std::min(x0, c.x0);
    x1 = std::max(x1, c.x1);
    y1 = std::max(y1, c.y1);
  }
};

// Level is an unsigned type that holds the number of thresholds.
template <class Level>
class ComponentTree {
 public:
  std::vector<int32_t> order;  // after build(): all components by falling level

  ComponentTree(int64_t H, int64_t W, bool diagonal)
      : H_(H), W_(W), diagonal_(diagonal), needed_((W + 8) / 8 * 8), stack_(W + 1) {
    for (Row& row : rows_) {
      row.padded.resize(W + 4);
      row.starts.resize(W + 1);
      row.nodes.resize(W + 1);
    }
  }

  const Component& operator[](int32_t i) const { return nodes_[i]; }

  void build(const float* map, Levels& levels, int64_t T) {
    nodes_.assign(2 * W_ + 1, Component{});
    std::fill(rows_[1].padded.begin(), rows_[1].padded.end(), Level{0});
    for (int64_t y = 0; y < H_; ++y) {
      std::swap(rows_[0], rows_[1]);
      levels.quantize(map + y * W_, W_, rows_[1].levels());
      nest(y);
      join();
      keep();
    }
    finish(T);
  }

 private:
  static constexpr int32_t dead = -1;  // level of a node that became part of the one in `parent`

  struct Row {
    std::vector<Level> padded;    // two zeros on both sides
    std::vector<int32_t> starts;  // of runs of equal level, then W
    std::vector<int32_t> nodes;   // of runs
    Level* levels() { return padded.data() + 2; }
  };
  struct Open {
    int32_t level, node;
  };

  int64_t H_, W_;
  bool diagonal_;
  Row rows_[2];  // the one above and the current one
  std::vector<uint8_t> needed_;
  std::vector<Open> stack_;
  // 0 is the root, of level 0. 1 to 2W hold the trees of these two rows alone, even and odd; then come those that stay.
  std::vector<Component> nodes_;
  std::vector<int32_t> strays_;  // nodes that stay whose parent does not
  int32_t begin_ = 0, end_ = 0;  // the nodes of the current row alone

  int32_t find(int32_t i) {
    while (nodes_[i].level == dead) {
      const int32_t next = nodes_[i].parent;
      if (nodes_[next].level == dead) nodes_[i].parent = nodes_[next].parent;
      i = next;
    }
    return i;
  }

  void nest(int64_t y) {
    Row& row = rows_[1];
    const Level* levels = row.levels();
    int32_t* starts = row.starts.data();
    int64_t runs = 1;
    starts[0] = 0;
    for (int64_t x = 1; x < W_; ++x) {
      starts[runs] = static_cast<int32_t>(x);
      runs += levels[x] != levels[x - 1];
    }
    starts[runs] = static_cast<int32_t>(W_);

    Component* nodes = nodes_.data();
    begin_ = static_cast<int32_t>(y % 2 * W_ + 1);
    int32_t next = begin_;
    Open* top = stack_.data();
    *top = {0, 0};
    for (int64_t j = 0; j <= runs; ++j) {
      const int32_t start = starts[j], level = levels[start];  // zero past the end
      int32_t x0 = start;
      while (top->level > level) {
        Component& done = nodes[top->node];
        --top;
        done.x1 = start - 1;
        done.parent = top->level >= level ? top->node : next;
        x0 = done.x0;
      }
      if (top->level < level) {
        *++top = {level, next};
        nodes[next++] = {0, level, 0, static_cast<int32_t>(y * W_) + x0, x0, 0, static_cast<int32_t>(y)};
      }
      if (j == runs) break;
      nodes[top->node].area += starts[j + 1] - start;
      row.nodes[j] = top->node;
    }
    end_ = next;
  }

  // needed[x + 1]: whether the edge at x joins something that its neighbors along the row do not.
  void mark() {
    const Level *a = rows_[0].levels(), *b = rows_[1].levels();
    uint8_t* __restrict needed = needed_.data() + 1;
    if (diagonal_) {
      // Of the four edges between columns x and x + 1 the best one suffices: the others join what the rows join anyway.
      // Its neighbor hangs together with it up to the lower pixel of the column they share.
      for (int64_t x = -1; x < W_; ++x) {
        const Level here = std::min(std::max(a[x], a[x + 1]), std::max(b[x], b[x + 1]));
        const Level right = std::min(std::max(a[x + 1], a[x + 2]), std::max(b[x + 1], b[x + 2]));
        const bool left_no = std::min(a[x], b[x]) < here;
        const bool right_no = (std::min(a[x + 1], b[x + 1]) < here) | (right <= here);
        needed[x] = left_no & right_no;
      }
    } else {
      needed[-1] = 0;
      for (int64_t x = 0; x < W_; ++x) {
        const Level left = std::min(a[x - 1], b[x - 1]), here = std::min(a[x], b[x]);
        const Level right = std::min(a[x + 1], b[x + 1]);
        needed[x] = (left < here) & (right <= here);
      }
    }
  }

  void join() {
    mark();
    Row &above = rows_[0], &row = rows_[1];
    const Level *a = above.levels(), *b = row.levels();
    int64_t i = 0, j = 0;
    for (int64_t group = 0; group <= W_; group += 8) {
      uint64_t any;
      std::memcpy(&any, needed_.data() + group, 8);
      if (!any) continue;
      for (int64_t x = group - 1; x < std::min(group + 7, W_); ++x) {
        if (!needed_[x + 1]) continue;
        const int64_t p = x + (diagonal_ && a[x] < a[x + 1]), q = x + (diagonal_ && b[x] < b[x + 1]);
        while (above.starts[i + 1] <= p) ++i;
        while (row.starts[j + 1] <= q) ++j;
        connect(find(above.nodes[i]), find(row.nodes[j]));
      }
    }
  }

  void set_parent(int32_t i, int32_t parent) {
    nodes_[i].parent = parent;
    if (i > 2 * W_ && parent >= begin_ && parent < end_) strays_.push_back(i);
  }

  // Make one chain of the two that lead down from a and b.
  void connect(int32_t a, int32_t b) {
    if (nodes_[a].level < nodes_[b].level) std::swap(a, b);
    while (a != b && nodes_[b].level > 0) {
      int32_t p = find(nodes_[a].parent);
      if (nodes_[a].level > nodes_[b].level) {
        if (nodes_[p].level >= nodes_[b].level) {
          a = p;
        } else {
          set_parent(a, b);
          a = b;
          b = p;
        }
        continue;
      }
      int32_t q = find(nodes_[b].parent);
      if (a < b) std::swap(a, b);  // the later one stays
      nodes_[a].add(nodes_[b]);
      nodes_[b].level = dead;
      nodes_[b].parent = a;
      if (nodes_[p].level < nodes_[q].level) std::swap(p, q);
      set_parent(a, p);
      a = p;
      b = q;
    }
  }

  // Move what is left of the row's own tree to the nodes that stay.
  void keep() {
    const size_t before = nodes_.size();
    for (int32_t i = begin_; i < end_; ++i) {
      if (nodes_[i].level == dead) continue;
      const Component moved = nodes_[i];
      nodes_[i].level = dead;
      nodes_[i].parent = static_cast<int32_t>(nodes_.size());
      nodes_.push_back(moved);
    }
    for (size_t i = before; i < nodes_.size(); ++i) nodes_[i].parent = find(nodes_[i].parent);
    for (int32_t i : strays_) nodes_[i].parent = find(nodes_[i].parent);
    strays_.clear();
  }

  void finish(int64_t T) {
    const int32_t begin = static_cast<int32_t>(2 * W_ + 1), end = static_cast<int32_t>(nodes_.size());
    std::vector<int32_t> offsets(T + 2);
    for (int32_t i = begin; i < end; ++i)
      if (nodes_[i].level != dead) ++offsets[T - nodes_[i].level + 1];
    for (int64_t t = 1; t <= T + 1; ++t) offsets[t] += offsets[t - 1];
    order.resize(offsets[T + 1]);
    for (int32_t i = begin; i < end; ++i)
      if (nodes_[i].level != dead) order[offsets[T - nodes_[i].level]++] = i;
    for (int32_t i : order) {
      const int32_t parent = nodes_[i].parent = find(nodes_[i].parent);
      if (parent > 0) nodes_[parent].add(nodes_[i]);
    }
  }
};

}  // namespace fastcam::FASTCAM_ISA
