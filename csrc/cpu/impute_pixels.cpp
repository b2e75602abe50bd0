// ROAD's linear imputation: A u = b on the removed pixels of an image, with the matrix A of multigrid.h.
//
// Conjugate gradients in float, preconditioned by one multigrid cycle, improve u; a round of a few steps ends by
// computing the residual r = b - A u anew in double. Three channels are solved at once. The fourth lane solves A w = 1,
// and with w the error is bounded, not guessed:
//
//   Let s = max |1 - A w| < 1 and t = max |r|. A is an M-matrix, so all entries of its inverse are >= 0, and
//   A (w t / (1 - s)) >= t >= |r| gives, multiplied by the inverse, w t / (1 - s) >= |u - A^-1 b| at every pixel.
//
// The rounds end when this bound, with the rounding of r added to t, is below the tolerance. The true error is then
// typically a thousand times smaller, because the residual changes sign from pixel to pixel, which the bound ignores.
// An image that does not get there in `rounds` is reported as failed: its caller must solve it otherwise.
#include <atomic>
#include <limits>
#include <memory>

#include "multigrid.h"
#include "ops.h"
#include "parallel.h"

namespace fastcam::FASTCAM_ISA {
namespace {

constexpr int rounds = 20;
constexpr int round_steps = 4;        // after six steps or so, float cannot improve on the round's residual any further
constexpr int64_t group = 3;          // channels solved at once
constexpr int barrier = 3;            // the lane of w
constexpr double rounding = 0x1p-44;  // of r in double, of values within +-1: 20 operations with sums up to 24

class Imputation {
 public:
  Imputation(int64_t h, int64_t w)
      : h_(h),
        w_(w),
        grid_(h, w),
        pixels_(grid_.levels[0]),
        u_(pixels_.size()),
        e_(u_.size()),
        p_(u_.size()),
        q_(u_.size()) {}

  // Fills the removed pixels of all channels; false if the error may be above tolerance * range.
  bool run(const float* image, const uint8_t* removed, float* out, int64_t channels, double tolerance) {
    grid_.build(removed);
    std::fill(p_.begin(), p_.end(), Four{});
    bool success = true;
    for (int64_t c = 0; c < channels; c += group) {
      const int64_t count = std::min(group, channels - c), plane = h_ * w_;
      load(image + c * plane, removed, count);
      success = solve(tolerance) && success;
      store(out + c * plane, count);
    }
    return success;
  }

 private:
  struct Scale {
    double low, high;  // of the kept pixels
    double middle() const { return low + 0.5 * (high - low); }
    double half() const { return 0.5 * (high - low); }
    bool finite;
  };

  int64_t h_, w_;
  Multigrid grid_;
  Level& pixels_;
  std::vector<Wide> u_;  // solution, in [-1, 1]; kept pixels hold their values, the fourth lane is w
  std::vector<Four> e_, p_, q_;
  Scale scales_[group];
  double residual_[4], highest_;  // max |r| of each lane, max w

  void load(const float* image, const uint8_t* removed, int64_t count) {
    std::fill(u_.begin(), u_.end(), Wide{});
    for (int64_t c = 0; c < count; ++c) {
      const float* values = image + c * h_ * w_;
      float low = std::numeric_limits<float>::infinity(), high = -low;
      bool finite = true;
      for (int64_t i = 0; i < h_ * w_; ++i) {
        if (removed[i]) continue;
        low = std::min(low, values[i]);
        high = std::max(high, values[i]);
        finite = finite && std::isfinite(values[i]);
      }
      const Scale& s = scales_[c] = {low, high, finite};
      if (!finite || low == high) continue;
      for (int64_t y = 0; y < h_; ++y)
        for (int64_t x = 0; x < w_; ++x)
          if (!removed[y * w_ + x]) u_[pixels_.at(y, x)][c] = (values[y * w_ + x] - s.middle()) / s.half();
    }
  }

  void store(float* out, int64_t count) const {
    for (int64_t c = 0; c < count; ++c) {
      const Scale& s = scales_[c];
      for (int64_t y = 0; y < h_; ++y) {
        float* row = out + (c * h_ + y) * w_;
        const int64_t begin = pixels_.at(y, 0);
        pixels_.row(y, [&](int64_t i) {
          // No weighted mean leaves the range of the kept pixels.
          const double v = std::min(std::max(s.middle() + s.half() * u_[i][c], s.low), s.high);
          row[i - begin] = s.finite ? static_cast<float>(v) : std::numeric_limits<float>::quiet_NaN();
        });
      }
    }
  }

  bool solve(double tolerance) {
    double before = 0;
    int steps = 0;
    for (int round = 0; round < rounds; ++round) {
      measure();
      const double t = std::max({residual_[0], residual_[1], residual_[2]}) + rounding, slack = 1 - residual_[barrier];
      if (!std::isfinite(t - slack)) return false;
      double wanted = round_steps;
      if (slack >= 0.5) {
        const double bound = 0.5 * t * highest_ / slack;  // a share of the range, which is 2 here
        if (bound <= tolerance) return true;
        // As many steps as it takes at the rate of the last round.
        if (t < before) wanted = std::ceil(steps * std::log(2 * bound / tolerance) / std::log(before / t));
      }
      before = t;
      steps = static_cast<int>(std::max(1.0, std::min<double>(wanted, round_steps)));
      improve(steps);
    }
    return false;
  }

  // r = b - A u in double, stored as float, and its size.
  void measure() {
    double worst[4] = {}, highest = 0;
    Wide sum{};  // not finite as soon as one value is not; a maximum would pass over a NaN
    const int64_t s = pixels_.stride;
    const Wide* u = u_.data();
    for (int64_t y = 0; y < h_; ++y)
      pixels_.row(y, [&](int64_t i) {
        Wide r = (u[i - s - 1] + u[i - s + 1] + u[i + s - 1] + u[i + s + 1]) +
                 2.0 * (u[i - s] + u[i - 1] + u[i + 1] + u[i + s]) - static_cast<double>(grid_.diagonal[i]) * u[i];
        r[barrier] += 1;
        sum += r;
        for (int c = 0; c < 4; ++c) {
          worst[c] = std::max(worst[c], std::fabs(r[c]));
          pixels_.r[i][c] = static_cast<float>(r[c]);
        }
        highest = std::max(highest, u[i][barrier]);
      });
    for (int c = 0; c < 4; ++c)
      residual_[c] = std::isfinite(sum[c]) ? worst[c] : std::numeric_limits<double>::infinity();
    highest_ = highest;
  }

  // u += steps of preconditioned conjugate gradients for A e = r, each lane by itself.
  void improve(int steps) {
    Level& l = pixels_;
    Four shrink{}, alpha{};
    Wide grow{};
    for (int c = 0; c < 4; ++c) {  // small residuals would underflow when squared
      int exponent = 0;
      std::frexp(residual_[c], &exponent);
      shrink[c] = static_cast<float>(std::ldexp(1.0, -exponent));
      grow[c] = std::ldexp(1.0, exponent);
    }
    for (int64_t y = 0; y < h_; ++y) l.row(y, [&](int64_t i) { l.r[i] *= shrink, e_[i] = Four{}; });
    double last[4] = {};
    for (int step = 0; step < steps; ++step) {
      double energy[4] = {}, curvature[4] = {};
      grid_.cycle(
          [&](int64_t y) {
            if (step > 0) l.row(y, [&](int64_t i) { e_[i] += alpha * p_[i], l.r[i] -= alpha * q_[i]; });
          },
          [&](int64_t y) {
            Four sum{};
            l.row(y, [&](int64_t i) { sum += l.r[i] * l.z[i]; });
            for (int c = 0; c < 4; ++c) energy[c] += sum[c];
          });
      Four beta{};
      for (int c = 0; c < 4; ++c) {
        beta[c] = last[c] > 0 ? static_cast<float>(energy[c] / last[c]) : 0;
        last[c] = energy[c];
      }
      for (int64_t y = 0; y <= h_; ++y) {
        if (y < h_) l.row(y, [&](int64_t i) { p_[i] = l.z[i] + beta * p_[i]; });
        if (y > 0) multiply(y - 1, curvature);
      }
      for (int c = 0; c < 4; ++c) alpha[c] = curvature[c] > 0 ? static_cast<float>(energy[c] / curvature[c]) : 0;
    }
    for (int64_t y = 0; y < h_; ++y)
      l.row(y, [&](int64_t i) {
        const Four v = e_[i] + alpha * p_[i];
        u_[i] += grow * Wide{v[0], v[1], v[2], v[3]};
      });
  }

  // q = A p in row y, and p . q added up. The stencil is (1 2 1) along x and y, but for the center.
  void multiply(int64_t y, double* sum) {
    const Level& l = pixels_;
    const Four* p = p_.data();
    const auto column = [&](int64_t i) { return p[i - l.stride] + p[i + l.stride] + 2.0f * p[i]; };
    Four total{};
    for (int64_t k = l.first[y]; k < l.first[y + 1]; ++k) {
      Four west = column(l.runs[k].begin - 1), here = column(l.runs[k].begin);
      for (int64_t i = l.runs[k].begin; i < l.runs[k].end; ++i) {
        const Four east = column(i + 1);
        q_[i] = (grid_.diagonal[i] + 4) * p[i] - (west + east + 2.0f * here);
        total += p[i] * q_[i];
        west = here;
        here = east;
      }
    }
    for (int c = 0; c < 4; ++c) sum[c] += total[c];
  }
};

}  // namespace

void impute_pixels(const ImputePixels& s) {
  const int64_t plane = s.H * s.W;
  std::atomic<int64_t> next{0};  // images differ in work, and each is the same whoever solves it
  // A pixel takes about a hundred times the work of the other kernels' elements.
  const int threads = static_cast<int>(std::min<int64_t>(worth(s.place, 100 * s.N * s.C * plane), s.N));
  parallel(threads, threads, [&](int64_t, int64_t, int) {
    std::unique_ptr<Imputation> scratch;
    for (int64_t n = next++; n < s.N; n = next++) {
      const float* image = s.images + n * s.stride;
      const uint8_t* removed = s.removed + n * plane;
      float* out = s.out + n * s.C * plane;
      std::copy(image, image + s.C * plane, out);
      s.failed[n] = 0;
      const int64_t count = std::count(removed, removed + plane, uint8_t{1});
      if (count == plane) {
        for (int64_t c = 0; c < s.C; ++c) {
          double sum = 0;
          for (int64_t i = 0; i < plane; ++i) sum += image[c * plane + i];
          std::fill(out + c * plane, out + (c + 1) * plane, static_cast<float>(sum / plane));
        }
      } else if (count > 0) {
        if (!scratch) scratch = std::make_unique<Imputation>(s.H, s.W);
        s.failed[n] = !scratch->run(image, removed, out, s.C, s.tolerance);
      }
    }
  });
}

}  // namespace fastcam::FASTCAM_ISA
