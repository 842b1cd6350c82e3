// SPDX-License-Identifier: Apache-2.0
#include "model/patch_embedder.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/common/profile.hpp"
#include "kernels/linear.hpp"
#include "kernels/norm.hpp"
#include "kernels/reduce.hpp"

namespace strata::model {

using kernels::range;
using kernels::reshape;
using kernels::rows;
using kernels::StageRows;

namespace {

/// Rows embedded at a time: enough for the matrix product to be efficient, few enough for the concatenation
/// to be small.
constexpr Index piece_elements = Index(1) << 22;
constexpr Index least_piece_rows = 64;

/// Calls f(piece, first embedded row) for parts of `all` with at most max_bytes bytes each, `history` bytes
/// before each sequence of a part included.
template <class F>
void for_each_piece(StageRows const& all, Index history, Index max_bytes, F const& f) {
  Index const per_sequence = all.embedded_length();
  if (per_sequence == 0) return;
  Index const bytes = history + per_sequence * all.patch_bytes;
  if (bytes <= max_bytes) {
    Index const group = max_bytes / bytes;
    for (Index k = 0; k < all.shape.count; k += group) {
      f(all.part(k, std::min(group, all.shape.count - k)), k * per_sequence);
    }
    return;
  }
  Index const max_rows = (max_bytes - history) / all.patch_bytes;
  for (Index k = 0; k < all.shape.count; ++k) {
    for (Index e = 0; e < per_sequence; e += max_rows) {
      StageRows piece = all.part(k, 1);
      piece.first_position = all.first_position + all.starts() + e;
      piece.shape.length = std::min(max_rows, per_sequence - e);
      f(piece, k * per_sequence + e);
    }
  }
}

}  // namespace

template <class T>
struct PatchEmbedder<T>::Scratch {
  Mat<T> gathered, normed;                       // (piece rows, R * D_local); with convolutions only normed
  typename PatchConvolutions<T>::Levels levels;  // (piece bytes, D_local)
  Vec<T> mean, inverse_std;
  Vec<T> workspace;
  Vec<Index> order;

  static Scratch take(core::Arena& arena, PatchEmbedder const& e, StageRows const& rows, bool backward) {
    Scratch s;
    Index const embedded_rows = rows.embedded_rows(), bytes = e.piece_bytes(rows);
    Index const n = std::min(embedded_rows, bytes / e.patch_bytes_);
    Index const concatenated = e.patch_bytes_ * e.local_width_;
    if (e.convolutions_) {
      for (std::size_t l = 0; l < s.levels.size(); ++l)
        s.levels[l] = l < 2 || backward ? arena.template matrix<T>(bytes, e.local_width_) : s.levels[l - 2];
    } else if (!e.is_table_) {
      s.gathered = arena.template matrix<T>(n, concatenated);
    }
    if (!e.is_table_) {
      s.mean = arena.template vector<T>(n);
      s.inverse_std = arena.template vector<T>(n);
    }
    if (backward) {
      if (!e.is_table_) {
        s.normed = arena.template matrix<T>(n, concatenated);
        s.workspace =
            arena.template vector<T>(std::max({kernels::layer_norm_workspace(n, concatenated),
                                               kernels::layer_norm_workspace(embedded_rows, e.width_),
                                               kernels::column_sums_workspace(embedded_rows, e.width_),
                                               e.convolutions_ ? e.convolutions_->workspace(bytes) : 0}));
      }
      // A position for every byte has as many of them as any other shape.
      StageRows piece;
      piece.shape = {1, bytes};
      piece.first_position = 1;
      s.order = arena.template vector<Index>(kernels::embedding_workspace(piece, e.vocabulary_));
    }
    return s;
  }
};

template <class T>
PatchEmbedder<T>::PatchEmbedder(ModelConfig const& config, std::size_t stage, Ready ready,
                                ParameterStore<T>& parameters)
    : width_(config.hidden_dims[stage]),
      local_width_(config.hidden_dims.back()),
      patch_bytes_(config.bytes_per_position(stage)),
      vocabulary_(config.num_tokens),
      frozen_row_(config.pad_row_is_trained ? -1 : config.pad_token_id),
      history_(config.is_last(stage) ? 0 : config.patch_history()),
      is_table_(config.is_last(stage)) {
  std::string const prefix = "token_embs_rev." + std::to_string(config.stages() - 1 - stage) + ".";
  Initial const normal{Initial::Kind::normal, 0, frozen_row_};
  if (is_table_) {
    table_ = parameters.declare(prefix + "weight", {vocabulary_, local_width_}, normal, ready);
    return;
  }
  Index const concatenated = patch_bytes_ * local_width_;
  Initial const one{Initial::Kind::constant, 1}, zero{};
  Initial const uniform{Initial::Kind::uniform, 1 / std::sqrt(static_cast<double>(concatenated))};
  table_ = parameters.declare(prefix + "0.weight", {vocabulary_, local_width_}, normal, ready);
  first_gain_ = parameters.declare(prefix + "2.weight", {concatenated}, one, ready);
  first_bias_ = parameters.declare(prefix + "2.bias", {concatenated}, zero, ready);
  weight_ = parameters.declare(prefix + "3.weight", {width_, concatenated}, uniform, ready);
  bias_ = parameters.declare(prefix + "3.bias", {width_}, uniform, ready);
  second_gain_ = parameters.declare(prefix + "4.weight", {width_}, one, ready);
  second_bias_ = parameters.declare(prefix + "4.bias", {width_}, zero, ready);
  if (history_ > 0) convolutions_.emplace(local_width_, prefix, ready, parameters);
}

/// The most bytes of a piece of these rows, history included.
template <class T>
Index PatchEmbedder<T>::piece_bytes(StageRows const& rows) const {
  if (rows.embedded_rows() == 0) return 0;
  Index const all = rows.shape.count * (history_ + rows.embedded_length() * patch_bytes_);
  return std::min(all, std::max(history_ + least_piece_rows * patch_bytes_, piece_elements / local_width_));
}

/// The bytes of a piece that become rows, without the history.
template <class T>
Sequences PatchEmbedder<T>::convolved(StageRows const& piece) const {
  return {piece.shape.count, piece.embedded_length() * patch_bytes_};
}

template <class T>
Index PatchEmbedder<T>::tape_size(Index embedded_rows) const {
  return is_table_ ? 0 : embedded_rows * (width_ + 2);
}

template <class T>
std::size_t PatchEmbedder<T>::forward_scratch(StageRows const& all) const {
  core::Arena arena = core::Arena::measuring();
  Scratch::take(arena, *this, all, false);
  return arena.peak();
}

template <class T>
std::size_t PatchEmbedder<T>::backward_scratch(StageRows const& all) const {
  core::Arena arena = core::Arena::measuring();
  Scratch::take(arena, *this, all, true);
  return arena.peak();
}

/// The embeddings of a piece's sub-patches side by side (piece rows, R * D_local).
template <class T>
Mat<T> PatchEmbedder<T>::concatenate(Pass<T> const& pass, kernels::Tokens const& tokens,
                                     StageRows const& piece, Scratch const& scratch) const {
  Index const count = piece.embedded_rows(), concatenated = patch_bytes_ * local_width_;
  StageRows with_history = piece;
  with_history.lead = history_;
  Mat<T> const gathered = reshape(convolutions_ ? scratch.levels[0] : scratch.gathered,
                                  with_history.embedded_bytes(), local_width_);
  kernels::embedding_forward<T>(pass.space, tokens, with_history, pass.parameters.value(table_), gathered);
  if (!convolutions_) return reshape(gathered, count, concatenated);
  convolutions_->forward(pass, convolved(piece), scratch.levels);
  return reshape(scratch.levels.back(), count, concatenated);
}

/// From the gradient of what `concatenate` returned (piece rows, R * D_local), to the table and the
/// convolutions.
template <class T>
void PatchEmbedder<T>::concatenate_backward(Pass<T> const& pass, kernels::Tokens const& tokens,
                                            StageRows piece, Scratch const& scratch, Mat<T> gradient) const {
  Mat<T> d = reshape(gradient, piece.embedded_rows() * patch_bytes_, local_width_);
  if (convolutions_)
    d = convolutions_->backward(pass, convolved(piece), scratch.levels, d, scratch.workspace);
  piece.lead = history_;
  kernels::embedding_backward<T>(pass.space, tokens, piece, d, frozen_row_, pass.parameters.gradient(table_),
                                 scratch.order);
}

template <class T>
void PatchEmbedder<T>::forward(Pass<T> const& pass, kernels::Tokens const& tokens, StageRows const& all,
                               Vec<T> tape, Mat<T> out) const {
  ParameterStore<T> const& p = pass.parameters;
  if (is_table_) {
    kernels::embedding_forward<T>(pass.space, tokens, all, p.value(table_), out);
    return;
  }
  Index const n = all.embedded_rows();
  core::Arena::Frame const frame(pass.arena);
  Scratch const scratch = Scratch::take(pass.arena, *this, all, false);
  Mat<T> const z(tape.data(), n, width_);
  for_each_piece(all, history_, piece_bytes(all), [&](StageRows const& piece, Index first) {
    Index const count = piece.embedded_rows();
    Mat<T> const gathered = concatenate(pass, tokens, piece, scratch);
    kernels::layer_norm_forward<T>(pass.space, gathered, p.vector(first_gain_), p.vector(first_bias_),
                                   gathered, range(scratch.mean, 0, count),
                                   range(scratch.inverse_std, 0, count));
    kernels::linear_forward<T>(pass.space, gathered, p.value(weight_), p.vector(bias_),
                               rows(z, first, first + count));
  });
  Vec<T> const mean(tape.data() + n * width_, n), inverse_std(tape.data() + n * width_ + n, n);
  kernels::layer_norm_forward<T>(pass.space, z, p.vector(second_gain_), p.vector(second_bias_), out, mean,
                                 inverse_std);
}

template <class T>
void PatchEmbedder<T>::backward(Pass<T> const& pass, kernels::Tokens const& tokens, StageRows const& all,
                                Vec<T> tape, Mat<T> dout) const {
  ParameterStore<T> const& p = pass.parameters;
  Index const n = all.embedded_rows();
  core::Arena::Frame const frame(pass.arena);
  Scratch const scratch = Scratch::take(pass.arena, *this, all, true);
  if (is_table_) {
    for_each_piece(all, history_, piece_bytes(all), [&](StageRows const& piece, Index first) {
      kernels::embedding_backward<T>(pass.space, tokens, piece,
                                     rows(dout, first, first + piece.embedded_rows()), frozen_row_,
                                     p.gradient(table_), scratch.order);
    });
    return;
  }
  Mat<T> const z(tape.data(), n, width_);
  Vec<T> const mean(tape.data() + n * width_, n), inverse_std(tape.data() + n * width_ + n, n);
  Mat<T> const& dz = dout;
  kernels::layer_norm_backward<T>(pass.space, dout, z, p.vector(second_gain_), mean, inverse_std, dz,
                                  p.gradient_vector(second_gain_), p.gradient_vector(second_bias_),
                                  scratch.workspace);
  kernels::column_sums<T>(pass.space, dz, p.gradient_vector(bias_), scratch.workspace);
  for_each_piece(all, history_, piece_bytes(all), [&](StageRows const& piece, Index first) {
    Index const count = piece.embedded_rows();
    Mat<T> gathered;
    Mat<T> const normed = rows(scratch.normed, 0, count);
    Mat<T> const dz_piece = rows(dz, first, first + count);
    Vec<T> const mean_piece = range(scratch.mean, 0, count);
    Vec<T> const inverse_std_piece = range(scratch.inverse_std, 0, count);
    {
      kernels::Region const region("rebuild");
      gathered = concatenate(pass, tokens, piece, scratch);
      kernels::layer_norm_forward<T>(pass.space, gathered, p.vector(first_gain_), p.vector(first_bias_),
                                     normed, mean_piece, inverse_std_piece);
    }
    kernels::linear_backward_weight<T>(pass.space, dz_piece, normed, p.gradient(weight_));
    Mat<T> const& dnormed = normed;  // its last use was the product above
    kernels::linear_backward_input<T>(pass.space, dz_piece, p.value(weight_), dnormed);
    kernels::layer_norm_backward<T>(pass.space, dnormed, gathered, p.vector(first_gain_), mean_piece,
                                    inverse_std_piece, dnormed, p.gradient_vector(first_gain_),
                                    p.gradient_vector(first_bias_), scratch.workspace);
    concatenate_backward(pass, tokens, piece, scratch, dnormed);
  });
}

template <class T>
double PatchEmbedder<T>::forward_flops(StageRows const& all) const {
  if (is_table_) return 0;
  double const per_row = 2.0 * static_cast<double>(width_) * static_cast<double>(patch_bytes_ * local_width_);
  return (convolutions_ ? convolutions_->forward_flops(convolved(all)) : 0) +
         static_cast<double>(all.embedded_rows()) * per_row;
}

template class PatchEmbedder<float>;
template class PatchEmbedder<double>;

}  // namespace strata::model
