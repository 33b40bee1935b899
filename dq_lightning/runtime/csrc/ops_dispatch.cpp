// Which kernels this machine can run, asked once it runs them.

#include <cstring>

#include "ops_tables.h"

namespace dq {

extern "C" const Ops* dq_ops(const char* name) {
  if (!name || std::strcmp(name, "portable") == 0) return portable_ops();
  return nullptr;
}

}  // namespace dq
