// SPDX-License-Identifier: Apache-2.0
#include "parallel/communicator.hpp"

#include <algorithm>
#include <array>
#include <stdexcept>

#include "kernels/common/profile.hpp"

namespace strata::parallel {
namespace {

using kernels::CommunicationScope;

double reduce(MPI_Comm comm, double value, MPI_Op operation) {
  double result = value;
  CommunicationScope const timed("MPI_Allreduce", sizeof value);
  check_mpi(MPI_Allreduce(&value, &result, 1, MPI_DOUBLE, operation, comm), "MPI_Allreduce");
  return result;
}

}  // namespace

void check_mpi(int code, char const* call) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text = {};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  throw std::runtime_error(std::string(call) + ": " + text.data());
}

Communicator::Communicator(MPI_Comm parent, std::size_t piece) : piece_(piece) {
  if (piece == 0 || piece > max_piece)
    throw std::logic_error("Communicator: a piece has 1 to 2^31 - 1 elements");
  check_mpi(MPI_Comm_dup(parent, &comm_), "MPI_Comm_dup");
  check_mpi(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check_mpi(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
}

Communicator::~Communicator() { MPI_Comm_free(&comm_); }

int Communicator::size_on_node() const {
  MPI_Comm node = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(comm_, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node), "MPI_Comm_split_type");
  int size = 1;
  MPI_Comm_size(node, &size);
  MPI_Comm_free(&node);
  return size;
}

double Communicator::sum(double value) const { return reduce(comm_, value, MPI_SUM); }
double Communicator::max(double value) const { return reduce(comm_, value, MPI_MAX); }
double Communicator::min(double value) const { return reduce(comm_, value, MPI_MIN); }
bool Communicator::any(bool value) const { return max(value ? 1.0 : 0.0) > 0.0; }

void Communicator::sum_in_place(double* values, std::size_t count) const {
  for (std::size_t begin = 0; begin < count; begin += piece_) {
    int const n = static_cast<int>(std::min(piece_, count - begin));
    CommunicationScope const timed("MPI_Allreduce", static_cast<std::size_t>(n) * sizeof(double));
    check_mpi(MPI_Allreduce(MPI_IN_PLACE, values + begin, n, MPI_DOUBLE, MPI_SUM, comm_), "MPI_Allreduce");
  }
}

void Communicator::barrier() const {
  CommunicationScope const timed("MPI_Barrier", 0);
  check_mpi(MPI_Barrier(comm_), "MPI_Barrier");
}

void Communicator::broadcast(void* data, std::size_t bytes, int root) const {
  for (std::size_t begin = 0; begin < bytes; begin += piece_) {
    int const n = static_cast<int>(std::min(piece_, bytes - begin));
    CommunicationScope const timed("MPI_Bcast", static_cast<std::size_t>(n));
    check_mpi(MPI_Bcast(static_cast<char*>(data) + begin, n, MPI_BYTE, root, comm_), "MPI_Bcast");
  }
}

std::string Communicator::broadcast(std::string text, int root) const {
  unsigned long long size = text.size();
  broadcast(&size, sizeof size, root);
  text.resize(size);
  broadcast(text.data(), text.size(), root);
  return text;
}

void Communicator::send(void const* data, std::size_t bytes, int to) const {
  for (std::size_t begin = 0; begin < bytes; begin += piece_) {
    int const n = static_cast<int>(std::min(piece_, bytes - begin));
    CommunicationScope const timed("MPI_Send", static_cast<std::size_t>(n));
    check_mpi(MPI_Send(static_cast<char const*>(data) + begin, n, MPI_BYTE, to, 0, comm_), "MPI_Send");
  }
}

void Communicator::receive(void* data, std::size_t bytes, int from) const {
  for (std::size_t begin = 0; begin < bytes; begin += piece_) {
    int const n = static_cast<int>(std::min(piece_, bytes - begin));
    CommunicationScope const timed("MPI_Recv", 0);
    check_mpi(MPI_Recv(static_cast<char*>(data) + begin, n, MPI_BYTE, from, 0, comm_, MPI_STATUS_IGNORE),
              "MPI_Recv");
  }
}

std::vector<std::string> Communicator::gather(std::string const& mine, int root) const {
  unsigned long long const size = mine.size();
  std::vector<unsigned long long> sizes(static_cast<std::size_t>(size_));
  check_mpi(
      MPI_Gather(&size, 1, MPI_UNSIGNED_LONG_LONG, sizes.data(), 1, MPI_UNSIGNED_LONG_LONG, root, comm_),
      "MPI_Gather");
  if (rank_ != root) {
    send(mine.data(), mine.size(), root);
    return {};
  }
  std::vector<std::string> all(static_cast<std::size_t>(size_));
  for (int r = 0; r < size_; ++r) {
    std::string& text = all[static_cast<std::size_t>(r)];
    if (r == root) {
      text = mine;
      continue;
    }
    text.resize(sizes[static_cast<std::size_t>(r)]);
    receive(text.data(), text.size(), r);
  }
  return all;
}

}  // namespace strata::parallel
