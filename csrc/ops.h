// Table of contents: every kernel's arguments, shapes and formula. Dense row-major pointers; no Python, no torch.
// `place` says where it runs: on how many threads of a CPU, or on which stream of a GPU.
// Each CPU kernel is compiled once per instruction set into fastcam::<isa>; kernels() holds the set chosen at run time.
// The CUDA kernels are compiled into fastcam::cuda and, in plain C++, into fastcam::emulated, where tests run them.
#pragma once
#include <cstdint>
#include <string>

namespace fastcam {

enum class Float : int { f32 = 0, bf16 = 1, f16 = 2 };               // as in fastcam/ops/native.py
enum class Normalize : int { after = 0, before = 1, never = 2 };     // min-max after or before the resize
enum class Clip : int { before = 0, after = 1, never = 2 };          // ReLU before or after the resize
enum class Kernel : int { point = 0, gaussian = 1, neighbors = 2 };  // what a cell takes along

// out[b, t, p] = sum_c weights[b, t, c] * activations[b, c, p]
struct WeightedSum {
  const void* activations;  // (B, C, P) of `type`
  const float* weights;     // (B, T, C)
  float* out;               // (B, T, P)
  int64_t B, T, C, P;
  Float type;
  int64_t place;
};

// out[n] = (m - min m) / (max m - min m), m = resize(maps[n]); zeros where max == min
struct ResizeNormalize {
  const float* maps;  // (N, h, w)
  float* out;         // (N, H, W) in [0, 1]
  int64_t N, h, w, H, W;
  Clip clip;
  int64_t place;
};

// out[b, k] = images[b] * resize(activations[b, k]), min-max normalized after, before or never
struct MaskImages {
  const float* activations;  // (B, K, h, w), image b starts at b * stride
  const float* images;       // (B, C, H, W) or, channels last, (B, H, W, C)
  void* out;                 // (B, K, C, H, W) or (B, K, H, W, C), of `type`
  uint8_t* constant;         // (B, K): max == min
  int64_t stride, B, K, h, w, C, H, W;
  Float type;
  bool channels_last;
  Normalize normalize;
  bool align_corners;
  int64_t place;
};

// out[b, i - start] = A[b] at cell i and its surroundings, zero elsewhere
struct MaskCells {
  const float* activations;  // (B, C, h, w)
  void* out;                 // (B, stop - start, C, h, w) or (B, stop - start, h, w, C), of `type`
  int64_t B, C, h, w, start, stop;
  Float type;
  bool channels_last;
  Kernel kernel;
  int64_t place;
};

// out[b, k - start] = A[b] with channel k zeroed; any element type of `bytes` bytes
struct MaskChannels {
  const void* activations;  // (B, C, P) or, channels last, (B, P, C)
  void* out;                // (B, stop - start, C, P) or (B, stop - start, P, C)
  int64_t B, C, P, start, stop, bytes;
  bool channels_last;
  int64_t place;
};

// out[p] = round((1 - alpha) * images[p] + alpha * colormap[round(255 * maps[p])])
struct Overlay {
  const uint8_t* images;    // (N, 3)
  const float* maps;        // (N), clipped to [0, 1], NaN is 0
  const uint8_t* colormap;  // (256, 3)
  uint8_t* out;             // (N, 3)
  int64_t N;
  double alpha;
  int64_t place;
};

// ranks[n, p] = position of pixel p in falling order of maps[n]; equal values in the order of their indices, NaN last
struct RankPixels {
  const float* maps;  // (N, P)
  int32_t* ranks;     // (N, P)
  uint64_t* scratch;  // (blocks, 2, P) on a GPU
  int64_t blocks, N, P;
  int64_t place;
};

// A tensor (N, C, H, W) in place: steps of its axes in elements, 0 where it is repeated
struct Pixels {
  const void* data;
  int64_t batch, channel, row, column;
};

// out[n, s, :, y, x] = (ranks[n, y * h / H, x * w / W] < counts[s] ? others : images)[n, :, y, x]; any element type
struct PerturbSteps {
  Pixels images, others;
  const int32_t* ranks;   // (N, h, w), image n starts at n * stride
  const int64_t* counts;  // (S), not negative
  void* out;              // (N, S, C, H, W) or, channels last, (N, S, H, W, C), of `bytes` bytes an element
  int64_t stride, N, S, C, H, W, h, w, bytes;
  bool channels_last;
  int64_t place;
};

// out = images * (taps x taps), zero outside of the image
struct BlurImages {
  const void* images;  // (N, C, H, W) or, channels last, (N, H, W, C), of `type`
  const float* taps;   // (size), symmetric
  void* out;           // as images
  int64_t N, C, H, W, size;
  Float type;
  bool channels_last;
  int64_t place;
};

// boxes[b, t] = inclusive x0 y0 x1 y1 of the largest connected component of maps[b] > thresholds[b, t] (* max maps[b])
struct ComponentBoxes {
  const float* maps;        // (B, H, W)
  const float* thresholds;  // (T), those of image b start at b * stride
  int32_t* boxes;           // (B, T, 4); 0 0 -1 -1 where there is none
  int32_t* areas;           // (B, T)
  int32_t* scratch;         // (blocks, 2, H, W) on a GPU
  int64_t blocks, stride, B, H, W, T;
  int connectivity;
  bool relative;
  int64_t place;
};

// Every connected component of at least min_area pixels, by image, threshold, then first pixel in row-major order.
struct Components {
  const float* maps;        // as in ComponentBoxes
  const float* thresholds;  // as in ComponentBoxes
  int32_t* boxes;           // (capacity, 4)
  int32_t* areas;           // (capacity)
  int64_t* owners;          // (capacity, 2): image, threshold
  int64_t* count;           // how many there are; where more than the capacity, only this is written
  int64_t capacity, stride, B, H, W, T, min_area;
  int connectivity;
  bool relative;
  int64_t place;
};

// inside[b] = sum of maps[b] over the union of its boxes, total[b] = sum of maps[b]
struct EnergyInBoxes {
  const float* maps;   // (B, H, W)
  const float* boxes;  // (B, N, 4), corners x0 y0 x1 y1
  double* inside;      // (B)
  double* total;       // (B)
  int64_t B, N, H, W;
  bool inclusive;  // whether x1 and y1 belong to the box
  int64_t place;
};

// out[n] = images[n] with each removed pixel the weighted mean of its neighbors inside the image: weights 1/6 (direct)
// and 1/12 (diagonal), renormalized at the border; where all are removed, the mean of the channel
struct ImputePixels {
  const float* images;     // (N, C, H, W), image n starts at n * stride
  const uint8_t* removed;  // (N, H, W): 0 or 1
  float* out;              // (N, C, H, W)
  uint8_t* failed;         // (N): the error may be above the tolerance
  int64_t stride, N, C, H, W;
  double tolerance;  // largest error, as a share of the range of a channel's kept pixels
  int64_t place;
};

struct Kernels {
  void (*weighted_sum)(const WeightedSum&);
  void (*resize_normalize)(const ResizeNormalize&);
  void (*mask_images)(const MaskImages&);
  void (*mask_cells)(const MaskCells&);
  void (*mask_channels)(const MaskChannels&);
  void (*overlay)(const Overlay&);
  void (*rank_pixels)(const RankPixels&);
  void (*perturb_steps)(const PerturbSteps&);
  void (*blur_images)(const BlurImages&);
  void (*component_boxes)(const ComponentBoxes&);
  void (*components)(const Components&);
  void (*energy_in_boxes)(const EnergyInBoxes&);
  void (*impute_pixels)(const ImputePixels&);
};

// The sets of kernels; in those for a GPU some are missing.
const Kernels& kernels();
const Kernels& cuda_kernels();  // none without nvcc
const Kernels& emulated_kernels();
std::string cuda_refusal();  // why the CUDA kernels do not run on the current GPU, or nothing

const char* isa();               // name of the instruction set in use
bool use_isa(const char* name);  // false if this build or this CPU lacks it
void set_order(int order);       // in which emulated threads run, an Order of cuda/emulated_block.h

#ifdef FASTCAM_ISA
namespace FASTCAM_ISA {
void weighted_sum(const WeightedSum&);
void resize_normalize(const ResizeNormalize&);
void mask_images(const MaskImages&);
void mask_cells(const MaskCells&);
void mask_channels(const MaskChannels&);
void overlay(const Overlay&);
void rank_pixels(const RankPixels&);
void perturb_steps(const PerturbSteps&);
void blur_images(const BlurImages&);
void component_boxes(const ComponentBoxes&);
void components(const Components&);
void energy_in_boxes(const EnergyInBoxes&);
void impute_pixels(const ImputePixels&);
}  // namespace FASTCAM_ISA
#endif

}  // namespace fastcam
