// The only C++ file that knows Python. Pointers and sizes in, nothing out: Python allocates and checks.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <string>

#include "ops.h"

namespace py = pybind11;
using namespace fastcam;
using Unlocked = py::call_guard<py::gil_scoped_release>;
using Ptr = std::uintptr_t;
using Int = std::int64_t;
using Strides = std::array<Int, 4>;

namespace {

template <class T>
T* at(Ptr pointer) {
  return reinterpret_cast<T*>(pointer);
}

Pixels pixels(Ptr data, Strides s) { return {at<void>(data), s[0], s[1], s[2], s[3]}; }

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#elif defined(__GNUC__)
  return "gcc " __VERSION__;
#elif defined(_MSC_VER)
  return "msvc " + std::to_string(_MSC_VER);
#else
  return "unknown";
#endif
}

py::dict build_info() {
  py::dict info;
  info["isa"] = isa();
#ifdef _OPENMP
  info["openmp"] = true;
#else
  info["openmp"] = false;
#endif
#ifdef FASTCAM_HAS_CUDA
  info["cuda"] = true;
#else
  info["cuda"] = false;
#endif
  info["compiler"] = compiler();
  return info;
}

// The kernels of one set, as functions of a module; those that it lacks are left out.
void bind(py::module_ m, const Kernels& (*table)()) {
  if (table().weighted_sum)
    m.def(
        "weighted_sum",
        [table](Ptr activations, Ptr weights, Ptr out, Int B, Int T, Int C, Int P, int type, Int place) {
          table().weighted_sum(
              {at<void>(activations), at<float>(weights), at<float>(out), B, T, C, P, Float(type), place});
        },
        Unlocked());

  if (table().resize_normalize)
    m.def(
        "resize_normalize",
        [table](Ptr maps, Ptr out, Int N, Int h, Int w, Int H, Int W, int clip, Int place) {
          table().resize_normalize({at<float>(maps), at<float>(out), N, h, w, H, W, Clip(clip), place});
        },
        Unlocked());

  if (table().mask_images)
    m.def(
        "mask_images",
        [table](Ptr activations, Ptr images, Ptr out, Ptr constant, Int stride, Int B, Int K, Int h, Int w, Int C,
                Int H, Int W, int type, bool channels_last, int normalize, bool align_corners, Int place) {
          table().mask_images({at<float>(activations), at<float>(images), at<void>(out), at<uint8_t>(constant), stride,
                               B, K, h, w, C, H, W, Float(type), channels_last, Normalize(normalize), align_corners,
                               place});
        },
        Unlocked());

  if (table().mask_cells)
    m.def(
        "mask_cells",
        [table](Ptr activations, Ptr out, Int B, Int C, Int h, Int w, Int start, Int stop, int type, bool channels_last,
                int kernel, Int place) {
          table().mask_cells({at<float>(activations), at<void>(out), B, C, h, w, start, stop, Float(type),
                              channels_last, Kernel(kernel), place});
        },
        Unlocked());

  if (table().mask_channels)
    m.def(
        "mask_channels",
        [table](Ptr activations, Ptr out, Int B, Int C, Int P, Int start, Int stop, Int bytes, bool channels_last,
                Int place) {
          table().mask_channels(
              {at<void>(activations), at<void>(out), B, C, P, start, stop, bytes, channels_last, place});
        },
        Unlocked());

  if (table().overlay)
    m.def(
        "overlay",
        [table](Ptr images, Ptr maps, Ptr colormap, Ptr out, Int N, double alpha, Int place) {
          table().overlay(
              {at<uint8_t>(images), at<float>(maps), at<uint8_t>(colormap), at<uint8_t>(out), N, alpha, place});
        },
        Unlocked());

  if (table().rank_pixels)
    m.def(
        "rank_pixels",
        [table](Ptr maps, Ptr ranks, Ptr scratch, Int blocks, Int N, Int P, Int place) {
          table().rank_pixels({at<float>(maps), at<int32_t>(ranks), at<uint64_t>(scratch), blocks, N, P, place});
        },
        Unlocked());

  if (table().perturb_steps)
    m.def(
        "perturb_steps",
        [table](Ptr images, Strides image, Ptr others, Strides other, Ptr ranks, Ptr counts, Ptr out, Int stride, Int N,
                Int S, Int C, Int H, Int W, Int h, Int w, Int bytes, bool channels_last, Int place) {
          table().perturb_steps({pixels(images, image), pixels(others, other), at<int32_t>(ranks), at<int64_t>(counts),
                                 at<void>(out), stride, N, S, C, H, W, h, w, bytes, channels_last, place});
        },
        Unlocked());

  if (table().blur_images)
    m.def(
        "blur_images",
        [table](Ptr images, Ptr taps, Ptr out, Int N, Int C, Int H, Int W, Int size, int type, bool channels_last,
                Int place) {
          table().blur_images(
              {at<void>(images), at<float>(taps), at<void>(out), N, C, H, W, size, Float(type), channels_last, place});
        },
        Unlocked());

  if (table().component_boxes)
    m.def(
        "component_boxes",
        [table](Ptr maps, Ptr thresholds, Ptr boxes, Ptr areas, Ptr scratch, Int blocks, Int stride, Int B, Int H,
                Int W, Int T, int connectivity, bool relative, Int place) {
          table().component_boxes({at<float>(maps), at<float>(thresholds), at<int32_t>(boxes), at<int32_t>(areas),
                                   at<int32_t>(scratch), blocks, stride, B, H, W, T, connectivity, relative, place});
        },
        Unlocked());

  if (table().components)
    m.def(
        "components",
        [table](Ptr maps, Ptr thresholds, Ptr boxes, Ptr areas, Ptr owners, Ptr count, Int capacity, Int stride, Int B,
                Int H, Int W, Int T, Int min_area, int connectivity, bool relative, Int place) {
          table().components({at<float>(maps), at<float>(thresholds), at<int32_t>(boxes), at<int32_t>(areas),
                              at<int64_t>(owners), at<int64_t>(count), capacity, stride, B, H, W, T, min_area,
                              connectivity, relative, place});
        },
        Unlocked());

  if (table().energy_in_boxes)
    m.def(
        "energy_in_boxes",
        [table](Ptr maps, Ptr boxes, Ptr inside, Ptr total, Int B, Int N, Int H, Int W, bool inclusive, Int place) {
          table().energy_in_boxes(
              {at<float>(maps), at<float>(boxes), at<double>(inside), at<double>(total), B, N, H, W, inclusive, place});
        },
        Unlocked());

  if (table().impute_pixels)
    m.def(
        "impute_pixels",
        [table](Ptr images, Ptr removed, Ptr out, Ptr failed, Int stride, Int N, Int C, Int H, Int W, double tolerance,
                Int place) {
          table().impute_pixels({at<float>(images), at<uint8_t>(removed), at<float>(out), at<uint8_t>(failed), stride,
                                 N, C, H, W, tolerance, place});
        },
        Unlocked());
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.def("build_info", &build_info);
  m.def("use_isa", &use_isa);
  bind(m, kernels);
  py::module_ cuda = m.def_submodule("cuda");
  bind(cuda, cuda_kernels);
  cuda.def("refusal", &cuda_refusal);
  py::module_ emulated = m.def_submodule("emulated");
  bind(emulated, emulated_kernels);
  emulated.def("set_order", &set_order);
}
