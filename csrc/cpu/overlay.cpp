#include <cstring>

#include "ops.h"
#include "parallel.h"

namespace fastcam::FASTCAM_ISA {
namespace {

constexpr int64_t tile = 256;  // pixels

// To the nearest integer, ties to even, for 0 <= v < 2^22: one addition rounds in every instruction set.
inline int rounded(float v) { return static_cast<int>((v + 12582912.0f) - 12582912.0f); }

void blend(const uint8_t* __restrict images, const float* __restrict maps, const float (*colors)[4], float keep,
           uint8_t* __restrict out, int64_t n) {
  int level[tile];
  float color[3 * tile + 1];
  for (int64_t p = 0; p < n; ++p) {
    const float m = maps[p], positive = m > 0 ? m : 0.0f;  // NaN is 0
    level[p] = rounded((positive < 1 ? positive : 1.0f) * 255.0f);
  }
  // Four floats at a time, the last of which the next pixel overwrites.
  for (int64_t p = 0; p < n; ++p) std::memcpy(color + 3 * p, colors[level[p]], 4 * sizeof(float));
  for (int64_t i = 0; i < 3 * n; ++i) {
    out[i] = static_cast<uint8_t>(rounded(keep * static_cast<float>(images[i]) + color[i]));
  }
}

}  // namespace

void overlay(const Overlay& s) {
  const float keep = static_cast<float>(1 - s.alpha), share = static_cast<float>(s.alpha);
  float colors[256][4] = {};
  for (int i = 0; i < 256; ++i)
    for (int c = 0; c < 3; ++c) colors[i][c] = share * static_cast<float>(s.colormap[3 * i + c]);
  parallel(s.N, worth(s.place, 3 * s.N), [&](int64_t begin, int64_t end, int) {
    for (int64_t p = begin; p < end; p += tile)
      blend(s.images + 3 * p, s.maps + p, colors, keep, s.out + 3 * p, std::min(tile, end - p));
  });
}

}  // namespace fastcam::FASTCAM_ISA
