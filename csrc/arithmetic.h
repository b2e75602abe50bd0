// The arithmetic that the CPU and the CUDA kernels share: where pixels lie between cells, extremes that keep a NaN,
// min-max normalization, keys that sort floats, thresholds.
#pragma once
#include <cstdint>

#include "both.h"

namespace fastcam::FASTCAM_ISA {

// A pixel between two cells of an axis: (1 - t) * low + t * high.
struct Spot {
  int32_t low, high;
  float t;
};

// An axis of cells stretched to pixels.
struct Stretch {
  int64_t cells, pixels;
  bool align_corners;
  double step;

  FASTCAM_BOTH Stretch(int64_t cells, int64_t pixels, bool align_corners)
      : cells(cells), pixels(pixels), align_corners(align_corners) {
    if (align_corners) {
      step = pixels > 1 ? double(cells - 1) / double(pixels - 1) : 0.0;
    } else {
      step = double(cells) / double(pixels);
    }
  }

  FASTCAM_BOTH Spot at(int64_t pixel) const {
    // In double: at a few thousand positions float32 would already move a sample by 1e-4 of a cell.
    const double at = align_corners ? step * double(pixel) : step * (double(pixel) + 0.5) - 0.5;
    const double inside = at < 0 ? 0 : (at > double(cells - 1) ? double(cells - 1) : at);
    const int32_t low = static_cast<int32_t>(inside);
    return {low, low < cells - 1 ? low + 1 : low, static_cast<float>(inside - low)};
  }

  // The first pixel that does not lie before a cell, the number of pixels where all do.
  FASTCAM_BOTH int64_t first(int64_t cell) const {
    int64_t begin = 0, end = pixels;
    while (begin < end) {
      const int64_t middle = (begin + end) / 2;
      if (at(middle).low < cell) {
        begin = middle + 1;
      } else {
        end = middle;
      }
    }
    return begin;
  }

  // Between two cells a map is linear: its extremes lie among these pixels, the first and the last of each interval.
  FASTCAM_BOTH int64_t ends() const { return pixels < 2 * cells ? pixels : 2 * cells; }

  FASTCAM_BOTH int64_t end(int64_t i) const {
    if (pixels < 2 * cells) return i;
    const int64_t pixel = i % 2 ? first(i / 2 + 1) - 1 : first(i / 2);
    return pixel < 0 ? 0 : (pixel < pixels ? pixel : pixels - 1);  // beside an interval without pixels
  }
};

FASTCAM_BOTH inline float lerp(float a, float b, float t) { return a + t * (b - a); }

// NaN wins, so that a map with one is NaN throughout.
FASTCAM_BOTH inline float lesser(float v, float low) { return v < low || v != v ? v : low; }
FASTCAM_BOTH inline float greater(float v, float high) { return v > high ? v : high; }

struct Range {
  float low, high;
  FASTCAM_BOTH bool constant() const { return low == high; }
  FASTCAM_BOTH Range with(Range r) const { return {lesser(r.low, low), greater(r.high, high)}; }
};

// (v - low) / (high - low), zero where that is 0/0. Divides: the reciprocal of a tiny range would overflow.
struct MinMax {
  float low, span, keep;
  MinMax() = default;
  FASTCAM_BOTH explicit MinMax(Range r)
      : low(r.low), span(r.constant() ? 1.0f : r.high - r.low), keep(r.constant() ? 0.0f : 1.0f) {}
  FASTCAM_BOTH float operator()(float v) const { return (v - low) / span * keep; }
};

// Falling floats give rising keys, equal floats equal ones, NaN the last.
FASTCAM_BOTH inline uint32_t key_of(float v) {
  const uint32_t u = bits_of(v + 0.0f);  // -0 becomes 0
  const uint32_t negative = 0u - (u >> 31), nan = 0u - uint32_t{(u & 0x7fffffffu) > 0x7f800000u};
  return (u ^ (0x7fffffffu & ~negative)) | nan;
}

// How the bits in which keys differ are cut into as few digits as they need, of equal widths.
struct Digits {
  int low = 0, passes, bits;
  uint32_t mask;

  FASTCAM_BOTH Digits(uint32_t differing, int widest) {
    while (differing && !(differing >> low & 1)) ++low;
    int width = 1;
    while (width < 32 - low && differing >> low >> width) ++width;
    passes = (width + widest - 1) / widest;
    bits = (width + passes - 1) / passes;
    mask = (1u << bits) - 1;
  }
};

// The value that a pixel must exceed. Nothing is greater than NaN, nor than infinity.
FASTCAM_BOTH inline float limit_of(float threshold, float scale) {
  const float product = threshold * scale;
  return product == product ? product : float_of(0x7f800000u);
}

}  // namespace fastcam::FASTCAM_ISA
