// The tables that were compiled in; ops_dispatch.cpp asks the machine which of them it can run.
#pragma once

#include "ops.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define DQ_X86 1
#else
#define DQ_X86 0
#endif

namespace dq {

const Ops* portable_ops();
const Ops* avx2_ops();
const Ops* avx512_ops();

}  // namespace dq
