// Four numbers side by side, one for each right-hand side of a linear system; `Four` in float, `Wide` in double.
// A Four has 128 bits on every instruction set, so the bits of a result are the same on each.
#pragma once

namespace fastcam::FASTCAM_ISA {

#if defined(__GNUC__)
typedef float Four __attribute__((vector_size(16)));
typedef double Wide __attribute__((vector_size(32)));
#else
template <class T>
struct Lanes {
  T lane[4];
  T& operator[](int c) { return lane[c]; }
  T operator[](int c) const { return lane[c]; }
  Lanes& operator+=(Lanes b) { return *this = *this + b; }
  Lanes& operator-=(Lanes b) { return *this = *this - b; }
  Lanes& operator*=(Lanes b) { return *this = *this * b; }
  friend Lanes operator+(Lanes a, Lanes b) { return {a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]}; }
  friend Lanes operator-(Lanes a, Lanes b) { return {a[0] - b[0], a[1] - b[1], a[2] - b[2], a[3] - b[3]}; }
  friend Lanes operator*(Lanes a, Lanes b) { return {a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3]}; }
  friend Lanes operator*(T a, Lanes b) { return {a * b[0], a * b[1], a * b[2], a * b[3]}; }
};
using Four = Lanes<float>;
using Wide = Lanes<double>;
#endif

}  // namespace fastcam::FASTCAM_ISA
