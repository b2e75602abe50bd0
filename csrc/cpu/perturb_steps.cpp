// A band of rows stays in the caches while each step's copy of it is written, in long runs of the output. Within a
// band every row is a pointer: into the tensor where it lies as the output does, else into a buffer, so that a
// constant costs one row. Ranks are kept as wide as the elements, which makes the choice plain vector code.
#include <limits>
#include <vector>

#include "ops.h"
#include "parallel.h"

namespace fastcam::FASTCAM_ISA {
namespace {

constexpr int64_t band_bytes = 65536;  // of one image; with its ranks and the others about a third of an L2 cache

// to[x * repeat + c] = of(x), for c < repeat.
template <class T, class Of>
void spread(int64_t n, int64_t repeat, T* __restrict to, Of of) {
  if (repeat == 3) {
    for (int64_t x = 0; x < n; ++x)
      for (int64_t c = 0; c < 3; ++c) to[x * 3 + c] = of(x, c);
  } else {
    for (int64_t x = 0; x < n; ++x)
      for (int64_t c = 0; c < repeat; ++c) to[x * repeat + c] = of(x, c);
  }
}

// What all bands share. Channels last is one plane whose rows hold each rank C times.
struct Shape {
  int64_t planes, repeat, row, height;

  Shape(const PerturbSteps& s)
      : planes(s.channels_last ? 1 : s.C),
        repeat(s.channels_last ? s.C : 1),
        row(s.W * repeat),
        height(std::max<int64_t>(1, std::min(s.H, band_bytes / (s.C * s.W * s.bytes)))) {}
};

// The rows of images or others, as the output holds them.
template <class T>
class Source {
 public:
  Source(const PerturbSteps& s, const Pixels& from, const Shape& shape)
      : from_(from), shape_(shape), width_(s.W), kept_(from.row ? shape.height : 1) {
    direct_ = from.column == shape.repeat && (shape.planes > 1 || from.channel == 1 || shape.repeat == 1);
    rows_.resize(shape.planes * shape.height);
    if (!direct_) buffer_.resize(shape.planes * kept_ * shape.row);
  }

  void fill(int64_t n, int64_t first, int64_t last) {
    for (int64_t c = 0; c < shape_.planes; ++c)
      for (int64_t y = first; y < last; ++y) {
        const T* from = static_cast<const T*>(from_.data) + n * from_.batch + c * from_.channel + y * from_.row;
        const T*& row = rows_[c * shape_.height + y - first];
        if (direct_) {
          row = from;
          continue;
        }
        T* to = buffer_.data() + (c * kept_ + (y - first) % kept_) * shape_.row;
        if (y - first < kept_)
          spread(width_, shape_.repeat, to,
                 [&](int64_t x, int64_t channel) { return from[x * from_.column + channel * from_.channel]; });
        row = to;
      }
  }

  const T* row(int64_t c, int64_t y) const { return rows_[c * shape_.height + y]; }

 private:
  const Pixels& from_;
  const Shape& shape_;
  int64_t width_, kept_;  // kept_: rows of a plane in the buffer
  bool direct_;
  std::vector<const T*> rows_;
  std::vector<T> buffer_;
};

// The ranks of a band's rows, counted from a base and cut to the range of T; T is unsigned.
template <class T>
class Ranks {
 public:
  Ranks(const PerturbSteps& s, const Shape& shape)
      : s_(s), shape_(shape), cells_(s.W), line_(s.W), buffer_(shape.height * shape.row), rows_(shape.height) {
    for (int64_t x = 0; x < s.W; ++x) cells_[x] = static_cast<int32_t>(x * s.w / s.W);
  }

  // For steps down to `lowest` that begin with `at`: half of T's range lies below it, where there is need.
  void fill(int64_t n, int64_t first, int64_t last, int32_t at, int32_t lowest) {
    const int32_t base = static_cast<int32_t>(std::max<int64_t>(lowest, int64_t{at} - (top - 1) / 2));
    base_ = base;
    for (int64_t y = first; y < last; ++y) {
      const int64_t cell = y * s_.h / s_.H;
      if (y > first && cell == (y - 1) * s_.h / s_.H) {
        rows_[y - first] = rows_[y - first - 1];
        continue;
      }
      const int32_t* from = s_.ranks + n * s_.stride + cell * s_.w;
      T *to = buffer_.data() + (y - first) * shape_.row, *line = shape_.repeat == 1 ? to : line_.data();
      if (s_.w == s_.W) {
        for (int64_t x = 0; x < s_.W; ++x) line[x] = cut(from[x], base);
      } else {
        for (int64_t x = 0; x < s_.W; ++x) line[x] = cut(from[cells_[x]], base);
      }
      if (shape_.repeat > 1) spread(s_.W, shape_.repeat, to, [&](int64_t x, int64_t) { return line[x]; });
      rows_[y - first] = to;
    }
  }

  // Whether ranks up to `last` can be told from higher ones.
  bool hold(int32_t last) const { return last >= base_ && offset(last, base_) < top; }
  T limit(int32_t last) const { return static_cast<T>(offset(last, base_)); }
  const T* row(int64_t y) const { return rows_[y]; }

 private:
  static constexpr uint32_t top = sizeof(T) < 4 ? std::numeric_limits<T>::max() : std::numeric_limits<uint32_t>::max();

  static uint32_t offset(int32_t rank, int32_t base) {
    return rank < base ? 0 : static_cast<uint32_t>(rank) - static_cast<uint32_t>(base);
  }
  static T cut(int32_t rank, int32_t base) { return static_cast<T>(std::min(offset(rank, base), top)); }

  const PerturbSteps& s_;
  const Shape& shape_;
  int32_t base_ = 0;
  std::vector<int32_t> cells_;
  std::vector<T> line_, buffer_;
  std::vector<const T*> rows_;
};

template <class T>
T chosen(T rank, T limit, T other, T image) {
  const T mask = rank <= limit ? static_cast<T>(-1) : T{0};  // compilers do not vectorize a choice of 16-bit integers
  return static_cast<T>((other & mask) | (image & ~mask));
}

template <class T>
void write(const T* ranks, T limit, const T* other, const T* image, T* __restrict out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = chosen(ranks[i], limit, other[i], image[i]);
}

// Two steps at a time read everything once; measured on 64 steps of 224 x 224: 1.1 instead of 1.5 times a plain fill.
template <class T>
void write_two(const T* ranks, T limit, T next_limit, const T* other, const T* image, T* __restrict out,
               T* __restrict next, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    out[i] = chosen(ranks[i], limit, other[i], image[i]);
    next[i] = chosen(ranks[i], next_limit, other[i], image[i]);
  }
}

template <class T>
void run(const PerturbSteps& s) {
  const Shape shape(s);
  const int64_t bands = (s.H + shape.height - 1) / shape.height, pairs = (s.S + 1) / 2;
  const int64_t plane = s.H * shape.row, size = shape.planes * plane;
  std::vector<int32_t> last(s.S);  // the last rank that is chosen from the others, -1 for none
  for (int64_t i = 0; i < s.S; ++i) last[i] = static_cast<int32_t>(std::min(s.counts[i], int64_t{1} << 31) - 1);
  const int32_t lowest = *std::min_element(last.begin(), last.end());
  parallel(s.N * bands * pairs, worth(s.place, s.N * s.S * size), [&](int64_t begin, int64_t end, int) {
    Source<T> images(s, s.images, shape), others(s, s.others, shape);
    Ranks<T> ranks(s, shape);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t pair = i % pairs, n = i / pairs / bands, first = i / pairs % bands * shape.height;
      const int64_t rows = std::min(s.H - first, shape.height), stop = std::min(s.S, 2 * pair + 2);
      bool stale = i == begin || pair == 0;
      if (stale) {
        images.fill(n, first, first + rows);
        others.fill(n, first, first + rows);
      }
      for (int64_t step = 2 * pair; step < stop; ++step) {
        if (stale || !ranks.hold(last[step])) ranks.fill(n, first, first + rows, last[step], lowest);
        stale = false;
        const bool two = step + 1 < stop && ranks.hold(last[step + 1]);
        const T limit = ranks.limit(last[step]), next_limit = two ? ranks.limit(last[step + 1]) : limit;
        T* out = static_cast<T*>(s.out) + (n * s.S + step) * size + first * shape.row;
        for (int64_t c = 0; c < shape.planes; ++c, out += plane)
          for (int64_t y = 0; y < rows; ++y) {
            T* to = out + y * shape.row;
            if (two) {
              write_two(ranks.row(y), limit, next_limit, others.row(c, y), images.row(c, y), to, to + size, shape.row);
            } else {
              write(ranks.row(y), limit, others.row(c, y), images.row(c, y), to, shape.row);
            }
          }
        step += two;
      }
    }
  });
}

}  // namespace

void perturb_steps(const PerturbSteps& s) {
  switch (s.bytes) {  // a choice between elements needs no arithmetic: any type of that size
    case 2: return run<uint16_t>(s);
    case 4: return run<uint32_t>(s);
    case 8: return run<uint64_t>(s);
  }
}

}  // namespace fastcam::FASTCAM_ISA
