#include <type_traits>

#include "convert.h"
#include "ops.h"
#include "parallel.h"
#include "resample.h"

namespace fastcam::FASTCAM_ISA {
namespace {

// Fills the table with the (normalized) mask of one channel; returns whether it is constant.
bool prepare(const MaskImages& s, const float* a, Table& table) {
  const int64_t n = s.h * s.w;
  // Starting at zero, a small range on a large offset loses no digits.
  const float origin = s.normalize == Normalize::never ? 0.0f : a[0];
  for (int64_t i = 0; i < n; ++i) table.cells[i] = a[i] - origin;
  Range r{};
  if (s.normalize == Normalize::before) {
    r = range_of(table.cells, table.cells, n);
    normalize(table.cells, n, r);
  }
  table.stretch();
  if (s.normalize != Normalize::before) r = table.extremes();
  if (s.normalize == Normalize::after) table.normalize_rows(r);
  table.finish();
  return r.constant();
}

template <class T>
void blend(const float* image, const Table::Row& mask, T* __restrict out, int64_t n) {
  const auto [low, step, t] = mask;
  for (int64_t i = 0; i < n; ++i) store(image[i] * (low[i] + t * step[i]), out[i]);
}

// Two masks at a time read an image row from memory once; with more, the output rows drive each other out of the
// caches (measured on 19 MB: 13.0, 10.2, 17.0, 24.1 us a mask with 1, 2, 4, 8 masks at a time).
constexpr int64_t together = 2;

template <class T>
void run(const MaskImages& s) {
  // Channels last is one plane whose rows hold each mask column C times.
  const int64_t planes = s.channels_last ? 1 : s.C, repeat = s.channels_last ? s.C : 1;
  const int64_t row = s.W * repeat, plane = s.H * row;
  const Resample shared(s.h, s.w, s.H, s.W, s.align_corners);
  const int threads = worth(s.place, s.B * s.K * planes * plane);
  // A few masks are cut into bands of rows, each of which builds the (small) table again.
  const int64_t groups = (s.K + together - 1) / together;
  const int64_t bands = threads == 1 || s.B * groups >= 4 * threads ? 1 : std::min<int64_t>(s.H, threads);
  parallel(s.B * groups * bands, threads, [&](int64_t begin, int64_t end, int) {
    Table tables[together] = {{shared, repeat}, {shared, repeat}};
    for (int64_t i = begin; i < end; ++i) {
      const int64_t band = i % bands, group = i / bands % groups, b = i / bands / groups;
      const int64_t first = group * together, count = std::min(together, s.K - first), mask = b * s.K + first;
      for (int64_t k = 0; k < count; ++k) {
        const bool constant = prepare(s, s.activations + b * s.stride + (first + k) * s.h * s.w, tables[k]);
        if (band == 0) s.constant[mask + k] = constant;
      }
      for (int64_t c = 0; c < planes; ++c)
        for (int64_t y = s.H * band / bands; y < s.H * (band + 1) / bands; ++y) {
          const float* image = s.images + (b * planes + c) * plane + y * row;
          for (int64_t k = 0; k < count; ++k) {
            T* out = static_cast<T*>(s.out) + ((mask + k) * planes + c) * plane + y * row;
            if constexpr (!std::is_same_v<T, Half>) {
              blend(image, tables[k].at(y), out, row);
            } else {
              blend(image, tables[k].at(y), tables[0].buffer, row);
              store_row(tables[0].buffer, out, row);
            }
          }
        }
    }
  });
}

}  // namespace

void mask_images(const MaskImages& s) {
  switch (s.type) {
    case Float::f32: return run<float>(s);
    case Float::bf16: return run<Bf16>(s);
    case Float::f16: return run<Half>(s);
  }
}

}  // namespace fastcam::FASTCAM_ISA
