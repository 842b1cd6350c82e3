// SPDX-License-Identifier: Apache-2.0
#pragma once
// All parameters of a model in one flat buffer, and their gradients in another of the same layout. Names and
// shapes are those of the MBLM package's state_dict.

#include <string>
#include <vector>

#include "kernels/common/types.hpp"

namespace strata::model {

using kernels::Index;

/// How a parameter starts out.
struct Initial {
  enum class Kind {
    constant,
    normal,
    uniform,
    /// Bias in front of a softplus whose value, the step, is log-uniform on [1e-3, 0.1] (never below 1e-4).
    inverse_softplus_step,
    log_uniform_1_16,  ///< log of a uniform number in [1, 16]: Mamba-2's A_log
    log_column         ///< log of the column's number, counted from 1, in every row: Mamba-1's A_log
  } kind = Kind::constant;
  double value = 0;     ///< the constant, or the bound a of the uniform distribution on [-a, a]
  Index zero_row = -1;  ///< a row set to zero afterwards (the pad token's embedding)

  /// Logarithms of rates are left alone by weight decay, also where they form a matrix: it would draw every
  /// rate to 1.
  bool may_decay() const { return kind != Kind::log_uniform_1_16 && kind != Kind::log_column; }
};

/// When a parameter's gradient is complete: inner ones once the last inner chunk ran, i.e. before the
/// outermost stage's backward pass starts, so that their sum over ranks hides behind it.
enum class Ready { before_outer_backward, at_end };

/// A handle: where a parameter lives. Vectors have rows = 1; dimensions after the second join the columns.
struct Parameter {
  Index offset = 0;
  Index rows = 1;
  Index columns = 0;
  Index size() const { return rows * columns; }
};

struct ParameterInfo {
  std::string name;
  std::vector<Index> shape;
  Initial initial;
  Ready ready = Ready::at_end;
  bool adjacent = false;  ///< follows the parameter declared before it without a gap
  Parameter place;
  /// Weight decay acts on matrices and tables (anything but vectors), logarithms of rates excepted.
  bool decays() const { return shape.size() > 1 && initial.may_decay(); }
};

/// A contiguous range of the flat buffers.
struct FlatRange {
  Index begin = 0;
  Index end = 0;
  Index size() const { return end - begin; }
};

template <class T>
class ParameterStore {
 public:
  /// Declares a parameter; the returned number is resolved by `place` once all are declared.
  std::size_t declare(std::string name, std::vector<Index> shape, Initial initial, Ready ready,
                      bool adjacent = false);

  /// Gives every parameter its place and so the buffers their size. Order: by readiness, decaying ones first
  /// within it.
  void lay_out();
  /// Lays the buffers out and allocates them (zero-filled).
  void allocate(bool with_gradients);

  std::vector<ParameterInfo> const& all() const { return info_; }
  /// Index into all() by name; throws std::out_of_range with the name.
  std::size_t find(std::string const& name) const;
  Parameter place(std::size_t parameter) const { return info_[parameter].place; }

  /// Number of parameters (elements), and of elements in the flat buffer with its alignment gaps.
  Index count() const;
  Index flat_size() const { return flat_size_; }
  FlatRange ready_range(Ready ready) const { return ready == Ready::at_end ? at_end_ : before_; }
  /// Ranges that together cover the buffer, each wholly decaying or not.
  struct DecayRange {
    FlatRange range;
    bool decays;
  };
  std::vector<DecayRange> const& decay_ranges() const { return decay_ranges_; }

  kernels::Vec<T> values() const { return kernels::Vec<T>(values_.data(), values_.extent(0)); }
  kernels::Vec<T> gradients() const { return kernels::Vec<T>(gradients_.data(), gradients_.extent(0)); }

  kernels::Mat<T> value(std::size_t p) const { return matrix(values_, p); }
  kernels::Vec<T> vector(std::size_t p) const { return kernels::flat(matrix(values_, p)); }
  kernels::Mat<T> gradient(std::size_t p) const { return matrix(gradients_, p); }
  kernels::Vec<T> gradient_vector(std::size_t p) const { return kernels::flat(matrix(gradients_, p)); }
  /// Two adjacent matrices of equal width as one.
  kernels::Mat<T> stacked_value(std::size_t first, std::size_t second) const {
    return stacked(values_, first, second);
  }
  kernels::Mat<T> stacked_gradient(std::size_t first, std::size_t second) const {
    return stacked(gradients_, first, second);
  }

  /// Fills the values from `seed`: a function of (seed, name, element) only.
  void initialise(std::uint64_t seed);

  /// One parameter to or from host memory, row-major.
  void get(std::size_t p, T* host) const { copy_out(values_, p, host); }
  void get_gradient(std::size_t p, T* host) const { copy_out(gradients_, p, host); }
  void set(std::size_t p, T const* host);

 private:
  using Buffer = Kokkos::View<T*, kernels::MemSpace>;

  kernels::Mat<T> matrix(Buffer const& buffer, std::size_t p) const {
    Parameter const& at = info_[p].place;
    return kernels::Mat<T>(buffer.data() + at.offset, at.rows, at.columns);
  }
  kernels::Mat<T> stacked(Buffer const& buffer, std::size_t first, std::size_t second) const;
  void copy_out(Buffer const& buffer, std::size_t p, T* host) const;

  std::vector<ParameterInfo> info_;
  Index flat_size_ = 0;
  FlatRange before_, at_end_;
  std::vector<DecayRange> decay_ranges_;
  Buffer values_, gradients_;
};

}  // namespace strata::model
