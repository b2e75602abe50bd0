// Which copy of the CPU kernels runs: the widest instruction set that this build and this CPU have.
#include <cstring>

#include "ops.h"

namespace fastcam {
namespace plain {
extern const Kernels table;
}
namespace avx2 {
extern const Kernels table;
}
namespace avx512 {
extern const Kernels table;
}
namespace cuda {
extern const Kernels table;
}
namespace emulated {
extern const Kernels table;
}

namespace {

struct Isa {
  const char* name;
  const Kernels* table;
  bool (*runs)();
};

const Isa all[] = {
#ifdef FASTCAM_HAS_AVX512
    {"avx512", &avx512::table,
     [] {
       return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
     }},
#endif
#ifdef FASTCAM_HAS_AVX2
    // No name for F16C in older compilers; every CPU with AVX2 has it.
    {"avx2", &avx2::table, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
#endif
    {"plain", &plain::table, [] { return true; }},
};

const Isa* widest() {
#if defined(FASTCAM_HAS_AVX2)
  __builtin_cpu_init();  // this runs while the library is loaded, perhaps before the compiler's own
#endif
  const Isa* isa = all;
  while (!isa->runs()) ++isa;
  return isa;
}

const Isa* current = widest();

}  // namespace

const Kernels& kernels() { return *current->table; }

const Kernels& cuda_kernels() {
#ifdef FASTCAM_HAS_CUDA
  return cuda::table;
#else
  static const Kernels none{};
  return none;
#endif
}

#ifndef FASTCAM_HAS_CUDA
std::string cuda_refusal() { return "built without CUDA"; }
#endif

const Kernels& emulated_kernels() { return emulated::table; }

const char* isa() { return current->name; }

bool use_isa(const char* name) {
  for (const Isa& isa : all)
    if (!std::strcmp(isa.name, name) && isa.runs()) return current = &isa, true;
  return false;
}

}  // namespace fastcam
