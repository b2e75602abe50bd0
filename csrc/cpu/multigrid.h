// One multigrid V-cycle for ROAD's imputation matrix, four right-hand sides at once.
//
// The matrix A lives on the removed pixels of an image. Row i of A u is d_i u_i - sum_j w_ij u_j over the removed
// neighbors j of pixel i, with w = 2 for direct and 1 for diagonal neighbors (12 times the paper's weights) and d_i the
// sum of w over all neighbors inside the image. Once a pixel is kept, every island of removed pixels touches a kept one
// (diagonally or not), so A is a symmetric positive definite M-matrix.
//
// A coarse point stands on every second pixel of every second row; its basis function is the bilinear hat, cut to zero
// on kept pixels. Coarse matrices are Galerkin products, so a cycle descends in the energy norm whatever the mask.
// Gauss-Seidel goes forward before and backward after the coarse correction, which makes the cycle a symmetric
// preconditioner for conjugate gradients. A cycle costs 4/3 of the work on its finest level.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "lanes.h"

namespace fastcam::FASTCAM_ISA {

// A grid padded with zeros: one column on each side, one row above and at least one below.
struct Level {
  struct Run {
    int64_t begin, end;  // neighboring points of the matrix in one row, as padded indices
  };
  int64_t h, w, stride;
  std::vector<Run> runs;
  std::vector<int64_t> first;  // row y has runs first[y] to first[y + 1] - 1
  std::vector<float> inverse;  // of the diagonal; 0 off the matrix
  std::vector<float> stencil;  // of coarse points: minus the 3 x 3 entries of the matrix, row by row
  std::vector<Four> z, r;      // solution and right-hand side; z is 0 off the matrix
  std::vector<Four> defect;    // four rows of the residual, on their way from smoothing to restriction

  Level(int64_t h, int64_t w) : h(h), w(w), stride(w + 2), inverse(size()), z(size()), r(size()), defect(4 * (w + 4)) {}

  int64_t size() const { return (h + 3) * stride; }
  int64_t at(int64_t y, int64_t x) const { return (y + 1) * stride + x + 1; }

  // To be called when `inverse` is filled.
  void start() {
    std::fill(z.begin(), z.end(), Four{});
    runs.clear();
    first.clear();
    for (int64_t y = 0; y < h; ++y) {
      first.push_back(runs.size());
      for (int64_t i = at(y, 0), end = at(y, w); i < end; ++i) {
        if (inverse[i] == 0) continue;
        const int64_t begin = i;
        while (i < end && inverse[i] != 0) ++i;
        runs.push_back({begin, i});
      }
    }
    first.push_back(runs.size());
  }

  // body(i) for each point of row y.
  template <class Body>
  void row(int64_t y, Body body) const {
    for (int64_t k = first[y]; k < first[y + 1]; ++k)
      for (int64_t i = runs[k].begin; i < runs[k].end; ++i) body(i);
  }
};

// The neighbors' part of a matrix row, minus its sign: among pixels, and among coarse points.
struct Pixels {
  const Level& l;
  static Four three(const Four* z) { return z[-1] + z[1] + 2.0f * z[0]; }
  Four above(int64_t i) const { return three(&l.z[i - l.stride]); }
  Four below(int64_t i) const { return three(&l.z[i + l.stride]); }
  float west(int64_t) const { return 2; }
  float east(int64_t) const { return 2; }
};

struct Points {
  const Level& l;
  static Four three(const float* s, const Four* z) { return s[0] * z[-1] + s[1] * z[0] + s[2] * z[1]; }
  Four above(int64_t i) const { return three(&l.stencil[9 * i], &l.z[i - l.stride]); }
  Four below(int64_t i) const { return three(&l.stencil[9 * i + 6], &l.z[i + l.stride]); }
  float west(int64_t i) const { return l.stencil[9 * i + 3]; }
  float east(int64_t i) const { return l.stencil[9 * i + 5]; }
};

class Multigrid {
 public:
  std::vector<Level> levels;
  std::vector<float> diagonal;  // d of each pixel, in the layout of levels[0]

  // At least two pixels; then there are at least two levels.
  Multigrid(int64_t h, int64_t w) {
    levels.emplace_back(h, w);
    diagonal.resize(levels[0].size());
    for (int64_t y = 0; y < h; ++y)
      for (int64_t x = 0; x < w; ++x) {
        const int rows = (y > 0) + (y < h - 1), columns = (x > 0) + (x < w - 1);
        diagonal[levels[0].at(y, x)] = static_cast<float>(2 * (rows + columns) + rows * columns);
      }
    do {
      h = h / 2 + 1;
      w = w / 2 + 1;
      levels.emplace_back(h, w);
      levels.back().stencil.resize(9 * levels.back().size());
    } while (h > 3 || w > 3);
  }

  // removed: (h, w), with at least one removed and one kept pixel.
  void build(const uint8_t* removed) {
    Level& l = levels[0];
    for (int64_t y = 0; y < l.h; ++y)
      for (int64_t x = 0; x < l.w; ++x) {
        const int64_t i = l.at(y, x);
        l.inverse[i] = removed[y * l.w + x] ? 1 / diagonal[i] : 0;
      }
    l.start();
    for (size_t k = 1; k < levels.size(); ++k) coarsen(levels[k - 1], levels[k]);
    factorize();
  }

  // levels[0].z = an approximate solution for levels[0].r. before(y) runs just before the cycle first works on row y,
  // top to bottom, and after(y) just after it leaves the row, bottom to top: the row is then in the cache.
  template <class Before, class After>
  void cycle(Before before, After after) {
    const auto nothing = [](int64_t) {};
    const size_t last = levels.size() - 1;
    down<Pixels>(levels[0], levels[1], before);
    for (size_t k = 1; k < last; ++k) down<Points>(levels[k], levels[k + 1], nothing);
    solve();
    for (size_t k = last; k-- > 1;) up<Points>(levels[k], levels[k + 1], nothing);
    up<Pixels>(levels[0], levels[1], after);
  }

 private:
  std::vector<int64_t> points_;     // of the coarsest level
  std::vector<double> factor_, x_;  // its Cholesky factor with the inverse of the diagonal; one right-hand side
  std::vector<float> entries_, rows_[3];

  // Smooths from zero and restricts the defect. Up to the point just smoothed the equations hold exactly, so the
  // defect is what the points behind it contribute; a row's is known when the row below is smoothed.
  template <class Neighbors, class Before>
  static void down(Level& l, Level& c, Before before) {
    const Neighbors from{l};
    const int64_t width = l.w + 4;
    std::fill(l.defect.begin(), l.defect.end(), Four{});
    for (int64_t y = 0; y <= 2 * c.h; ++y) {
      if (y < l.h) {
        before(y);
        for (int64_t k = l.first[y]; k < l.first[y + 1]; ++k) {
          Four last{};  // in a register: through memory the chain of dependences takes twice as long
          for (int64_t i = l.runs[k].begin; i < l.runs[k].end; ++i) {
            const float inverse = l.inverse[i];
            l.z[i] = last = inverse * (l.r[i] + from.above(i)) + from.west(i) * inverse * last;
          }
        }
      }
      if (y == 0) continue;
      Four* defect = &l.defect[((y - 1) & 3) * width];
      std::fill(defect, defect + width, Four{});
      if (y <= l.h)
        l.row(y - 1, [&](int64_t i) { defect[i - y * l.stride] = from.below(i) + from.east(i) * l.z[i + 1]; });
      if (y % 2) continue;
      const int64_t Y = y / 2 - 1;
      const Four *upper = &l.defect[((y - 3) & 3) * width], *middle = &l.defect[((y - 2) & 3) * width];
      c.row(Y, [&](int64_t i) {
        const int64_t x = 2 * (i - c.at(Y, 0)) + 1;
        c.r[i] = 0.25f * (upper[x - 1] + upper[x + 1] + defect[x - 1] + defect[x + 1]) +
                 0.5f * (upper[x] + middle[x - 1] + middle[x + 1] + defect[x]) + middle[x];
      });
    }
  }

  // Adds the coarse correction and smooths back.
  template <class Neighbors, class After>
  static void up(Level& l, const Level& c, After after) {
    const Neighbors from{l};
    const auto correct = [&](int64_t y) {
      const Four *upper = &c.z[c.at(y / 2, 0)], *lower = &c.z[c.at((y + 1) / 2, 0)];
      const int64_t begin = l.at(y, 0);
      l.row(y, [&](int64_t i) {
        const int64_t left = (i - begin) >> 1, right = (i - begin + 1) >> 1;
        l.z[i] += 0.25f * (upper[left] + upper[right] + lower[left] + lower[right]);
      });
    };
    correct(l.h - 1);
    for (int64_t y = l.h; y-- > 0;) {
      if (y > 0) correct(y - 1);
      for (int64_t k = l.first[y + 1]; k-- > l.first[y];) {
        Four last{};
        for (int64_t i = l.runs[k].end; i-- > l.runs[k].begin;) {
          const float inverse = l.inverse[i];
          const Four others = l.r[i] + from.above(i) + from.below(i) + from.west(i) * l.z[i - 1];
          l.z[i] = last = inverse * others + from.east(i) * inverse * last;
        }
      }
      after(y);
    }
  }

  // Row y of minus the matrix, nine entries a point from column -1 on, zero outside the grid.
  const float* entries(const Level& l, int64_t y) {
    if (!l.stencil.empty() && y >= 0 && y < l.h) return &l.stencil[9 * l.at(y, -1)];
    entries_.assign(9 * (l.w + 4), 0.0f);
    if (y < 0 || y >= l.h) return entries_.data();
    const float weights[9] = {1, 2, 1, 2, 0, 2, 1, 2, 1};
    l.row(y, [&](int64_t i) {
      float* out = &entries_[9 * (i - l.at(y, -1))];
      for (int k = 0; k < 9; ++k) out[k] = l.inverse[i + (k / 3 - 1) * l.stride + k % 3 - 1] == 0 ? 0.0f : weights[k];
      out[4] = -diagonal[i];
    });
    return entries_.data();
  }

  // out = B' A B along one axis, from the entries (at 0, step, 2 step) of the points 2X - 1, 2X and 2X + 1.
  static void galerkin(const float* a, const float* b, const float* c, int step, float* out) {
    out[0] = 0.5f * (a[0] + b[0]) + 0.25f * a[step];
    out[step] = 0.5f * (a[2 * step] + b[0] + b[2 * step] + c[0]) + 0.25f * (a[step] + c[step]) + b[step];
    out[2 * step] = 0.5f * (b[2 * step] + c[2 * step]) + 0.25f * c[step];
  }

  void coarsen(const Level& f, Level& c) {
    for (auto& row : rows_) row.resize(9 * c.w);
    for (int64_t y = -1; y < 2 * c.h; ++y) {
      const float* at = entries(f, y) + 9;
      for (int64_t i = 0; i < 9 * c.w; i += 3) {
        const float* b = at + i / 9 * 18 + i % 9;
        galerkin(b - 9, b, b + 9, 1, &rows_[2][i]);
      }
      if (y > 0 && y % 2) {
        float* out = &c.stencil[9 * c.at(y / 2, 0)];
        for (int64_t i = 0; i < 9 * c.w; i += 9)
          for (int64_t k = i; k < i + 3; ++k) galerkin(&rows_[0][k], &rows_[1][k], &rows_[2][k], 3, out + k);
        for (int64_t x = 0; x < c.w; ++x) c.inverse[c.at(y / 2, x)] = out[9 * x + 4] < 0 ? -1 / out[9 * x + 4] : 0.0f;
      }
      std::swap(rows_[0], rows_[1]);
      std::swap(rows_[1], rows_[2]);
    }
    c.start();
  }

  void factorize() {
    const Level& l = levels.back();
    points_.clear();
    for (int64_t y = 0; y < l.h; ++y) l.row(y, [&](int64_t i) { points_.push_back(i); });
    const size_t n = points_.size();
    x_.resize(n);
    factor_.assign(n * n, 0.0);
    for (size_t i = 0; i < n; ++i)
      for (int k = 0; k < 9; ++k) {
        const auto j = std::find(points_.begin(), points_.end(), points_[i] + (k / 3 - 1) * l.stride + k % 3 - 1);
        if (j != points_.end()) factor_[i * n + (j - points_.begin())] = -l.stencil[9 * points_[i] + k];
      }
    for (size_t j = 0; j < n; ++j) {
      const double before = factor_[j * n + j];
      for (size_t k = 0; k < j; ++k)
        for (size_t i = j; i < n; ++i) factor_[i * n + j] -= factor_[i * n + k] * factor_[j * n + k];
      // Cut hats can depend on each other; the pivot is then rounding only, and the point is left out.
      const double pivot = factor_[j * n + j], inverse = pivot > 1e-6 * before ? 1 / std::sqrt(pivot) : 0;
      for (size_t i = j; i < n; ++i) factor_[i * n + j] *= inverse;
      factor_[j * n + j] = inverse;
    }
  }

  void solve() {
    Level& l = levels.back();
    const size_t n = points_.size();
    for (int c = 0; c < 4; ++c) {
      for (size_t i = 0; i < n; ++i) {
        double sum = l.r[points_[i]][c];
        for (size_t j = 0; j < i; ++j) sum -= factor_[i * n + j] * x_[j];
        x_[i] = sum * factor_[i * n + i];
      }
      for (size_t i = n; i-- > 0;) {
        for (size_t j = i + 1; j < n; ++j) x_[i] -= factor_[j * n + i] * x_[j];
        l.z[points_[i]][c] = static_cast<float>(x_[i] *= factor_[i * n + i]);
      }
    }
  }
};

}  // namespace fastcam::FASTCAM_ISA
