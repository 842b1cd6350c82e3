// SPDX-License-Identifier: Apache-2.0
#pragma once
// A message to a neighbour and back.

#include <string>

#include "parallel/communicator.hpp"

namespace strata::parallel {

/// The rank that is `first` of the two sends `message`, and `partner` sends it back. Called by the two alone,
/// with messages of one length.
inline void exchange(Communicator const& ranks, std::string& message, int partner, bool first) {
  int const length = static_cast<int>(message.size());
  for (bool const sends : {first, !first}) {
    if (sends) {
      check_mpi(MPI_Send(message.data(), length, MPI_BYTE, partner, 0, ranks.get()), "MPI_Send");
    } else {
      check_mpi(MPI_Recv(message.data(), length, MPI_BYTE, partner, 0, ranks.get(), MPI_STATUS_IGNORE),
                "MPI_Recv");
    }
  }
}

}  // namespace strata::parallel
