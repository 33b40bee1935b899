// Which kernels this machine can run.

#include <cstring>

#include "ops_tables.h"

namespace dq {
namespace {

// __builtin_cpu_supports also asks whether the operating system keeps the wide registers.
bool runs_avx512() {
#if DQ_X86
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

bool runs_avxvnni() {
#if DQ_AVXVNNI
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("avxvnni");
#else
  return false;
#endif
}

bool runs_avx2() {
#if DQ_X86
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

bool wanted(const char* name, const char* own) { return !name || std::strcmp(name, own) == 0; }

}  // namespace

extern "C" const Ops* dq_ops(const char* name) {
  if (wanted(name, "avx512") && runs_avx512()) return avx512_ops();
  if (wanted(name, "avxvnni") && runs_avxvnni()) return avxvnni_ops();
  if (wanted(name, "avx2") && runs_avx2()) return avx2_ops();
  return wanted(name, "portable") ? portable_ops() : nullptr;
}

}  // namespace dq
