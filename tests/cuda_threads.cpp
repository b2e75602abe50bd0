// The kernels of csrc/cuda with the Block of block.h itself, by tests/cuda_language.h; block.h is a copy in which
// shared memory is an ordinary array.
#define FASTCAM_ISA threads
#include "both.h"
#include "cuda_language.h"
#define __CUDACC__
#define launch launch_on_a_gpu
#include "block.h"
#undef launch
#undef __CUDACC__
#include "ops.h"

namespace fastcam::threads {

static const void* body_now;

template <class Body>
void launch(const char*, int64_t blocks, int64_t, int64_t, const Body& body) {
  body_now = &body;
  gridDim.x = static_cast<unsigned>(blocks);
  for (unsigned i = 0; i < gridDim.x; ++i) {
    memset(shared_memory, 0xff, sizeof(shared_memory));
    run_block(i, Body::threads, [] { kernel<Body>(*static_cast<const Body*>(body_now)); });
  }
}

}  // namespace fastcam::threads

#include "component_boxes.cu"
#include "mask_images.cu"
#include "rank_pixels.cu"

namespace {

template <class T>
T* at(int64_t pointer) {
  return reinterpret_cast<T*>(pointer);
}

}  // namespace

using namespace fastcam;

// The arguments of each function of the bindings as an array.
extern "C" void mask_images(const int64_t* a) {
  threads::mask_images({at<float>(a[0]), at<float>(a[1]), at<void>(a[2]), at<uint8_t>(a[3]), a[4], a[5], a[6], a[7],
                        a[8], a[9], a[10], a[11], Float(a[12]), a[13] != 0, Normalize(a[14]), a[15] != 0, 0});
}
extern "C" void rank_pixels(const int64_t* a) {
  threads::rank_pixels({at<float>(a[0]), at<int32_t>(a[1]), at<uint64_t>(a[2]), a[3], a[4], a[5], 0});
}
extern "C" void component_boxes(const int64_t* a) {
  threads::component_boxes({at<float>(a[0]), at<float>(a[1]), at<int32_t>(a[2]), at<int32_t>(a[3]), at<int32_t>(a[4]),
                            a[5], a[6], a[7], a[8], a[9], a[10], int(a[11]), a[12] != 0, 0});
}
