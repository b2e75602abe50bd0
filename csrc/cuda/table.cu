#include "ops.h"

namespace fastcam::FASTCAM_ISA {
namespace {

Kernels kernels_for_a_gpu() {
  Kernels kernels{};
  kernels.component_boxes = component_boxes;
  kernels.mask_images = mask_images;
  kernels.rank_pixels = rank_pixels;
  return kernels;
}

}  // namespace

extern const Kernels table;
const Kernels table = kernels_for_a_gpu();
}  // namespace fastcam::FASTCAM_ISA
