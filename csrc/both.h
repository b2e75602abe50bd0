// What a function needs to be compiled for a CPU and for a GPU, and the bits of a float on either.
#pragma once
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define FASTCAM_BOTH __host__ __device__
#else
#define FASTCAM_BOTH
#endif

namespace fastcam::FASTCAM_ISA {

FASTCAM_BOTH inline uint32_t bits_of(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return u;
}

FASTCAM_BOTH inline float float_of(uint32_t u) {
  float f;
  memcpy(&f, &u, 4);
  return f;
}

}  // namespace fastcam::FASTCAM_ISA
