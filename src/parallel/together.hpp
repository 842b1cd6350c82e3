// SPDX-License-Identifier: Apache-2.0
#pragma once
// Errors of one rank told on all of them, so that none waits for another that has given up.

#include <exception>
#include <string>

#include "core/error.hpp"
#include "parallel/communicator.hpp"

namespace strata::parallel {

/// Calls f() and returns the words of what it threw, or nothing.
template <class F>
std::string problem_of(F const& f) {
  try {
    f();
  } catch (std::exception const& error) {
    std::string const text = error.what();
    return text.empty() ? "an error without a message" : text;
  }
  return {};
}

/// Collective: throws core::InputError on every rank with the problem of the lowest rank that has one.
inline void agree(Communicator const& ranks, std::string const& problem) {
  auto const none = static_cast<double>(ranks.size());
  double const first = ranks.min(problem.empty() ? none : static_cast<double>(ranks.rank()));
  if (first < none) throw core::InputError(ranks.broadcast(problem, static_cast<int>(first)));
}

/// Collective: every rank calls f; where it throws on some, all throw.
template <class F>
void together(Communicator const& ranks, F const& f) {
  agree(ranks, problem_of(f));
}

/// Collective: rank 0 calls f; where it throws, every rank does.
template <class F>
void on_root(Communicator const& ranks, F const& f) {
  std::string problem;
  if (ranks.is_root()) problem = problem_of(f);
  problem = ranks.broadcast(problem);
  if (!problem.empty()) throw core::InputError(problem);
}

}  // namespace strata::parallel
