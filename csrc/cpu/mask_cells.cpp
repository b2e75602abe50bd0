#include <algorithm>

#include "convert.h"
#include "ops.h"
#include "parallel.h"

namespace fastcam::FASTCAM_ISA {
namespace {

template <class T>
void run(const MaskCells& s) {
  const int64_t cells = s.h * s.w, count = s.stop - s.start, size = s.C * cells, reach = s.kernel != Kernel::point;
  // Steps to the next channel and to the next cell, in the output.
  const int64_t channel = s.channels_last ? 1 : cells, cell = s.channels_last ? s.C : 1;
  parallel(s.B * count, worth(s.place, s.B * count * size), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float* a = s.activations + row / count * size;
      T* out = static_cast<T*>(s.out) + row * size;
      std::memset(static_cast<void*>(out), 0, size * sizeof(T));
      const int64_t i = s.start + row % count, y = i / s.w, x = i % s.w;
      for (int64_t v = std::max<int64_t>(0, y - reach); v <= std::min(s.h - 1, y + reach); ++v)
        for (int64_t u = std::max<int64_t>(0, x - reach); u <= std::min(s.w - 1, x + reach); ++u) {
          const int64_t to = v * s.w + u, from = s.kernel == Kernel::gaussian ? i : to;
          const float weight = reach ? (v == y ? 0.5f : 0.25f) * (u == x ? 0.5f : 0.25f) : 1.0f;
          for (int64_t c = 0; c < s.C; ++c) store(a[c * cells + from] * weight, out[c * channel + to * cell]);
        }
    }
  });
}

}  // namespace

void mask_cells(const MaskCells& s) {
  switch (s.type) {
    case Float::f32: return run<float>(s);
    case Float::bf16: return run<Bf16>(s);
    case Float::f16: return run<Half>(s);
  }
}

}  // namespace fastcam::FASTCAM_ISA
