// Bilinear resize of one small map, row by row, with its exact extremes and min-max normalization.
//
// The map's h rows are stretched to the output's width once (a table that fits the L1 or L2 cache); an output row is
// then a blend of two table rows. Between two of them the blend is linear in y, so the extremes of the whole resized
// map lie in the first and last output row of each interval: 2h rows are searched, not H.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "arithmetic.h"
#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace fastcam::FASTCAM_ISA {

// Output position i blends source positions low[i] and high[i]: (1 - t[i]) * low + t[i] * high.
struct Axis {
  std::vector<int32_t> low, high;
  std::vector<float> t;

  Axis(int64_t in, int64_t out, bool align_corners) : low(out), high(out), t(out) {
    const Stretch stretch(in, out, align_corners);
    for (int64_t i = 0; i < out; ++i) {
      const Spot spot = stretch.at(i);
      low[i] = spot.low;
      high[i] = spot.high;
      t[i] = spot.t;
    }
  }
};

// A vector of source cells and its rearrangement. Gathering cell by cell takes eight times as long.
#if defined(__AVX512F__)
struct Vector {
  static constexpr int64_t lanes = 16;
  __m512 v;
  static Vector load(const float* p) { return {_mm512_loadu_ps(p)}; }
  void save(float* p) const { _mm512_storeu_ps(p, v); }
  Vector pick(const int32_t* i) const {
    // Its form without a mask makes gcc warn of an uninitialized value (gcc bug 105593).
    return {_mm512_maskz_permutexvar_ps(0xffff, _mm512_loadu_si512(i), v)};
  }
  static Vector lerp(Vector a, Vector b, Vector t) {
    return {_mm512_add_ps(a.v, _mm512_mul_ps(t.v, _mm512_sub_ps(b.v, a.v)))};
  }
};
#elif defined(__AVX2__)
struct Vector {
  static constexpr int64_t lanes = 8;
  __m256 v;
  static Vector load(const float* p) { return {_mm256_loadu_ps(p)}; }
  void save(float* p) const { _mm256_storeu_ps(p, v); }
  Vector pick(const int32_t* i) const {
    return {_mm256_permutevar8x32_ps(v, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(i)))};
  }
  static Vector lerp(Vector a, Vector b, Vector t) {
    return {_mm256_add_ps(a.v, _mm256_mul_ps(t.v, _mm256_sub_ps(b.v, a.v)))};
  }
};
#endif

// Of the pairs low[i], high[i]; in lanes, because compilers keep a plain minimum in order and scalar.
inline Range range_of(const float* low, const float* high, int64_t n) {
  constexpr int64_t lanes = 16;
  float l[lanes], h[lanes];
  for (int64_t j = 0; j < lanes; ++j) l[j] = low[j % n], h[j] = high[j % n];
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int64_t j = 0; j < lanes; ++j) l[j] = lesser(low[i + j], l[j]), h[j] = greater(high[i + j], h[j]);
  Range r{l[0], h[0]};
  for (int64_t j = 1; j < lanes; ++j) r = r.with({l[j], h[j]});
  for (; i < n; ++i) r = r.with({low[i], high[i]});
  return r;
}

inline void normalize(float* values, int64_t n, Range r) {
  const MinMax scaled(r);
  for (int64_t i = 0; i < n; ++i) values[i] = scaled(values[i]);
}

constexpr int64_t lane_limit = 16;

inline int64_t padded(int64_t n) { return (n + lane_limit - 1) / lane_limit * lane_limit; }

// What all maps of a call share.
struct Resample {
  int64_t h, w, H, W;
  Axis y, x;
  std::vector<int64_t> ends;        // output rows among which the extremes lie
  std::vector<unsigned char> used;  // table rows that some output row reads
  std::vector<int32_t> offset;      // x.low, counted from the first column of its vector

  Resample(int64_t h, int64_t w, int64_t H, int64_t W, bool align_corners)
      : h(h), w(w), H(H), W(W), y(h, H, align_corners), x(w, W, align_corners), used(h) {
    for (int64_t i = 0; i < H; ++i) {
      used[y.low[i]] = used[y.high[i]] = 1;
      if (i == 0 || i == H - 1 || y.low[i] != y.low[i - 1] || y.low[i] != y.low[i + 1]) ends.push_back(i);
    }
#ifdef __AVX2__
    // When upsampling, the cells of a vector of columns lie within one vector of cells.
    if (W >= w) {
      offset.resize(padded(W));
      x.t.resize(padded(W));
      for (int64_t i = 0; i < W; ++i) offset[i] = x.low[i] - x.low[i / Vector::lanes * Vector::lanes];
    }
#endif
  }
};

// The rows of one resized map: the scratch of one thread.
class Table {
 public:
  float* cells;   // (h, w), to be filled before stretch()
  float* buffer;  // one output row, for conversions

  // repeat: how often each column is repeated in the rows of at(): the channels of a channels-last image.
  Table(const Resample& shared, int64_t repeat)
      : shared_(shared), repeat_(repeat), stride_(padded(shared.W)), wide_(padded(shared.W * repeat)) {
    const int64_t sizes[] = {padded(shared.h * shared.w),
                             padded(shared.w) + lane_limit,
                             shared.h * stride_,
                             shared.h * stride_,
                             2 * stride_,
                             2 * wide_,
                             wide_};
    int64_t total = 0;
    for (int64_t size : sizes) total += size;
    memory_.reset(static_cast<float*>(operator new(total * sizeof(float), alignment)));
    float* at = cells = memory_.get();
    float** parts[] = {&source_, &rows_, &steps_, &ends_, &repeated_, &buffer};
    for (int i = 0; i < 6; ++i) *parts[i] = at += sizes[i];
  }

  // rows[y][x]: the cells stretched along x.
  void stretch() {
    for (int64_t y = 0; y < shared_.h; ++y)
      if (shared_.used[y]) stretch_row(cells + y * shared_.w, rows_ + y * stride_);
  }

  // Exact extremes of the resized map: its rows are monotone in t also when rounded.
  Range extremes() {
    float* __restrict low = ends_, * __restrict high = ends_ + stride_;
    for (size_t i = 0; i < shared_.ends.size(); ++i) {
      const int64_t y = shared_.ends[i];
      const float *a = rows_ + shared_.y.low[y] * stride_, *b = rows_ + shared_.y.high[y] * stride_;
      const float t = shared_.y.t[y];
      if (i == 0) {
        for (int64_t x = 0; x < shared_.W; ++x) low[x] = high[x] = lerp(a[x], b[x], t);
      } else {
        for (int64_t x = 0; x < shared_.W; ++x) {
          const float v = lerp(a[x], b[x], t);
          low[x] = lesser(v, low[x]);
          high[x] = greater(v, high[x]);
        }
      }
    }
    return range_of(low, high, shared_.W);
  }

  void normalize_rows(Range r) {
    for (int64_t y = 0; y < shared_.h; ++y)
      if (shared_.used[y]) normalize(rows_ + y * stride_, shared_.W, r);
  }

  // Ends the preparation: from here on at() gives output rows.
  void finish() {
    for (int64_t y = 0; y < shared_.h; ++y) {
      if (!shared_.used[y]) continue;
      const bool last = y == shared_.h - 1 || !shared_.used[y + 1];
      const float *low = rows_ + y * stride_, *high = last ? low : low + stride_;
      float* __restrict step = steps_ + y * stride_;
      for (int64_t x = 0; x < shared_.W; ++x) step[x] = high[x] - low[x];
    }
    kept_ = -1;
  }

  // Output row y is low + t * step.
  struct Row {
    const float *low, *step;
    float t;
  };

  Row at(int64_t y) {
    const int64_t i = shared_.y.low[y];
    const float *low = rows_ + i * stride_, *step = steps_ + i * stride_;
    const float t = shared_.y.t[y];
    if (repeat_ == 1) return {low, step, t};
    if (kept_ != i) {
      kept_ = i;
      repeat(low, repeated_);
      repeat(step, repeated_ + wide_);
    }
    return {repeated_, repeated_ + wide_, t};
  }

 private:
  static constexpr std::align_val_t alignment{64};  // rows that cross cache lines cost twice

  struct Free {
    void operator()(float* p) const { operator delete(p, alignment); }
  };

  void stretch_row(const float* from, float* __restrict out) {
    const Axis& x = shared_.x;
#ifdef __AVX2__
    if (!shared_.offset.empty()) {
      // The last column has no right neighbor but itself, and the last vector reads past it.
      std::copy_n(from, shared_.w, source_);
      std::fill(source_ + shared_.w, source_ + padded(shared_.w) + lane_limit, from[shared_.w - 1]);
      for (int64_t i = 0; i < shared_.W; i += Vector::lanes) {
        const float* first = source_ + x.low[i];
        const int32_t* offset = shared_.offset.data() + i;
        Vector::lerp(Vector::load(first).pick(offset), Vector::load(first + 1).pick(offset), Vector::load(&x.t[i]))
            .save(out + i);
      }
      return;
    }
#endif
    for (int64_t i = 0; i < shared_.W; ++i) out[i] = lerp(from[x.low[i]], from[x.high[i]], x.t[i]);
  }

  void repeat(const float* row, float* __restrict out) const {
    if (repeat_ == 3) {
      for (int64_t x = 0; x < shared_.W; ++x)
        for (int64_t c = 0; c < 3; ++c) out[x * 3 + c] = row[x];
    } else {
      for (int64_t x = 0; x < shared_.W; ++x)
        for (int64_t c = 0; c < repeat_; ++c) out[x * repeat_ + c] = row[x];
    }
  }

  const Resample& shared_;
  int64_t repeat_, stride_, wide_, kept_ = -1;
  std::unique_ptr<float, Free> memory_;
  float *source_, *rows_, *steps_, *ends_, *repeated_;
};

}  // namespace fastcam::FASTCAM_ISA
