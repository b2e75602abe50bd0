// Work split over threads in contiguous shares, so that results do not depend on their number.
#pragma once
#include <algorithm>
#include <cstdint>
#ifdef _OPENMP
#include <omp.h>
#endif

namespace fastcam::FASTCAM_ISA {

constexpr int64_t grain = 16384;  // elements a thread must have to be worth its wake-up, about 2 µs

inline int worth(int threads, int64_t elements) {
  return static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, elements / grain)));
}

// body(begin, end, thread) for each share of [0, n).
template <class Body>
void parallel(int64_t n, int threads, Body body) {
#ifdef _OPENMP
  if (threads > 1 && n > 1) {
#pragma omp parallel num_threads(threads)
    {
      const int64_t share = omp_get_num_threads(), i = omp_get_thread_num();
      body(n * i / share, n * (i + 1) / share, static_cast<int>(i));
    }
    return;
  }
#endif
  body(int64_t{0}, n, 0);
}

}  // namespace fastcam::FASTCAM_ISA
