// The CUDA kernels in plain C++, for tests on machines without a GPU.
#define FASTCAM_ISA emulated
#include "component_boxes.cu"
#include "mask_images.cu"
#include "rank_pixels.cu"
#include "table.cu"

namespace fastcam {
namespace emulated {
Order order = Order::rising;
}

void set_order(int order) { emulated::order = emulated::Order(order); }

}  // namespace fastcam
