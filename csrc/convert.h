// Rows of float32 to and from the 16-bit types, rounded to nearest even.
#pragma once
#include <cstdint>

#include "both.h"
#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif
#ifdef __F16C__
#include <immintrin.h>
#endif

namespace fastcam::FASTCAM_ISA {

struct Bf16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

FASTCAM_BOTH inline float load(float f) { return f; }

FASTCAM_BOTH inline float load(Bf16 b) { return float_of(uint32_t{b.bits} << 16); }

FASTCAM_BOTH inline float load(Half h) {
#ifdef __F16C__
  return _cvtsh_ss(h.bits);
#else
  // Scaling by 2^112 rebias the exponent and turns subnormals into normals; infinities and NaNs are set after.
  const uint32_t magnitude = h.bits & 0x7fffu;
  const float scaled = float_of(magnitude << 13) * float_of((254 - 15) << 23);
  const uint32_t bits = magnitude >= 0x7c00u ? (magnitude << 13) | 0x7f800000u : bits_of(scaled);
  return float_of(bits | (uint32_t{h.bits} & 0x8000u) << 16);
#endif
}

FASTCAM_BOTH inline void store(float f, float& out) { out = f; }

FASTCAM_BOTH inline void store(float f, Bf16& out) {
#ifdef __CUDA_ARCH__
  out.bits = __bfloat16_as_ushort(__float2bfloat16_rn(f));
#else
  const uint32_t u = bits_of(f), rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  out.bits = static_cast<uint16_t>(f != f ? 0x7fc0u : rounded);
#endif
}

FASTCAM_BOTH inline void store(float f, Half& out) {
#if defined(__CUDA_ARCH__)
  out.bits = __half_as_ushort(__float2half_rn(f));
#elif defined(__F16C__)
  out.bits = _cvtss_sh(f, _MM_FROUND_TO_NEAREST_INT);
#else
  // All three cases, then a choice: without branches compilers can vectorize it.
  const uint32_t u = bits_of(f), sign = u & 0x80000000u, magnitude = u ^ sign;
  const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  const uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u;  // the adder rounds at bit 2^-24
  const uint32_t beyond = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;           // 65536 and more, infinity, NaN
  const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
  const uint32_t h = magnitude >= 0x47800000u ? beyond : finite;
  out.bits = static_cast<uint16_t>(h | sign >> 16);
#endif
}

template <class T>
void store_row(const float* row, T* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) store(row[i], out[i]);
}

#ifdef __F16C__  // compilers do not vectorize this conversion by themselves
inline void store_row(const float* row, Half* out, int64_t n) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT;  // maskz below: see pick() in resample.h
  int64_t i = 0;
#ifdef __AVX512F__
  for (; i + 16 <= n; i += 16)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i),
                        _mm512_maskz_cvtps_ph(0xffff, _mm512_loadu_ps(row + i), mode));
#endif
  for (; i + 8 <= n; i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), _mm256_cvtps_ph(_mm256_loadu_ps(row + i), mode));
  for (; i < n; ++i) store(row[i], out[i]);
}
#endif

template <class T>
void load_row(const T* row, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = load(row[i]);
}

#ifdef __F16C__
inline void load_row(const Half* row, float* out, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row + i))));
  for (; i < n; ++i) out[i] = load(row[i]);
}
#endif

}  // namespace fastcam::FASTCAM_ISA
