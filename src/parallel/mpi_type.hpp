// SPDX-License-Identifier: Apache-2.0
#pragma once
// MPI's name of a scalar type.

#include <mpi.h>

#include <type_traits>

namespace strata::parallel {

template <class T>
MPI_Datatype mpi_type() {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);
  return std::is_same_v<T, float> ? MPI_FLOAT : MPI_DOUBLE;
}

}  // namespace strata::parallel
