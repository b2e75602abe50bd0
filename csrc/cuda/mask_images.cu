// out[b, k] = images[b] * resize(activations[b, k]), min-max normalized after, before or never.
//
// A block writes one tile, some rows and columns, of up to four masked images. It finds the extremes of the four whole
// masks from at most 2h * 2w pixels each, so that no mask is ever stored, stretches the few rows of cells under its
// tile to the tile's width in shared memory, and then blends two of these rows for every pixel. Channels last is one
// plane whose rows hold each mask column C times, as on the CPU, so both layouts are written in the same way: 16 bytes
// a thread, 8 lanes to a 128-byte line; narrower where a row has no multiple of that.
//
// Moved: the output once, B * K * C * H * W values; of the images a fourth of that count as float32, from the L2 cache:
// the blocks that run together write the same tile of different masks. Floor: the output over the bandwidth.
#include <algorithm>

#include "arithmetic.h"
#include "block.h"
#include "convert.h"
#include "ops.h"

namespace fastcam::FASTCAM_ISA {
namespace {

constexpr int together = 4;                 // masks of a block: each image value is read once for all of them
constexpr int widest = 1024;                // columns of a tile
constexpr int highest = 32;                 // rows of a tile
constexpr int enough = 512;                 // blocks that fill a GPU; below, tiles get smaller
constexpr int64_t table_bytes = 36 * 1024;  // of shared memory for the stretched rows
constexpr int64_t cells_bytes = 6 * 1024;   // and for the maps' cells, which are read in place where they are more
constexpr int searched = 128;               // rows, and columns, searched for extremes at a time

// n values that lie on a multiple of their size: one load or store.
template <class T, int n>
struct alignas(sizeof(T) * n) Vector {
  T values[n];
};

struct Mask {
  float origin;
  MinMax cells, pixels;
};

// How the output is cut; all lengths in elements of one plane.
struct Tiles {
  int planes, repeat, row, columns, rows, across, down, groups;
  int lines;   // rows of cells under a tile
  int stride;  // of stretched rows

  Tiles(const MaskImages& s, const Stretch& y)
      : planes(int(s.channels_last ? 1 : s.C)), repeat(int(s.channels_last ? s.C : 1)), row(int(s.W) * repeat) {
    across = (row + widest - 1) / widest;
    columns = across == 1 ? row : ((row + across - 1) / across + 15) / 16 * 16;
    across = (row + columns - 1) / columns;
    stride = (columns + 7) / 8 * 8;
    groups = int((s.K + together - 1) / together);
    cut(s, y, highest);
    while (rows > 1 && int64_t{together} * lines * stride * 4 > table_bytes) cut(s, y, rows / 2);
    while (rows > 4 && s.B * groups * across * down < enough) cut(s, y, rows / 2);
  }

 private:
  void cut(const MaskImages& s, const Stretch& y, int height) {
    rows = height;
    down = int((s.H + rows - 1) / rows);
    lines = 1;
    for (int64_t first = 0; first < s.H; first += rows)
      lines = std::max(lines, y.at(std::min(first + rows, s.H) - 1).high - y.at(first).low + 1);
  }
};

// V: elements of one store.
template <class T, int V>
struct MaskTiles {
  static constexpr int threads = 256, resident = 2;
  MaskImages s;
  Stretch y, x;
  Tiles tiles;
  bool staged;  // cells lie in shared memory

  static constexpr int part = V < 4 ? V : 4;  // floats of one load

  int64_t shared_bytes() const {
    return together * (int64_t{tiles.lines} * tiles.stride + (staged ? s.h * s.w : 0)) * 4 +
           (2 * searched + tiles.rows) * int64_t{sizeof(Spot)} + together * int64_t{sizeof(Mask)} + 5 * 16;
  }

  // Column l of a stretched row. Vectors of eight lie in two halves, so that lanes side by side read side by side.
  FASTCAM_DEVICE int place(int l) const { return V < 8 ? l : (l & 4 ? tiles.stride / 2 : 0) + l / 8 * 4 + l % 4; }

  FASTCAM_DEVICE void operator()(Block& block) const {
    const int group = block.index() % tiles.groups, tile = block.index() / tiles.groups;
    const int left = tile % tiles.across * tiles.columns, top = tile / tiles.across % tiles.down * tiles.rows;
    const int64_t b = tile / tiles.across / tiles.down, first = b * s.K + group * together;
    const int count = group * together + together < s.K ? together : int(s.K) - group * together;
    const int columns = left + tiles.columns < tiles.row ? tiles.columns : tiles.row - left;
    const int rows = top + tiles.rows < s.H ? tiles.rows : int(s.H) - top;
    const int size = int(s.h * s.w);

    float* table = block.take<float>(together * tiles.lines * tiles.stride);
    Spot* spots = block.take<Spot>(2 * searched);
    Spot* lines = block.take<Spot>(tiles.rows);
    Mask* masks = block.take<Mask>(together);
    const float* cells = s.activations + b * s.stride + int64_t{group} * together * size;
    if (staged) {
      float* copy = block.take<float>(together * size);
      block.each(count * size, [&](int i) { copy[i] = cells[i]; });
      cells = copy;
    }
    // Starting at zero, a small range on a large offset loses no digits.
    block.each(count, [&](int k) {
      masks[k] = {s.normalize == Normalize::never ? 0.0f : cells[int64_t{k} * size], MinMax({0, 1}), MinMax({0, 1})};
    });
    for (int k = 0; k < count; ++k) {
      const float* own = cells + int64_t{k} * size;
      const Range range = s.normalize == Normalize::before ? range_of_cells(block, own, masks[k].origin)
                                                           : range_of_pixels(block, own, masks[k].origin, spots);
      block.each(1, [&](int) {
        if (s.normalize == Normalize::before) masks[k].cells = MinMax(range);
        if (s.normalize == Normalize::after) masks[k].pixels = MinMax(range);
        if (left == 0 && top == 0) s.constant[first + k] = range.constant();
      });
    }
    stretch(block, cells, masks, count, table, lines, left, top, columns, rows);
    write(block, table, lines, count, b, first, left, top, columns, rows);
  }

 private:
  FASTCAM_DEVICE Range range_of_cells(Block& block, const float* cells, float origin) const {
    return block.reduce(
        int(s.h * s.w), nothing(),
        [&](int i) {
          const float v = cells[i] - origin;
          return Range{v, v};
        },
        [](Range a, Range b) { return a.with(b); });
  }

  FASTCAM_DEVICE Range range_of_pixels(Block& block, const float* cells, float origin, Spot* spots) const {
    const int down = int(y.ends()), across = int(x.ends());
    Range range = nothing();
    for (int top = 0; top < down; top += searched)
      for (int left = 0; left < across; left += searched) {
        const int rows = top + searched < down ? searched : down - top;
        const int columns = left + searched < across ? searched : across - left;
        block.each(rows + columns,
                   [&](int i) { spots[i] = i < rows ? y.at(y.end(top + i)) : x.at(x.end(left + i - rows)); });
        range = range.with(block.reduce(
            rows * columns, nothing(),
            [&](int i) {
              const Spot at = spots[i / columns], along = spots[rows + i % columns];
              const auto blended = [&](int32_t line) {
                const float* from = cells + line * s.w;
                return lerp(from[along.low] - origin, from[along.high] - origin, along.t);
              };
              const float v = lerp(blended(at.low), blended(at.high), at.t);
              return Range{v, v};
            },
            [](Range a, Range b) { return a.with(b); }));
      }
    return range;
  }

  FASTCAM_DEVICE static Range nothing() { return {float_of(0x7f800000u), float_of(0xff800000u)}; }

  // The rows of cells under the tile, stretched to its columns, and where its rows lie between them.
  FASTCAM_DEVICE void stretch(Block& block, const float* cells, const Mask* masks, int count, float* table, Spot* lines,
                              int left, int top, int columns, int rows) const {
    const int base = y.at(top).low, used = y.at(top + rows - 1).high - base + 1;
    block.each(columns, [&](int l) {
      const Spot along = x.at((left + l) / tiles.repeat);
      for (int k = 0; k < count; ++k) {
        const Mask mask = masks[k];
        for (int r = 0; r < used; ++r) {
          const float* from = cells + int64_t{k} * s.h * s.w + (base + r) * s.w;
          const float a = mask.cells(from[along.low] - mask.origin), b = mask.cells(from[along.high] - mask.origin);
          table[(k * tiles.lines + r) * tiles.stride + place(l)] = mask.pixels(lerp(a, b, along.t));
        }
      }
    });
    block.each(rows, [&](int r) {
      const Spot at = y.at(top + r);
      lines[r] = {at.low - base, at.high - base, at.t};
    });
  }

  FASTCAM_DEVICE void write(Block& block, const float* table, const Spot* lines, int count, int64_t b, int64_t first,
                            int left, int top, int columns, int rows) const {
    const int vectors = columns / V;
    const int64_t plane = s.H * tiles.row, size = tiles.planes * plane;
    block.each(rows * vectors, [&](int i) {
      const int r = i / vectors, j = i % vectors;
      const Spot spot = lines[r];
      float values[together][V];
      for (int k = 0; k < together; ++k) {
        if (k >= count) break;
        const float* rows_of_mask = table + k * tiles.lines * tiles.stride;
        float low[V], high[V];
        load_stretched(rows_of_mask + spot.low * tiles.stride, j, low);
        load_stretched(rows_of_mask + spot.high * tiles.stride, j, high);
        for (int v = 0; v < V; ++v) values[k][v] = lerp(low[v], high[v], spot.t);
      }
      int64_t place = int64_t{top + r} * tiles.row + left + j * V;
      for (int c = 0; c < tiles.planes; ++c, place += plane) {
        float image[V];
        load(s.images + b * size + place, part, image);
        for (int k = 0; k < together; ++k) {
          if (k >= count) break;
          Vector<T, V> out;
          for (int v = 0; v < V; ++v) store(image[v] * values[k][v], out.values[v]);
          at<Vector<T, V>>(static_cast<T*>(s.out) + (first + k) * size + place) = out;
        }
      }
    });
  }

  // Vector j of a stretched row.
  FASTCAM_DEVICE void load_stretched(const float* row, int j, float* out) const {
    load(row + place(j * V), place(4) - place(0), out);
  }

  // V values in parts that begin `step` apart.
  FASTCAM_DEVICE static void load(const float* from, int step, float* out) {
    for (int v = 0; v < V; v += part) {
      const Vector<float, part> loaded = at<const Vector<float, part>>(from + v / part * step);
      for (int i = 0; i < part; ++i) out[v + i] = loaded.values[i];
    }
  }
};

bool lies_on(const void* at, int64_t bytes) { return reinterpret_cast<uintptr_t>(at) % bytes == 0; }

template <class T, int V>
void run(const MaskImages& s, const Tiles& tiles, const Stretch& y, const Stretch& x) {
  if constexpr (V > 1) {
    const bool fits =
        tiles.row % V == 0 && lies_on(s.out, V * sizeof(T)) && lies_on(s.images, MaskTiles<T, V>::part * 4);
    if (!fits) return run<T, V / 2>(s, tiles, y, x);
  }
  const MaskTiles<T, V> body{s, y, x, tiles, together * s.h * s.w * 4 <= cells_bytes};
  const int64_t blocks = s.B * tiles.groups * tiles.across * tiles.down;
  launch("mask_images", blocks, body.shared_bytes(), s.place, body);
}

}  // namespace

void mask_images(const MaskImages& s) {
  const Stretch y(s.h, s.H, s.align_corners), x(s.w, s.W, s.align_corners);
  const Tiles tiles(s, y);
  switch (s.type) {
    case Float::f32: return run<float, 4>(s, tiles, y, x);
    case Float::bf16: return run<Bf16, 8>(s, tiles, y, x);
    case Float::f16: return run<Half, 8>(s, tiles, y, x);
  }
}

}  // namespace fastcam::FASTCAM_ISA
