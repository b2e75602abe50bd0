#include <cstring>

#include "ops.h"
#include "parallel.h"

namespace fastcam::FASTCAM_ISA {

void mask_channels(const MaskChannels& s) {
  const int64_t count = s.stop - s.start, plane = s.P * s.bytes, size = s.C * plane;
  const int threads = worth(s.place, s.B * count * size / 4);
  parallel(s.B * count, threads, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t k = s.start + row % count;
      const char* a = static_cast<const char*>(s.activations) + row / count * size;
      char* out = static_cast<char*>(s.out) + row * size;
      if (s.channels_last) {
        std::memcpy(out, a, size);
        for (int64_t p = 0; p < s.P; ++p) std::memset(out + (p * s.C + k) * s.bytes, 0, s.bytes);
      } else {
        std::memcpy(out, a, k * plane);
        std::memset(out + k * plane, 0, plane);
        std::memcpy(out + (k + 1) * plane, a + (k + 1) * plane, size - (k + 1) * plane);
      }
    }
  });
}

}  // namespace fastcam::FASTCAM_ISA
