#include <cuda_runtime.h>

#include "ops.h"

namespace fastcam {
namespace {

__global__ void nothing() {}

}  // namespace

std::string cuda_refusal() {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(&nothing));
  if (error == cudaSuccess) return "";
  cudaGetLastError();  // torch would report it again at its next launch
  return cudaGetErrorString(error);
}

}  // namespace fastcam
