// The kernel is a product of two 1-D factors: rows are blurred along x once, kept in a ring as long as some output row
// needs them, and added up along y. The factor is symmetric, so each tap weighs a sum of two rows.
#include <cstring>
#include <vector>

#include "convert.h"
#include "ops.h"
#include "parallel.h"

namespace fastcam::FASTCAM_ISA {
namespace {

constexpr int together = 5;  // taps per pass over the sums: one pass for the default 11 x 11

// out += sum of taps[j] * (low[j] + high[j])
template <int pairs>
void add(const float* const* low, const float* const* high, const float* taps, float* __restrict out, int64_t n) {
  const float *a[pairs], *b[pairs];
  for (int j = 0; j < pairs; ++j) a[j] = low[j], b[j] = high[j];
  for (int64_t i = 0; i < n; ++i) {
    float sum = out[i];
    for (int j = 0; j < pairs; ++j) sum += taps[j] * (a[j][i] + b[j][i]);
    out[i] = sum;
  }
}

// out[i] = sum over j < size of taps[j] * rows[j][i]
void weigh(const std::vector<const float*>& rows, const float* taps, float* __restrict out, int64_t n) {
  const int64_t radius = static_cast<int64_t>(rows.size()) / 2;
  const float *center = rows[radius], tap = taps[radius];
  for (int64_t i = 0; i < n; ++i) out[i] = tap * center[i];
  const float *low[together], *high[together];
  for (int64_t j = 0; j < radius; j += together) {
    const int64_t pairs = std::min<int64_t>(together, radius - j);
    for (int64_t k = 0; k < pairs; ++k) low[k] = rows[j + k], high[k] = rows[2 * radius - j - k];
    if (pairs == together) {
      add<together>(low, high, taps + j, out, n);
    } else {
      for (int64_t k = 0; k < pairs; ++k) add<1>(low + k, high + k, taps + j + k, out, n);
    }
  }
}

template <class T>
void run(const BlurImages& s) {
  // Channels last is one plane whose neighbors along x are C apart.
  const int64_t planes = s.channels_last ? s.N : s.N * s.C, step = s.channels_last ? s.C : 1;
  const int64_t row = s.W * step, radius = s.size / 2, margin = radius * step;
  const int threads = worth(s.place, planes * s.H * row);
  const int64_t bands = threads == 1 || planes >= 4 * threads ? 1 : std::min<int64_t>(s.H, threads);
  parallel(planes * bands, threads, [&](int64_t begin, int64_t end, int) {
    std::vector<float> line(row + 2 * margin), ring(s.size * row), sums(row), outside(row);
    std::vector<const float*> rows(s.size);
    for (int64_t i = begin; i < end; ++i) {
      const T* image = static_cast<const T*>(s.images) + i / bands * s.H * row;
      T* out = static_cast<T*>(s.out) + i / bands * s.H * row;
      const int64_t first = s.H * (i % bands) / bands, last = s.H * (i % bands + 1) / bands;
      int64_t next = std::max<int64_t>(0, first - radius);  // the first row that the ring lacks
      for (int64_t y = first; y < last; ++y) {
        for (; next <= std::min(s.H - 1, y + radius); ++next) {
          load_row(image + next * row, line.data() + margin, row);
          for (int64_t j = 0; j < s.size; ++j) rows[j] = line.data() + j * step;
          weigh(rows, s.taps, ring.data() + next % s.size * row, row);
        }
        for (int64_t j = 0; j < s.size; ++j) {
          const int64_t v = y - radius + j;
          rows[j] = v < 0 || v >= s.H ? outside.data() : ring.data() + v % s.size * row;
        }
        weigh(rows, s.taps, sums.data(), row);
        store_row(sums.data(), out + y * row, row);
      }
    }
  });
}

}  // namespace

void blur_images(const BlurImages& s) {
  switch (s.type) {
    case Float::f32: return run<float>(s);
    case Float::bf16: return run<Bf16>(s);
    case Float::f16: return run<Half>(s);
  }
}

}  // namespace fastcam::FASTCAM_ISA
