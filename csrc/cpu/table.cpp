#include "ops.h"

namespace fastcam::FASTCAM_ISA {
extern const Kernels table;
const Kernels table{weighted_sum, resize_normalize, mask_images,   mask_cells,  mask_channels,
                    overlay,      rank_pixels,      perturb_steps, blur_images, component_boxes,
                    components,   energy_in_boxes,  impute_pixels};
}  // namespace fastcam::FASTCAM_ISA
