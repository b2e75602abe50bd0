// Block of block.h on a CPU: one block after another, the items of a loop in an order that tests choose. A body that
// lacks a barrier, or whose result hangs on the order of its threads, then gives other results in another order.
#pragma once
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#endif

#define FASTCAM_DEVICE

namespace fastcam::FASTCAM_ISA {

enum class Order : int { rising = 0, falling = 1, mixed = 2, threads = 3 };  // threads: at the same time, on four
extern Order order;

#if defined(__GNUC__)
inline int32_t atomic_min(int32_t* at, int32_t v) {
  if (order == Order::threads) std::this_thread::yield();  // so that others come between what was read and this
  int32_t old = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (v < old && !__atomic_compare_exchange_n(at, &old, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) continue;
  return old;
}
inline int32_t atomic_add(int32_t* at, int32_t v) { return __atomic_fetch_add(at, v, __ATOMIC_RELAXED); }
inline int32_t peek(const int32_t* at) { return __atomic_load_n(at, __ATOMIC_RELAXED); }
#else
inline int32_t atomic_min(int32_t* at, int32_t v) {
  const int32_t old = *at;
  if (v < old) *at = v;
  return old;
}
inline int32_t atomic_add(int32_t* at, int32_t v) { return (*at += v) - v; }
inline int32_t peek(const int32_t* at) { return *at; }
#endif

template <class T>
T& at(std::conditional_t<std::is_const_v<T>, const void*, void*> address) {
  if (reinterpret_cast<uintptr_t>(address) % alignof(T)) throw std::runtime_error("misaligned address");
  return *static_cast<T*>(address);
}

inline int width_of(uint32_t bits) {
  int width = 0;
  for (; bits; bits >>= 1) ++width;
  return width;
}
inline int trailing_ones(uint32_t bits) { return width_of(bits & ~(bits + 1)); }

// Item i of n in the chosen order.
inline int64_t ordered(int64_t i, int64_t n) {
  constexpr int64_t step = 7919;  // a prime: every item comes once unless it divides n
  if (order == Order::falling) return n - 1 - i;
  return order == Order::mixed && n % step ? i * step % n : i;
}

template <class F>
void in_order(int64_t n, F f) {
#if defined(_OPENMP) && defined(__GNUC__)
  if (order == Order::threads) {
#pragma omp parallel for num_threads(4) schedule(static, 1)
    for (int64_t i = 0; i < n; ++i) f(i);
    return;
  }
#endif
  for (int64_t i = 0; i < n; ++i) f(ordered(i, n));
}

class Block {
 public:
  Block(int64_t index, int64_t count, int threads, unsigned char* shared)
      : index_(index), count_(count), warps_(threads / 32), shared_(shared) {}

  int index() const { return static_cast<int>(index_); }
  int count() const { return static_cast<int>(count_); }

  template <class T>
  T* take(int64_t n) {
    T* at = reinterpret_cast<T*>(shared_);
    shared_ += (n * sizeof(T) + 15) / 16 * 16;
    return at;
  }

  template <class F>
  void each(int n, F f) const {
    in_order(n, [&](int64_t i) { f(static_cast<int>(i)); });
  }

  template <class T, class F, class Join>
  T reduce(int n, T nothing, F f, Join join) const {
    T all = nothing;
    for (int64_t i = 0; i < n; ++i) all = join(all, f(static_cast<int>(ordered(i, n))));
    return all;
  }

  template <class Yes, class F>
  void vote(int n, Yes yes, F f) const {
    in_order((int64_t{n} + 31) / 32, [&](int64_t word) {
      const int64_t first = word * 32, lanes = n - first < 32 ? n - first : 32;
      uint32_t votes = 0;
      for (int64_t j = 0; j < lanes; ++j) votes |= uint32_t{yes(static_cast<int>(first + j))} << j;
      for (int64_t j = 0; j < lanes; ++j) f(static_cast<int>(first + ordered(j, lanes)), votes);
    });
  }

  template <class Get, class Put>
  void scan(int n, Get get, Put put) const {
    uint32_t before = 0;
    for (int i = 0; i < n; ++i) {
      const uint32_t here = get(i);
      put(i, before);
      before += here;
    }
  }

  template <class Digit>
  void tally(int n, uint32_t* counters, int digits, Digit digit) const {
    scatter(n, counters, digits, digit, [](int, uint32_t) {});
  }

  template <class Digit, class Place>
  void scatter(int n, uint32_t* counters, int digits, Digit digit, Place place) const {
    const int64_t share = ((int64_t{n} + 31) / 32 + warps_ - 1) / warps_ * 32;
    in_order(warps_, [&](int64_t warp) {
      uint32_t* own = counters + warp * digits;
      const int64_t end = (warp + 1) * share < n ? (warp + 1) * share : n;
      for (int64_t i = warp * share; i < end; ++i) place(static_cast<int>(i), own[digit(static_cast<int>(i))]++);
    });
  }

 private:
  int64_t index_, count_, warps_;
  unsigned char* shared_;
};

template <class Body>
void launch(const char* op, int64_t blocks, int64_t shared, int64_t, const Body& body) {
  // 48 KB less what reductions take.
  if (shared > 47 * 1024) throw std::runtime_error(std::string(op) + ": more shared memory than every GPU has");
  std::vector<uint64_t> memory((shared + 15) / 16 * 2 + 1);
  unsigned char* begin = reinterpret_cast<unsigned char*>(memory.data());
  if (reinterpret_cast<uintptr_t>(begin) % 16) begin += 8;
  for (int64_t i = 0; i < blocks; ++i) {
    std::memset(begin, 0xff, shared);  // NaN: what no one wrote shows
    Block block(ordered(i, blocks), blocks, Body::threads, begin);
    body(block);
  }
}

}  // namespace fastcam::FASTCAM_ISA
