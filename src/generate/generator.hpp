// SPDX-License-Identifier: Apache-2.0
#pragma once
// Reading and predicting one token at a time: every stage keeps its carry and moves on by one row when one of
// its sub-patches is complete, so the cost of a token does not grow with what was read, but for the keys that
// the outermost stage's attention looks at.

#include <cstdint>
#include <memory>
#include <vector>

#include "model/hierarchy.hpp"

namespace strata::generate {

using kernels::Index;
using kernels::Mat;

template <class T>
class Generator {
 public:
  /// `batch` sequences in step with each other. max_tokens: how many tokens will be appended at most (0: the
  /// model's context). Throws core::InputError for models with bidirectional stages.
  Generator(model::Hierarchy<T> const& model, Index batch, Index max_tokens = 0);

  Index position() const { return position_; }  ///< tokens appended so far

  /// Logits of the next token, (batch, V) row-major on the host. At position 0 this is the first row of a
  /// whole window's forward pass; see empty_prompt_logits for head `reference`.
  std::vector<T> logits();

  /// Appends one token to each sequence. Throws core::InputError beyond max_tokens or the model's position
  /// table.
  void append(std::vector<std::int32_t> const& tokens);

  std::vector<T> step(std::vector<std::int32_t> const& tokens) {
    append(tokens);
    return logits();
  }

 private:
  struct StageState {
    model::Carry<T> carry;
    typename model::Stage<T>::StageTape tape;
    Mat<T> context;  // (batch, P * D), what the parent's last row says to this sequence
    Mat<T> row;      // (batch, D), the output of the last row
    Index length = 0;
  };

  void advance();
  void run_row(std::size_t stage, Index row, Index first_token);
  bool complete() const { return model_.config().head == model::Head::complete; }

  model::Hierarchy<T> const& model_;
  Index batch_, max_tokens_;
  Index position_ = 0;
  bool advanced_ = false;  ///< the rows that predict the token at position_ have run
  std::unique_ptr<core::Arena> memory_, scratch_;
  std::vector<StageState> stages_;
  Kokkos::View<std::uint16_t**, Kokkos::LayoutRight, kernels::MemSpace> tokens_;
  Kokkos::View<Index*, kernels::MemSpace> lengths_;
  Mat<T> logits_;
};

/// What the package predicts for an empty prompt (1, V): each stage reads its start vector plus slot 0 of its
/// parent's projection. The same as Generator::logits at position 0 for head `complete`, but not for head
/// `reference`.
template <class T>
std::vector<double> empty_prompt_logits(model::Hierarchy<T> const& model);

}  // namespace strata::generate
