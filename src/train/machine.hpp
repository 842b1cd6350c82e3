// SPDX-License-Identifier: Apache-2.0
#pragma once
// The two limits of the machine that a run is measured against, taken in the same process.

namespace strata::train {

struct Machine {
  double gemm_flops = 0;  ///< operations per second of a large float matrix product on this rank's cores
  double bandwidth = 0;   ///< bytes per second of a triad a = b + s c over arrays larger than the caches
};

/// The first alone, in about so many seconds. It needs little memory, so that it does not raise the peak of a
/// small run, and leaves the BLAS with the buffers that every run has.
double measure_gemm_flops(double seconds = 0.4);

/// Best of several runs, about 0.6 s. On a shared node all ranks call it at the same time, so that each sees
/// its share.
Machine measure_machine();

}  // namespace strata::train
