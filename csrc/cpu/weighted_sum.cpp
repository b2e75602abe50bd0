#include <memory>

#include "convert.h"
#include "ops.h"
#include "parallel.h"

namespace fastcam::FASTCAM_ISA {
namespace {

constexpr int64_t chunk = 256;  // channels summed in one go; fixed, so that the sum does not depend on threads
constexpr int64_t tile = 1024;  // positions whose running sums stay in the L1 cache
constexpr int64_t ways = 8;     // channels per pass over the running sums, which then wait less for themselves

// sums[t, p] = sum of `channels` channels of one tile
template <class T>
void sum_tile(const WeightedSum& s, const T* a, const float* w, int64_t channels, int64_t n, float* sums,
              int64_t stride, float* rows) {
  for (int64_t t = 0; t < s.T; ++t) std::fill_n(sums + t * stride, n, 0.0f);
  for (int64_t c = 0; c < channels; c += ways) {
    const int64_t m = std::min(ways, channels - c);
    const float* row[ways];
    for (int64_t i = 0; i < m; ++i) {
      if constexpr (sizeof(T) == sizeof(float)) {
        row[i] = a + (c + i) * s.P;
      } else {
        load_row(a + (c + i) * s.P, rows + i * tile, n);
        row[i] = rows + i * tile;
      }
    }
    for (int64_t t = 0; t < s.T; ++t) {
      const float* f = w + t * s.C + c;
      float* out = sums + t * stride;
      if (m == ways) {
        for (int64_t p = 0; p < n; ++p)
          out[p] += ((f[0] * row[0][p] + f[1] * row[1][p]) + (f[2] * row[2][p] + f[3] * row[3][p])) +
                    ((f[4] * row[4][p] + f[5] * row[5][p]) + (f[6] * row[6][p] + f[7] * row[7][p]));
      } else {
        for (int64_t i = 0; i < m; ++i)
          for (int64_t p = 0; p < n; ++p) out[p] += f[i] * row[i][p];
      }
    }
  }
}

template <class T>
void run(const WeightedSum& s) {
  const int64_t chunks = (s.C + chunk - 1) / chunk, tiles = (s.P + tile - 1) / tile, size = s.B * s.T * s.P;
  const int threads = worth(s.place, s.B * s.C * s.P);
  std::unique_ptr<float[]> partial(chunks > 1 ? new float[(chunks - 1) * size] : nullptr);
  std::unique_ptr<float[]> rows(new float[threads * ways * tile]);
  parallel(s.B * chunks * tiles, threads, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / (chunks * tiles), j = i / tiles % chunks, p = i % tiles * tile, c = j * chunk;
      float* sums = (j ? partial.get() + (j - 1) * size : s.out) + b * s.T * s.P + p;
      sum_tile(s, static_cast<const T*>(s.activations) + (b * s.C + c) * s.P + p, s.weights + b * s.T * s.C + c,
               std::min(chunk, s.C - c), std::min(tile, s.P - p), sums, s.P, rows.get() + thread * ways * tile);
    }
  });
  for (int64_t j = 1; j < chunks; ++j)
    for (int64_t i = 0; i < size; ++i) s.out[i] += partial[(j - 1) * size + i];
}

}  // namespace

void weighted_sum(const WeightedSum& s) {
  switch (s.type) {
    case Float::f32: return run<float>(s);
    case Float::bf16: return run<Bf16>(s);
    case Float::f16: return run<Half>(s);
  }
}

}  // namespace fastcam::FASTCAM_ISA
