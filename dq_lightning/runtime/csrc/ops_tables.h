// The tables that were compiled in; ops_dispatch.cpp asks the machine which of them it can run.
#pragma once

#include "ops.h"

// GCC alone has the pragmas that compile one file for one instruction set: other compilers make the
// portable kernels only.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define DQ_X86 1
#else
#define DQ_X86 0
#endif

// The first release that knows AVX-VNNI.
#if DQ_X86 && __GNUC__ >= 11
#define DQ_AVXVNNI 1
#else
#define DQ_AVXVNNI 0
#endif

namespace dq {

const Ops* portable_ops();
const Ops* avx2_ops();
const Ops* avxvnni_ops();
const Ops* avx512_ops();

}  // namespace dq
