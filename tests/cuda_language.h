// What csrc/cuda/block.h uses of the CUDA language, on a CPU: the threads of a block are contexts that take turns and
// hand over where a warp or the block waits for all of its own. A barrier that not all threads reach ends the process.
#pragma once
#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#define __device__
#define __global__
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ static

struct dim3 {
  unsigned x = 1;
  explicit dim3(unsigned x = 1) : x(x) {}
};
using cudaError_t = int;
using cudaStream_t = void*;
constexpr int cudaSuccess = 0;
inline int cudaLaunchKernel(const void*, dim3, dim3, void**, size_t, cudaStream_t) { return 0; }
inline int cudaGetLastError() { return 0; }
inline const char* cudaGetErrorString(int) { return ""; }

static dim3 threadIdx, blockIdx, blockDim, gridDim;

struct Thread {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(65536);
  bool done;
};
static std::vector<Thread> all_threads(1024);
static ucontext_t turns;
static void (*thread_body)();

// A round of waiting: of a warp, or of the block.
struct Meeting {
  unsigned round = 0, present = 0;

  void wait(unsigned expected) {
    const unsigned now = round, me = threadIdx.x;
    if (++present == expected) {
      present = 0;
      ++round;
    }
    while (round == now) {
      swapcontext(&all_threads[me].context, &turns);
      threadIdx.x = me;
    }
  }
};
static Meeting warps[32], block;
static uint32_t lanes[32][2][32];  // of a warp in even and odd rounds: all have read a round before the next but one

static const uint32_t* shared_by_warp(uint32_t v) {
  const unsigned warp = threadIdx.x / 32;
  uint32_t* of_round = lanes[warp][warps[warp].round % 2];
  of_round[threadIdx.x % 32] = v;
  warps[warp].wait(32);
  return of_round;
}

template <class Test>
uint32_t lanes_that(uint32_t v, Test test) {
  const uint32_t* values = shared_by_warp(v);
  uint32_t bits = 0;
  for (int i = 0; i < 32; ++i) bits |= uint32_t{test(values[i])} << i;
  return bits;
}

inline void __syncthreads() { block.wait(blockDim.x); }
inline void __syncwarp() { shared_by_warp(0); }
inline uint32_t __shfl_sync(uint32_t, uint32_t v, int lane) { return shared_by_warp(v)[lane % 32]; }
inline uint32_t __shfl_up_sync(uint32_t, uint32_t v, int step) {
  const int lane = threadIdx.x % 32;
  const uint32_t* values = shared_by_warp(v);
  return lane < step ? v : values[lane - step];
}
inline uint32_t __ballot_sync(uint32_t, bool vote) {
  return lanes_that(vote, [](uint32_t other) { return other == 1; });
}
inline uint32_t __match_any_sync(uint32_t, uint32_t v) {
  return lanes_that(v, [v](uint32_t other) { return other == v; });
}
inline int __popc(uint32_t v) { return __builtin_popcount(v); }
inline int __ffs(uint32_t v) { return __builtin_ffs(static_cast<int>(v)); }
inline int __clz(int v) { return v ? __builtin_clz(static_cast<unsigned>(v)) : 32; }
inline int32_t atomicMin(int32_t* at, int32_t v) {
  const int32_t old = *at;
  if (v < old) *at = v;
  return old;
}
inline int32_t atomicAdd(int32_t* at, int32_t v) { return (*at += v) - v; }

static void start_thread() {
  const unsigned me = threadIdx.x;
  thread_body();
  all_threads[me].done = true;
  swapcontext(&all_threads[me].context, &turns);
}

// body() by each thread of block `index`, until all have ended.
static void run_block(unsigned index, unsigned threads, void (*body)()) {
  thread_body = body;
  blockIdx.x = index;
  blockDim.x = threads;
  for (unsigned i = 0; i < threads; ++i) {
    Thread& thread = all_threads[i];
    thread.done = false;
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.data();
    thread.context.uc_stack.ss_size = thread.stack.size();
    makecontext(&thread.context, start_thread, 0);
  }
  unsigned met = block.round;
  // A warp runs until it waits for others: it is ahead of them as far as barriers let it.
  unsigned ended = 0, before = 0, moves = 1;
  while (ended < threads && moves != before) {
    before = moves;
    for (unsigned warp = 0; warp < threads / 32; ++warp) {
      for (unsigned last = moves - 1; last != moves;) {
        last = moves;
        const unsigned round = warps[warp].round;
        for (unsigned i = warp * 32; i < warp * 32 + 32; ++i) {
          if (all_threads[i].done) continue;
          threadIdx.x = i;
          swapcontext(&turns, &all_threads[i].context);
          ended += all_threads[i].done;
          moves += all_threads[i].done;
        }
        moves += warps[warp].round - round;
      }
    }
    moves += block.round - met;
    met = block.round;
  }
  if (ended < threads) {
    std::puts("a thread waits for one that never comes");
    std::exit(1);
  }
}
