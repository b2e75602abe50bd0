// The threads of one block as a kernel's body sees them: loops over items, each ended by a barrier, and shared memory.
//
// A body is code that all threads of a block run alike; what differs between them stands in the functions that it
// hands to each(), reduce(), vote(), scan(), tally() and scatter(). Shared memory that one of these writes may be read
// after it, by anyone. emulated_block.h gives the same class in plain C++, so that tests run these bodies on a CPU.
#pragma once
#ifndef __CUDACC__
#include "emulated_block.h"
#else
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#define FASTCAM_DEVICE __device__

namespace fastcam::FASTCAM_ISA {

constexpr uint32_t everyone = ~0u;
extern __shared__ __align__(16) unsigned char shared_memory[];

FASTCAM_DEVICE inline int32_t atomic_min(int32_t* at, int32_t v) { return atomicMin(at, v); }
FASTCAM_DEVICE inline int32_t atomic_add(int32_t* at, int32_t v) { return atomicAdd(at, v); }
// Reads what other threads of the block may be writing.
FASTCAM_DEVICE inline int32_t peek(const int32_t* at) { return *const_cast<const volatile int32_t*>(at); }

// What lies at an address as a T, which the address must be aligned for.
template <class T>
FASTCAM_DEVICE T& at(std::conditional_t<std::is_const_v<T>, const void*, void*> address) {
  return *static_cast<T*>(address);
}

FASTCAM_DEVICE inline int width_of(uint32_t bits) { return 32 - __clz(int(bits)); }  // up to the highest one
FASTCAM_DEVICE inline int trailing_ones(uint32_t bits) { return __popc(bits & ~(bits + 1)); }

class Block {
 public:
  FASTCAM_DEVICE int index() const { return int(blockIdx.x); }
  FASTCAM_DEVICE int count() const { return int(gridDim.x); }

  // n values of shared memory.
  template <class T>
  FASTCAM_DEVICE T* take(int64_t n) {
    T* at = reinterpret_cast<T*>(shared_memory + taken_);
    taken_ += (n * sizeof(T) + 15) / 16 * 16;
    return at;
  }

  // f(i) for i in [0, n), in any order.
  template <class F>
  FASTCAM_DEVICE void each(int n, F f) const {
    for (uint32_t i = threadIdx.x; i < uint32_t(n); i += blockDim.x) f(int(i));
    __syncthreads();
  }

  // join() of f(i) for i in [0, n) and of nothing, in any order; every thread gets it.
  template <class T, class F, class Join>
  FASTCAM_DEVICE T reduce(int n, T nothing, F f, Join join) const {
    __shared__ T parts[32];
    T all = nothing;
    for (uint32_t i = threadIdx.x; i < uint32_t(n); i += blockDim.x) all = join(all, f(int(i)));
    for (int step = 16; step; step /= 2) all = join(all, from_lane(all, lane() ^ step));
    if (lane() == 0) parts[warp()] = all;
    __syncthreads();
    all = parts[0];
    for (int i = 1; i < warps(); ++i) all = join(all, parts[i]);
    __syncthreads();
    return all;
  }

  // f(i, votes) for i in [0, n), in any order: bit j of votes is yes(i / 32 * 32 + j).
  template <class Yes, class F>
  FASTCAM_DEVICE void vote(int n, Yes yes, F f) const {
    const uint32_t rounded = (uint32_t(n) + 31) / 32 * 32;
    for (uint32_t i = threadIdx.x; i < rounded; i += blockDim.x) {
      const bool inside = i < uint32_t(n);
      const uint32_t votes = __ballot_sync(everyone, inside && yes(int(i)));
      if (inside) f(int(i), votes);
    }
    __syncthreads();
  }

  // put(i, get(0) + ... + get(i - 1)) for i in [0, n); put(i) may replace what get(i) read.
  template <class Get, class Put>
  FASTCAM_DEVICE void scan(int n, Get get, Put put) const {
    __shared__ uint32_t parts[32];
    const int share = (n + int(blockDim.x) - 1) / int(blockDim.x), begin = int(threadIdx.x) * share;
    const int end = begin + share < n ? begin + share : n;
    uint32_t own = 0;
    for (int i = begin; i < end; ++i) own += get(i);
    uint32_t sum = own;
    for (int step = 1; step < 32; step *= 2) {
      const uint32_t below = __shfl_up_sync(everyone, sum, step);
      if (lane() >= step) sum += below;
    }
    if (lane() == 31) parts[warp()] = sum;
    __syncthreads();
    uint32_t before = sum - own;
    for (int i = 0; i < warp(); ++i) before += parts[i];
    for (int i = begin; i < end; ++i) {
      const uint32_t here = get(i);
      put(i, before);
      before += here;
    }
    __syncthreads();
  }

  // Items [0, n) are cut into a share for each warp, which has a row of counters, one for each of `digits` digits.
  // tally() counts the digits of a share in its row.
  template <class Digit>
  FASTCAM_DEVICE void tally(int n, uint32_t* counters, int digits, Digit digit) const {
    scatter(n, counters, digits, digit, [](int, uint32_t) {});
  }

  // place(i, counter) with the counter of digit(i), which goes up by one: within a share in the order of its items.
  template <class Digit, class Place>
  FASTCAM_DEVICE void scatter(int n, uint32_t* counters, int digits, Digit digit, Place place) const {
    uint32_t* own = counters + warp() * digits;
    const uint32_t steps = (uint32_t(n) + 31) / 32, share = (steps + warps() - 1) / warps();
    const uint32_t last = share * (warp() + 1) < steps ? share * (warp() + 1) : steps;
    for (uint32_t step = share * warp(); step < last; ++step) {
      const uint32_t i = step * 32 + lane();
      const bool inside = i < uint32_t(n);
      const uint32_t d = inside ? digit(int(i)) : everyone;
      const uint32_t equal = __match_any_sync(everyone, d), before = __popc(equal & ((1u << lane()) - 1));
      uint32_t first = 0;
      if (inside && before == 0) {
        first = own[d];
        own[d] = first + __popc(equal);
      }
      first = __shfl_sync(everyone, first, __ffs(equal) - 1);
      if (inside) place(int(i), first + before);
      __syncwarp();
    }
    __syncthreads();
  }

 private:
  uint32_t taken_ = 0;

  FASTCAM_DEVICE static int lane() { return int(threadIdx.x) % 32; }
  FASTCAM_DEVICE static int warp() { return int(threadIdx.x) / 32; }
  FASTCAM_DEVICE static int warps() { return int(blockDim.x) / 32; }

  template <class T>
  FASTCAM_DEVICE static T from_lane(T v, int lane) {
    static_assert(sizeof(T) % 4 == 0);
    uint32_t words[sizeof(T) / 4];
    memcpy(words, &v, sizeof(T));
    for (uint32_t& word : words) word = __shfl_sync(everyone, word, lane);
    memcpy(&v, words, sizeof(T));
    return v;
  }
};

template <class Body>
__global__ void __launch_bounds__(Body::threads, Body::resident) kernel(const __grid_constant__ Body body) {
  Block block;
  body(block);
}

// body(block) for each of `blocks` blocks with `shared` bytes of shared memory, 48 KB at most, in the order of a
// stream; returns at once. A body says of how many threads its blocks are, and how many blocks at least are to be
// resident on a multiprocessor, which bounds its registers.
template <class Body>
void launch(const char* op, int64_t blocks, int64_t shared, int64_t stream, const Body& body) {
  static_assert(Body::threads % 32 == 0 && Body::threads <= 1024);
  if (blocks > 0x7fffffff) throw std::runtime_error(std::string(op) + ": too many blocks for one launch");
  void* arguments[] = {const_cast<Body*>(&body)};
  const cudaError_t error =
      cudaLaunchKernel(reinterpret_cast<const void*>(&kernel<Body>), dim3(unsigned(blocks)), dim3(Body::threads),
                       arguments, size_t(shared), reinterpret_cast<cudaStream_t>(stream));
  if (error == cudaSuccess) return;
  cudaGetLastError();  // torch would report it again at its next launch
  throw std::runtime_error(std::string(op) + ": " + cudaGetErrorString(error));
}

}  // namespace fastcam::FASTCAM_ISA
#endif
